//! Is every frame where it was before the tests?

use alloc::vec::Vec;

use hypercall::XenErrno;

use super::{Check, Test, TestContext, fail};
use crate::machine::Machine;

/// The accounts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountsSnapshot {
    /// Frames that the allocator has.
    free: u64,
    /// Frames in quarantine.
    quarantined: u64,
    /// Frames that Xen has on record for the domain.
    reservation: Result<u64, XenErrno>,
}

impl AccountsSnapshot {
    /// The accounts now.
    pub fn of(machine: &Machine) -> Self {
        Self {
            free: machine.frames.lock().free_frames(),
            quarantined: machine.accounts.quarantined(),
            reservation: machine.current_reservation(),
        }
    }
}

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("accounts-balanced", balanced));
}

fn balanced(context: &TestContext<'_>) -> Check {
    let now = AccountsSnapshot::of(context.machine);
    if now != context.before {
        fail!("before: {:?}, now: {now:?}", context.before);
    }
    if now.quarantined != 0 || now.reservation.is_err() {
        fail!("{now:?}");
    }
    Ok(())
}
