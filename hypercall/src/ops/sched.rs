//! `HYPERVISOR_sched_op` (`public/sched.h`).

use core::num::NonZeroU64;

use super::Port;

/// A sub-operation of `sched_op` that any code may ask for.
///
/// [`Xen::suspend`](crate::Xen::suspend) suspends the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedOp {
    /// Lets another vCPU run.
    Yield,
    /// Sleeps until an event is pending. Xen enables events for the caller, so a handler may run
    /// before this returns: hold no lock that masks events.
    Block,
    /// Sleeps until an event may be delivered, until the port has one pending (even if it is
    /// masked), or until the timeout. Events stay enabled or disabled as they are.
    Poll {
        /// The port.
        port: Option<Port>,
        /// The system time, in nanoseconds since boot, at which to wake up; `None` for never.
        timeout: Option<NonZeroU64>,
    },
    /// Ends the domain. Does not return.
    Shutdown(ShutdownReason),
}

/// Why a domain ends, `SHUTDOWN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// The domain has finished.
    Poweroff = xen_sys::SHUTDOWN_poweroff,
    /// The domain asks to be started again.
    Reboot = xen_sys::SHUTDOWN_reboot,
    /// The domain cannot continue; Xen logs it.
    Crash = xen_sys::SHUTDOWN_crash,
}
