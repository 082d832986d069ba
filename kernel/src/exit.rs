//! The end of the kernel.

use hypercall::Xen;
use hypercall::ops::{SchedOp, ShutdownReason};

use crate::console;
use crate::hypervisor::untraced;

/// The values of `exit=` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Powers the domain off.
    Poweroff,
    /// Asks the toolstack to start the domain again.
    Reboot,
    /// Makes Xen log the domain as crashed.
    Crash,
    /// Keeps the domain, which does nothing more.
    Hold,
}

/// Ends the domain or holds it.
pub fn exit(exit: Exit) -> ! {
    let reason = match exit {
        Exit::Poweroff => ShutdownReason::Poweroff,
        Exit::Reboot => ShutdownReason::Reboot,
        Exit::Crash => ShutdownReason::Crash,
        Exit::Hold => hold(),
    };
    console::drain();
    // An error cannot be printed, because the console is drained. The domain is held instead.
    let _refused = untraced().sched_op(SchedOp::Shutdown(reason));
    hold()
}

/// Crashes the domain at once: without the console, without a lock, and without other memory than
/// the stack.
pub fn crash() -> ! {
    // An error cannot be printed.
    let _refused = untraced().sched_op(SchedOp::Shutdown(ShutdownReason::Crash));
    hold()
}

/// Sleeps forever with events masked. `SCHEDOP_block` would unmask them.
pub fn hold() -> ! {
    loop {
        if untraced().sched_op(SchedOp::Poll { port: None, timeout: None }).is_err() {
            core::hint::spin_loop();
        }
    }
}
