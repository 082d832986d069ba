//! What the embedding kernel tells about its mapping of the guest's memory.

use hypercall::PageTableFlags;

use crate::addr::{MachineAddr, Pfn};

/// The guest's memory, as the kernel reaches it.
///
/// # Safety
/// Duties of the implementor: [`zero`](Self::zero) fills exactly the frames that it is given.
pub unsafe trait GuestMemory {
    /// Fills `frames` frames from `first` on with zeros.
    ///
    /// # Safety
    /// The frames are populated and mapped, and nobody else uses them (M1).
    unsafe fn zero(&self, first: Pfn, frames: u64);
}

/// The one mapping that every frame of a PV guest has: frame *n* at `base + n * 4096`.
///
/// # Safety
/// Duties of the implementor, for every `Pfn` that the embedder hands to this crate:
/// * [`entry`](Self::entry) is the first-level page-table entry that maps the frame linearly, the
///   same in every address space, and stays so;
/// * no other entry maps the frame, but for aliases that the embedder knows of (S2).
pub unsafe trait LinearMapping: GuestMemory {
    /// Machine address of the first-level entry that maps `pfn`.
    fn entry(&self, pfn: Pfn) -> MachineAddr;

    /// The flags of a mapped entry. Writable, or Xen's IOMMU does not let devices in (C37).
    fn flags(&self) -> PageTableFlags;
}
