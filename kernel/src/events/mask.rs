//! Masking events, and sleeping until one comes.

use hypercall::Xen;
use hypercall::ops::SchedOp;

use crate::guest::guest;
use crate::hypervisor::untraced;
use crate::shared_page;
use crate::time::Deadline;
use crate::tsc::tsc;
use crate::vcpu::local;

/// Keeps events from being delivered on this vCPU. They stay pending. Calls do not nest.
pub fn mask() {
    guest().mask_events();
    local().events.begin_masked(tsc());
}

/// Returns true if events are kept from being delivered on this vCPU.
pub fn is_masked() -> bool {
    guest().masks_events()
}

/// Ends the stretch that [`mask`] began, and delivers pending events at once.
pub fn unmask() {
    account();
    guest().unmask_events();
}

/// Ends the stretch that [`mask`] began and sleeps until an event has come, in one step.
///
/// An event that is already pending ends the sleep before it begins.
///
/// # Panics
/// If Xen refuses to let the vCPU sleep.
pub fn block() {
    account();
    guest().block();
}

/// Sleeps until `done` returns true or the deadline has passed. Returns what `done` said last.
///
/// Another vCPU gives notice when `done` may have changed.
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
        // refuses to sleep, the loop asks again.
        let timeout = Some(deadline.nanoseconds());
        let _slept = untraced().sched_op(SchedOp::Poll { port: Some(port), timeout });
        guest().unmask_events();
    }
}

/// Leaves the processor to others for a millisecond, or as long as Xen likes without a clock.
///
/// For changes that come without an event.
pub fn nap() {
    let op = if shared_page::is_mapped() {
        SchedOp::Poll { port: None, timeout: Some(Deadline::in_milliseconds(1).nanoseconds()) }
    } else {
        SchedOp::Yield
    };
    // If Xen refuses to sleep, the caller only looks again earlier.
    let _slept = untraced().sched_op(op);
}

/// Records the stretch that [`mask`] began.
fn account() {
    local().events.end_masked(tsc());
}
