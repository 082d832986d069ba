//! `HYPERVISOR_sched_op` (`public/sched.h`).

use core::num::NonZeroU64;

/// A sub-operation of `sched_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedOp {
    /// Lets another vCPU run.
    Yield,
    /// Sleeps until an event is pending, with events enabled.
    Block,
    /// Sleeps until an event is pending or the time has come, with events left as they are.
    Poll {
        /// System time in nanoseconds since boot; `None` for never.
        timeout: Option<NonZeroU64>,
    },
    /// Ends the domain. Does not come back.
    Shutdown(ShutdownReason),
}

/// `SHUTDOWN_*`: why a domain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ShutdownReason {
    /// It is done.
    Poweroff = xen_sys::SHUTDOWN_poweroff,
    /// It wants to be started again.
    Reboot = xen_sys::SHUTDOWN_reboot,
    /// It can't go on; Xen logs it.
    Crash = xen_sys::SHUTDOWN_crash,
}
