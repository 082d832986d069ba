//! The kernel's handles of Xen, one traced handle for each vCPU.
//!
//! [`vcpu::xen`](crate::vcpu::xen) returns the handle of the running vCPU. [`trace`](crate::trace)
//! prints what the handles have recorded.

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

/// Returns a handle for one vCPU.
pub const fn new() -> Hypervisor {
    Traced::new(untraced(), Tsc)
}

/// Returns a handle of Xen that records nothing.
///
/// The console uses it. Otherwise its writes would fill the trace, and a trace that is printed
/// would trace its own printing.
pub const fn untraced() -> RealXen {
    // SAFETY: this kernel runs as a Xen guest only. Xen fills the hypercall page of a PV guest
    // before the kernel starts. In a PVH guest `pvh::boot` registers the page before the first
    // call.
    unsafe { RealXen::new() }
}
