//! Masking events, and sleeping until an event arrives.

use core::num::NonZeroU64;

use hypercall::Xen;
use hypercall::abi::vcpu::RunstateInfo;
use hypercall::ops::{SchedOp, VcpuOp};

use crate::guest::guest;
use crate::hypervisor::untraced;
use crate::time::Deadline;
use crate::tsc::tsc;
use crate::vcpu::{self, local};

/// A millisecond in nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// Masks events on this vCPU. They stay pending. Calls do not nest.
pub fn mask() {
    guest().mask_events();
    local().events.begin_masked(tsc());
}

/// Returns true if events are masked on this vCPU.
pub fn is_masked() -> bool {
    guest().masks_events()
}

/// Ends the period that [`mask`] began, and delivers pending events at once.
pub fn unmask() {
    account();
    guest().unmask_events();
}

/// Ends the period that [`mask`] began and sleeps until an event arrives.
///
/// Both happen in one step, so an event that is already pending ends the sleep at once.
///
/// # Panics
/// If Xen refuses to let the vCPU sleep.
pub fn block() {
    account();
    guest().block();
}

/// Sleeps until `done` returns true or the deadline has passed. Returns the last result of `done`.
///
/// Another vCPU sends a notification when the result of `done` may have changed.
pub fn wait_until(deadline: Deadline, done: impl Fn() -> bool) -> bool {
    let port = local().events.port();
    loop {
        mask();
        if done() || deadline.has_passed() {
            unmask();
            return done();
        }
        account();
        // Xen also sees an event that is pending while it is masked, so none is missed. If Xen
        // refuses to sleep, the loop runs again.
        let timeout = Some(deadline.nanoseconds());
        let _slept = untraced().sched_op(SchedOp::Poll { port: Some(port), timeout });
        guest().unmask_events();
    }
}

/// Sleeps for a millisecond at most.
///
/// Callers use it to wait for changes that are announced by no event. It uses neither the shared
/// page nor a lock, so a panic may call it at any time.
pub fn nap() {
    let mut info = RunstateInfo::default();
    let ask = VcpuOp::GetRunstateInfo(&mut info);
    // SAFETY: Xen writes the structure, which is borrowed for the call.
    let asked = unsafe { untraced().vcpu_op(ask, vcpu::current().number()) };
    // Xen reports when this vCPU began to run. If that is a millisecond ago, the sleep ends at
    // once, and the next one is as long as it should be.
    let timeout = NonZeroU64::new(info.state_entry_time.saturating_add(MILLISECOND));
    let op = match asked {
        Ok(_) => SchedOp::Poll { port: None, timeout },
        Err(_) => SchedOp::Yield,
    };
    // If Xen refuses to sleep, the caller only checks again earlier.
    let _slept = untraced().sched_op(op);
}

/// Records the period that [`mask`] began.
fn account() {
    local().events.end_masked(tsc());
}
