//! What the embedding kernel tells about its linear mapping.

use hypercall::PageTableFlags;

use crate::addr::{MachineAddr, Pfn};

/// The one mapping that every frame of the guest has: frame *n* at `base + n * 4096`.
///
/// # Safety
/// Duties of the implementor, for every `Pfn` that the embedder hands to this crate:
/// * [`entry`](Self::entry) is the first-level page-table entry that maps the frame linearly, the
///   same in every address space, and stays so;
/// * no other entry maps the frame, but for aliases that the embedder knows of (S2);
/// * [`zero`](Self::zero) writes nothing but the frames it is given.
pub unsafe trait LinearMapping {
    /// Machine address of the first-level entry that maps `pfn`.
    fn entry(&self, pfn: Pfn) -> MachineAddr;

    /// The flags of a mapped entry. Writable, or Xen's IOMMU does not let devices in (C37).
    fn flags(&self) -> PageTableFlags;

    /// Fills `frames` frames from `first` on with zeros, through the linear mapping.
    ///
    /// # Safety
    /// The frames are mapped, and nobody else uses them (M1).
    unsafe fn zero(&self, first: Pfn, frames: u64);
}
