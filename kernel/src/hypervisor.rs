//! The kernel's handles of Xen: the real hypervisor, one traced handle for each vCPU.
//!
//! [`vcpu::xen`](crate::vcpu::xen) is the handle of the running vCPU. [`trace`](crate::trace) prints
//! what the handles have recorded.

use hypercall::{Clock, RealXen, Traced};

use crate::tsc::tsc;

/// The handle of Xen that each vCPU has.
pub type Hypervisor = Traced<RealXen, Tsc>;

/// The clock of the trace.
#[derive(Clone, Copy, Debug)]
pub struct Tsc;

impl Clock for Tsc {
    fn now(&self) -> u64 {
        tsc()
    }
}

/// A handle for one vCPU.
pub const fn new() -> Hypervisor {
    Traced::new(untraced(), Tsc)
}

/// A handle of Xen that records nothing.
///
/// The console uses it: its writes would bury what the trace is for, and a traced call that prints
/// would trace its own printing.
pub const fn untraced() -> RealXen {
    // SAFETY: this kernel runs as a Xen guest only. Xen has filled the hypercall page of a PV guest
    // before the kernel starts; `pvh::boot` has it filled before its first call.
    unsafe { RealXen::new() }
}
