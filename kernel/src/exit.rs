//! How the kernel ends.

use hypercall::Xen;
use hypercall::ops::{SchedOp, ShutdownReason};

use super::console;
use super::hypervisor::untraced;

/// `exit=` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The domain is done.
    Poweroff,
    /// It wants to be started again.
    Reboot,
    /// Xen logs it as crashed.
    Crash,
    /// It stays, doing nothing.
    Hold,
}

/// Ends the domain, or holds it.
pub fn exit(exit: Exit) -> ! {
    let reason = match exit {
        Exit::Poweroff => ShutdownReason::Poweroff,
        Exit::Reboot => ShutdownReason::Reboot,
        Exit::Crash => ShutdownReason::Crash,
        Exit::Hold => hold(),
    };
    console::drain();
    // There is nobody left to tell of an error; holding is what remains.
    let _refused = untraced().sched_op(SchedOp::Shutdown(reason));
    hold()
}

/// Sleeps for good, with events left as they are: `SCHEDOP_block` would enable them.
pub fn hold() -> ! {
    loop {
        if untraced().sched_op(SchedOp::Poll { port: None, timeout: None }).is_err() {
            core::hint::spin_loop();
        }
    }
}
