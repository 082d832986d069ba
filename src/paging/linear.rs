//! What the embedding kernel tells about its mapping of the guest's memory.

use hypercall::PageTableFlags;

use super::{FlushClock, Held, Holder};
use crate::addr::{MachineAddr, Mfn, Pfn, PseudoPhysAddr};
use crate::frames::FrameRun;

/// The guest's memory, as the kernel reaches it.
///
/// # Safety
/// Duties of the implementor: [`zero`](Self::zero) fills exactly the frames that it is given, and
/// [`pointer`](Self::pointer) is where a populated frame is mapped, readable and writable.
pub unsafe trait GuestMemory {
    /// Fills `frames` frames from `first` on with zeros.
    ///
    /// # Safety
    /// The frames are populated and mapped, and nobody else uses them (M1).
    unsafe fn zero(&self, first: Pfn, frames: u64);

    /// Where a frame is mapped. Frames that are neighbours are mapped side by side.
    fn pointer(&self, pfn: Pfn) -> *mut u8;

    /// Drops all mappings of the run's frames but this one that nobody uses any more, and flushes
    /// nothing. Called before the run is given up. A kernel that leaves no such mappings behind
    /// need not implement it; one with virtual areas passes it on to that. In a translated guest Xen
    /// refuses no frame that somebody else has (C76), so there it has to name what is granted or
    /// shared, too, if such a frame can be in a run.
    ///
    /// # Errors
    /// A frame that is in use, and by whom; nothing of that was touched.
    fn purge(&self, _run: &FrameRun) -> Result<(), Held> {
        Ok(())
    }

    /// Who has hold of a frame that Xen does not take, as far as the kernel can tell. Asked on
    /// failure alone, so it may take its time and walk page tables. `mfn` is what lies beneath the
    /// frame in a PV guest, whose P2M does not say it at that moment.
    fn holder(&self, _pfn: Pfn, _mfn: Option<Mfn>) -> Holder {
        Holder::Unknown
    }

    /// Reads a word of 1, 2, 4 or 8 bytes, once, as a device driver needs it.
    ///
    /// # Safety
    /// The word lies within populated, mapped frames of the caller's, at a multiple of its size.
    unsafe fn load(&self, at: PseudoPhysAddr, width: Width) -> u64 {
        let pointer = self.pointer(at.frame()).wrapping_add(at.offset());
        // SAFETY: mapped and aligned, by the caller's word.
        unsafe {
            match width {
                Width::Byte => pointer.read_volatile().into(),
                Width::Word => pointer.cast::<u16>().read_volatile().into(),
                Width::Double => pointer.cast::<u32>().read_volatile().into(),
                Width::Quad => pointer.cast::<u64>().read_volatile(),
            }
        }
    }

    /// Writes a word of 1, 2, 4 or 8 bytes, once.
    ///
    /// # Safety
    /// As for [`load`](Self::load).
    unsafe fn store(&self, at: PseudoPhysAddr, width: Width, value: u64) {
        let pointer = self.pointer(at.frame()).wrapping_add(at.offset());
        // SAFETY: mapped and aligned, by the caller's word.
        unsafe {
            match width {
                Width::Byte => pointer.write_volatile(value as u8),
                Width::Word => pointer.cast::<u16>().write_volatile(value as u16),
                Width::Double => pointer.cast::<u32>().write_volatile(value as u32),
                Width::Quad => pointer.cast::<u64>().write_volatile(value),
            }
        }
    }
}

/// How wide an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Double,
    /// 8 bytes.
    Quad,
}

impl Width {
    /// How many bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Double => 4,
            Self::Quad => 8,
        }
    }
}

/// Page-table entries that lie side by side in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// Machine address of the first of them.
    pub first: MachineAddr,
    /// How many, 1 at least.
    pub count: u64,
}

/// The one mapping that every frame of a PV guest has: frame *n* at `base + n * 4096`.
///
/// # Safety
/// Duties of the implementor, for every `Pfn` that the embedder hands to this crate:
/// * [`entry`](Self::entry) is the first-level page-table entry that maps the frame linearly, the
///   same in every address space, and stays so;
/// * [`entries`](Self::entries) names no entry that `entry` does not name for the same frame;
/// * no other entry maps the frame, but for those that [`purge`](GuestMemory::purge) drops or names
///   (S2).
pub unsafe trait LinearMapping: GuestMemory {
    /// Machine address of the first-level entry that maps `pfn`.
    fn entry(&self, pfn: Pfn) -> MachineAddr;

    /// The first-level entries of `frames` frames from `first` on, 1 at least, as far as they lie side
    /// by side in one table. A kernel that does not say makes each transaction ask for each frame.
    fn entries(&self, first: Pfn, _frames: u64) -> EntryRow {
        EntryRow { first: self.entry(first), count: 1 }
    }

    /// The flags of a mapped entry. Writable, or Xen's IOMMU does not let devices in (C37).
    fn flags(&self) -> PageTableFlags;

    /// By which all flushes of the domain are made: always the same.
    fn flushes(&self) -> &FlushClock;

    /// Shows `see` each machine frame that Xen's M2P has on record as one of `frames` guest frames
    /// from `first` on, once each and whoever owns it: guests number their frames from 0, so those of
    /// others are among them. `see` makes hypercalls.
    ///
    /// Asked after an exchange that failed behind the commit point (C51), so it may take its time and
    /// read the whole table, of which the kernel alone knows the holes: reading there faults. A kernel
    /// that shows nothing loses the recovery, and nothing else.
    fn on_record(&self, _first: Pfn, _frames: u64, _see: &mut dyn FnMut(Pfn, Mfn)) {}
}
