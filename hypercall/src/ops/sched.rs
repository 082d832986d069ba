//! `HYPERVISOR_sched_op` (`public/sched.h`).

use core::num::NonZeroU64;

use super::Port;

/// A sub-operation of `sched_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedOp {
    /// Lets another vCPU run.
    Yield,
    /// Sleeps until an event is pending, with events enabled.
    Block,
    /// Sleeps until an event may be delivered, until the port has one pending, masked or not, or
    /// until the time has come, with events left as they are.
    Poll {
        /// Which port.
        port: Option<Port>,
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
