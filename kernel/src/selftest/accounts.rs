//! Is every frame where it was before the tests?

use alloc::vec::Vec;

use hypercall::XenErrno;

use super::reservation::reduced;
use super::{Check, Test, TestContext, fail, skip};
use crate::drivers::memory;
use crate::machine::Machine;

/// The counts of frames at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountsSnapshot {
    /// The frames that the frame allocator has, and those with the records of devices, which stay.
    free: u64,
    /// The frames in quarantine.
    quarantined: u64,
    /// The frames that Xen counts for the domain.
    reservation: Result<u64, XenErrno>,
}

impl AccountsSnapshot {
    /// Returns the counts now.
    pub fn of(machine: &Machine) -> Self {
        Self {
            free: machine.frames.lock().free_frames() + memory::record_frames(),
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
        if let Some(why) = reduced() {
            skip!("{why}");
        }
        fail!("before: {:?}, now: {now:?}", context.before);
    }
    if now.quarantined != 0 || now.reservation.is_err() {
        fail!("expected no quarantined frame and a reservation, found {now:?}");
    }
    Ok(())
}
