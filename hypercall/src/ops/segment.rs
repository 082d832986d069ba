//! `HYPERVISOR_set_segment_base` (`public/arch-x86/xen-x86_64.h`).

use x86_64::VirtAddr;

/// A segment base of a 64-bit PV vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentBase {
    /// GS while the vCPU runs its kernel (`SEGBASE_GS_KERNEL`). Xen swaps it with the user's where
    /// the vCPU changes over, so a kernel never does.
    GsKernel(VirtAddr),
}
