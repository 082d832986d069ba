//! `HYPERVISOR_sched_op` (`public/sched.h`).

use core::num::NonZeroU64;

use super::Port;
use crate::Mfn;

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
    /// Has the domain suspended (`SHUTDOWN_suspend`), so that the toolstack can save it. Answers
    /// [`RESTORED`](Self::RESTORED) where the domain has been made anew, by a restore or at the end
    /// of a migration, and [`CANCELLED`](Self::CANCELLED) where it is the same one.
    ///
    /// A PV guest names the machine frame of its start info: the toolstack looks for it in the
    /// register of a third argument, and rewrites that page (`write_one_vcpu_basic` of libxenguest).
    Suspend {
        /// The frame; `None` in a translated guest.
        start_info: Option<Mfn>,
    },
}

impl SchedOp {
    /// What [`Suspend`](Self::Suspend) answers in a domain that has been made anew.
    pub const RESTORED: u64 = 0;
    /// What [`Suspend`](Self::Suspend) answers where the domain was not saved, or saved and kept
    /// (`modify_returncode` of libxenguest).
    pub const CANCELLED: u64 = 1;
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
