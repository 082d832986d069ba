//! Masking events, and sleeping until one comes.

use core::arch::asm;
use core::sync::atomic::Ordering;

use hypercall::Xen;
use hypercall::ops::{SchedOp, VersionOp};

use super::clock::{Deadline, tsc};
use super::shared::{self, kind};
use crate::hypervisor::untraced;
use crate::kind::Kind;
use crate::vcpu::{current, local};

/// Keeps events from being delivered on this vCPU; they stay pending. Does not nest.
pub fn mask() {
    match kind() {
        Some(Kind::Pv) => shared::mask_upcalls(current()),
        Some(Kind::Pvh) => x86_64::instructions::interrupts::disable(),
        None => {}
    }
    local().events.masked_since.store(tsc(), Ordering::Relaxed);
}

/// Whether events are kept from being delivered on this vCPU.
pub fn is_masked() -> bool {
    match kind() {
        Some(Kind::Pv) => shared::masks_upcalls(current()),
        Some(Kind::Pvh) => !x86_64::instructions::interrupts::are_enabled(),
        None => true,
    }
}

/// Ends the stretch that [`mask`] began.
pub fn unmask() {
    account();
    enable();
}

/// Lets events be delivered, those that are pending at once.
pub fn enable() {
    match kind() {
        Some(Kind::Pv) if shared::unmask_upcalls(current()) => {
            // Xen looks for events on its way back from any hypercall. This one does nothing else,
            // so its answer says nothing.
            let _version = untraced().xen_version(VersionOp::Version);
        }
        Some(Kind::Pvh) => x86_64::instructions::interrupts::enable(),
        Some(Kind::Pv) | None => {}
    }
}

/// Ends the stretch that [`mask`] began and sleeps until an event has come, both in one step: an
/// event that is pending already ends the sleep before it begins.
///
/// # Panics
/// If Xen does not know how to.
pub fn block() {
    account();
    match kind() {
        // Not in the trace: it would drown what the trace is there to show.
        Some(Kind::Pv) => {
            if let Err(errno) = untraced().sched_op(SchedOp::Block) {
                panic!("SCHEDOP_block: {errno}");
            }
        }
        // `SCHEDOP_block` would leave the interrupt flag off, and Xen goes by that one. `sti` takes
        // effect behind the next instruction, so nothing comes between the two; Xen takes `hlt` for
        // `SCHEDOP_block`.
        //
        // SAFETY: the handler of events leaves everything as it was.
        Some(Kind::Pvh) => unsafe { asm!("sti", "hlt", options(nostack)) },
        None => {}
    }
}

/// Sleeps until `done`, of which another vCPU gives notice, or until the deadline has passed.
/// Returns whether it is done.
pub fn wait_until(deadline: Deadline, done: impl Fn() -> bool) -> bool {
    let port = local().events.port();
    loop {
        mask();
        if done() || deadline.has_passed() {
            unmask();
            return done();
        }
        account();
        // Sees an event that is pending although it is masked, so none is missed. Should Xen refuse
        // to sleep, the loop goes on without.
        let timeout = Some(deadline.nanoseconds());
        let _slept = untraced().sched_op(SchedOp::Poll { port: Some(port), timeout });
        enable();
    }
}

/// Leaves the processor to others for a millisecond, or as long as Xen sees fit before there is a
/// clock. For what nobody gives notice of.
pub fn nap() {
    let op = match kind() {
        Some(_) => {
            SchedOp::Poll { port: None, timeout: Some(Deadline::in_milliseconds(1).nanoseconds()) }
        }
        None => SchedOp::Yield,
    };
    // Should Xen refuse to sleep, the caller asks again the sooner.
    let _slept = untraced().sched_op(op);
}

/// Ends a stretch.
fn account() {
    let mine = &local().events;
    let since = mine.masked_since.load(Ordering::Relaxed);
    mine.keep(tsc().saturating_sub(since));
}
