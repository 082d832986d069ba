//! The page-table entries that map a PV guest's memory.

use hypercall::PageTableFlags;
use hypercall::ops::Pte;

use super::flush::FlushClock;
use super::holder::{FrameInUse, Holder};
use super::memory::GuestMemory;
use crate::addr::{MachineAddr, Mfn, Pfn};
use crate::frames::FrameRun;
use crate::p2m::P2m;

/// Page-table entries that lie side by side in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The machine address of the first of them.
    pub first: MachineAddr,
    /// How many, at least 1.
    pub count: u64,
}

/// A first-level table of the linear mapping, and where it is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstLevelTable {
    /// The frame in which the table lies.
    pub frame: Pfn,
    /// The machine address of the second-level entry that names it.
    pub upper: MachineAddr,
    /// That entry.
    pub hook: Pte,
}

/// The linear mapping of a PV guest: frame *n* at `base + n * 4096`.
///
/// A translated guest (PVH) does not implement it: Xen does not validate its page tables, and they stay
/// as they are in a refill. It implements [`GuestMemory`] alone and names [`NoLinearMapping`].
///
/// # Safety
/// The implementor promises, for every `Pfn` that the embedder hands to this crate:
/// * [`entry`](Self::entry) is the first-level page-table entry that maps the frame linearly, the
///   same in every address space, for good;
/// * [`entries`](Self::entries) names the same entries as `entry`;
/// * no other entry maps the frame, except those that [`purge`](GuestMemory::purge) drops or names
///   ([S2](crate::rules#S2));
/// * [`flushes`](Self::flushes) is always the same clock, made by [`FlushClock::pv`].
pub unsafe trait LinearMapping: GuestMemory {
    /// Returns the machine address of the first-level entry that maps `pfn`.
    fn entry(&self, pfn: Pfn) -> MachineAddr;

    /// Returns the first-level entries of up to `frames` frames from `first` on, as far as they lie side
    /// by side in one table. `frames` is at least 1.
    ///
    /// The default names one entry. A kernel that names more makes a transaction faster.
    fn entries(&self, first: Pfn, _frames: u64) -> EntryRow {
        EntryRow { first: self.entry(first), count: 1 }
    }

    /// Returns the first-level table whose 512 entries map the frames from `first` on, a multiple of 512.
    ///
    /// With it, a run that covers the table is unmapped and mapped by two writes in place of 512: the
    /// second-level entry, and the entry of the table's own frame. The default returns none.
    ///
    /// An implementation promises that one second-level entry names the table and nothing else
    /// references it: it is not pinned. [`GuestMemory::store`] writes to its frame while
    /// [`entry`](Self::entry) maps that frame writable; otherwise the entry maps it read-only. The P2M
    /// has the frame, and no run contains it.
    fn whole_table(&self, _first: Pfn) -> Option<FirstLevelTable> {
        None
    }

    /// Returns the flags of a mapped entry: present, writable and not executable.
    ///
    /// An implementation that returns others must include writable, or Xen's IOMMU does not let devices
    /// write to the frame ([C37](crate::conformance#C37)).
    fn flags(&self) -> PageTableFlags {
        PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE
    }

    /// Returns the clock by which all flushes of the domain are made.
    fn flushes(&self) -> &FlushClock;

    /// Checks that nothing but the linear mapping references a frame of the run. Called before memory that is
    /// in use gets other machine frames, after [`purge`](GuestMemory::purge).
    ///
    /// Xen checks nothing in that case, so the kernel alone can tell. It must name each frame that
    /// * is granted to another domain or shared with Xen, such as a page with a registered `vcpu_info`;
    /// * is a page table, or part of a descriptor table;
    /// * another address maps;
    /// * a device accesses.
    ///
    /// The default asks [`holder`](GuestMemory::holder) for each frame. A kernel that walks its page tables
    /// should do so once for the whole run.
    ///
    /// # Errors
    /// A frame, and what references it.
    fn check_unreferenced(&self, run: &FrameRun, p2m: &P2m<'_>) -> Result<(), FrameInUse> {
        run.iter().try_for_each(|pfn| match self.holder(pfn, p2m.mfn(pfn)) {
            Holder::Unknown => Ok(()),
            holder => Err(FrameInUse { pfn, holder }),
        })
    }

    /// Calls `visit` once with each machine frame that Xen's M2P records as one of `frames` guest frames
    /// from `first` on, whichever domain owns it. Guests number their frames from 0, so frames of others
    /// are among them. `visit` makes hypercalls.
    ///
    /// Called after an exchange that failed past the commit point ([C51](crate::conformance#C51)). So it
    /// may take its time and read the whole table. Only the kernel can do that: reading in a hole of the
    /// table faults. A kernel that calls `visit` for nothing loses the recovery, and nothing else.
    fn on_record(&self, _first: Pfn, _frames: u64, _visit: &mut dyn FnMut(Pfn, Mfn)) {}
}

/// The linear mapping of a guest that has none to offer, because it is translated. It has no values.
///
/// A kernel for PVH guests alone uses it as [`Platform::Linear`](crate::platform::Platform::Linear).
#[derive(Clone, Copy, Debug)]
pub enum NoLinearMapping {}

// SAFETY: there is no value, so no method is ever called.
unsafe impl GuestMemory for NoLinearMapping {
    unsafe fn zero(&self, _: Pfn, _: u64) {
        match *self {}
    }

    fn pointer(&self, _: Pfn) -> *mut u8 {
        match *self {}
    }
}

// SAFETY: there is no value, so no method is ever called.
unsafe impl LinearMapping for NoLinearMapping {
    fn entry(&self, _: Pfn) -> MachineAddr {
        match *self {}
    }

    fn flushes(&self) -> &FlushClock {
        match *self {}
    }
}
