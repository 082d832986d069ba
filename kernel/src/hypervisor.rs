//! The kernel's handles of Xen, one traced handle for each vCPU.
//!
//! [`vcpu::xen`](crate::vcpu::xen) returns the handle of the running vCPU. [`trace`](crate::trace)
//! prints what the handles have recorded.

use hypercall::{RealXen, TraceHost, Traced, VirtAddr};

use crate::traps::try_read;
use crate::tsc::tsc;

/// The handle of Xen that each vCPU has.
pub type Hypervisor = Traced<RealXen, ThisVcpu>;

/// The time-stamp counter and the memory of the vCPU that makes a call.
#[derive(Clone, Copy, Debug)]
pub struct ThisVcpu;

impl TraceHost for ThisVcpu {
    #[inline]
    fn now(&self) -> u64 {
        tsc()
    }

    fn read(&self, word: *const u64) -> Option<u64> {
        try_read(VirtAddr::try_new(word as u64).ok()?).ok()
    }
}

/// Returns a handle for one vCPU.
pub const fn new() -> Hypervisor {
    Traced::new(untraced(), ThisVcpu)
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
