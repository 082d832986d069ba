//! `HYPERVISOR_set_segment_base` (`public/arch-x86/xen-x86_64.h`).

use x86_64::VirtAddr;

/// A segment base of a 64-bit PV vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentBase {
    /// The base of GS while the vCPU runs its kernel (`SEGBASE_GS_KERNEL`). Xen swaps it with the
    /// base of user mode when the vCPU changes between the two, so a PV kernel never swaps it.
    GsKernel(VirtAddr),
}
