//! The linear mapping, as the library uses it.

use hypercall::ops::{MemoryOp, Pte};
use hypercall::{PageTableFlags, Xen};
use spin::Once;
use xen_contig::addr::{MachineAddr, Mfn, PAGE_SIZE, Pfn};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::{M2p, P2m};
use xen_contig::paging::{
    EntryRow, FirstLevelTable, FlushClock, FrameInUse, GuestMemory, Holder, LinearMapping,
};

use super::uses::{Uses, find_holder, find_use};
use crate::areas::Areas;
use crate::layout::{self, READ_WRITE, TABLE};
use crate::traps::try_read;
use crate::vcpu::xen;

/// The number of machine frames that 2 MiB of Xen's M2P describe.
///
/// Xen maps the M2P by pages of 2 MiB or more (`paging_init` in `x86_64/mm.c`).
const M2P_PIECE: u64 = 1 << 18;

/// The number of entries in a table.
const ENTRIES: u64 = 512;

/// The linear mapping, as the library uses it.
#[derive(Debug)]
pub struct Linear {
    /// The P2M, and the first frame of the run of first-level tables.
    ///
    /// `None` in a PVH guest, which gives the library no entries to write.
    tables: Option<(P2m<'static>, Pfn)>,
    flushes: FlushClock,
    /// What else maps frames. It is set later, because the areas need the linear mapping.
    others: Once<FrameUsers>,
}

/// What may reference a frame in addition to the linear mapping.
#[derive(Debug)]
pub struct FrameUsers {
    /// The virtual areas.
    pub areas: &'static Areas,
    /// The frames that are in use for good or shared.
    pub uses: Uses,
    /// Xen's M2P, which a PV guest may read.
    pub m2p: Option<M2p>,
}

impl Linear {
    /// Returns the linear mapping of a PV guest.
    ///
    /// Its first-level tables are a run of frames from `level1` on.
    pub const fn pv(p2m: P2m<'static>, level1: Pfn) -> Self {
        Self { tables: Some((p2m, level1)), flushes: FlushClock::pv(), others: Once::new() }
    }

    /// Returns the linear mapping of a PVH guest.
    pub const fn translated() -> Self {
        Self { tables: None, flushes: FlushClock::translated(), others: Once::new() }
    }

    /// Sets what else may reference frames. Later calls have no effect.
    pub fn set_others(&self, others: FrameUsers) {
        self.others.call_once(|| others);
    }

    /// Records a use of a frame. An exchange that Xen refuses because of it names the use in its
    /// error.
    pub fn note_use(&self, pfn: Pfn, holder: Holder) {
        if let Some(others) = self.others.get() {
            others.uses.add(pfn, holder);
        }
    }

    /// Removes the recorded uses of a frame.
    pub fn forget_use(&self, pfn: Pfn) {
        if let Some(others) = self.others.get() {
            others.uses.remove(pfn);
        }
    }

    /// Returns the frame of the first first-level table, or `None` in a PVH guest.
    pub fn first_table(&self) -> Option<Pfn> {
        self.tables.as_ref().map(|(_, level1)| *level1)
    }

    /// Reads the first-level entry of a frame from the table. Returns `None` in a PVH guest.
    pub fn read(&self, pfn: Pfn) -> Option<Pte> {
        let (_, level1) = self.tables.as_ref()?;
        let table = layout::linear(level1.add(pfn.number() / 512)).as_ptr::<u64>();
        // SAFETY: the linear mapping maps page tables readable; the index is below 512.
        let raw = unsafe { table.add((pfn.number() % 512) as usize).read_volatile() };
        Some(Pte::from_raw(raw))
    }
}

// SAFETY: the linear mapping maps every populated frame at `pointer`, readable and writable. Page
// tables and parts of the image are read-only, and no caller passes them. `zero` fills the given
// frames.
unsafe impl GuestMemory for Linear {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        let words = frames as usize * (PAGE_SIZE / 8);
        let start = layout::linear(first).as_mut_ptr::<u64>();
        // SAFETY: by the contract of `GuestMemory::zero` the frames are populated and mapped, and
        // no other code uses them ([M1](xen_contig::rules#M1)). For a device or another domain `rep
        // stosq` is a volatile write of each word.
        unsafe {
            core::arch::asm!(
                "rep stosq",
                inout("rcx") words => _,
                inout("rdi") start => _,
                in("rax") 0_u64,
                options(nostack, preserves_flags),
            );
        }
    }

    unsafe fn copy(&self, from: Pfn, to: Pfn, frames: u64) {
        let words = frames as usize * (PAGE_SIZE / 8);
        let (from, to) = (layout::linear(from).as_ptr::<u64>(), layout::linear(to));
        // SAFETY: by the contract of `GuestMemory::copy` the frames are populated and mapped, the
        // runs are disjoint, and no other code uses them ([M1](xen_contig::rules#M1)).
        unsafe {
            core::arch::asm!(
                "rep movsq",
                inout("rcx") words => _,
                inout("rsi") from => _,
                inout("rdi") to.as_mut_ptr::<u64>() => _,
                options(nostack, preserves_flags),
            );
        }
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        layout::linear(pfn).as_mut_ptr()
    }

    fn purge(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        self.others.get().map_or(Ok(()), |others| others.areas.vacate(run))
    }

    fn holder(&self, pfn: Pfn, mfn: Option<Mfn>) -> Holder {
        let Some(FrameUsers { areas, uses, m2p }) = self.others.get() else {
            return Holder::Unknown;
        };
        match (m2p, mfn) {
            (Some(m2p), Some(mfn)) => {
                find_holder(areas, uses, *m2p, areas.tables().frames(), pfn, mfn)
            }
            _ => areas.holder(pfn).unwrap_or(Holder::Unknown),
        }
    }
}

// SAFETY: `pv::paging::build` fills the run of first-level tables in the order of the frames and
// hooks it into the only top-level table, for good. So the computed entry maps the frame. The boot
// code gives the library only frames without another mapping. `purge` removes later mappings or
// reports them.
unsafe impl LinearMapping for Linear {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        let (p2m, first) = self.tables.as_ref().expect("a PVH guest makes no PTE updates");
        let table = first.add(pfn.number() / 512);
        let mfn = p2m.mfn(table).expect("page tables are never exchanged");
        MachineAddr::new(MachineAddr::of(mfn).get() + pfn.number() % 512 * 8)
    }

    fn entries(&self, first: Pfn, frames: u64) -> EntryRow {
        let in_table = 512 - first.number() % 512;
        EntryRow { first: self.entry(first), count: frames.min(in_table) }
    }

    fn whole_table(&self, first: Pfn) -> Option<FirstLevelTable> {
        let (p2m, level1) = self.tables.as_ref()?;
        let index = first.number() / ENTRIES;
        if first.number() + ENTRIES > p2m.frames() {
            return None;
        }
        let frame = level1.add(index);
        // The second-level tables follow the first-level ones (`pv::paging::TableRegion`).
        let upper = level1.add(p2m.frames().div_ceil(ENTRIES) + index / ENTRIES);
        let upper = MachineAddr::of(p2m.mfn(upper)?).get() + index % ENTRIES * 8;
        let hook = Pte::new(p2m.mfn(frame)?, TABLE);
        Some(FirstLevelTable { frame, upper: MachineAddr::new(upper), hook })
    }

    fn flags(&self) -> PageTableFlags {
        READ_WRITE
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }

    fn check_unreferenced(&self, run: &FrameRun, p2m: &P2m<'_>) -> Result<(), FrameInUse> {
        let Some(FrameUsers { areas, uses, m2p: Some(m2p) }) = self.others.get() else {
            return Err(FrameInUse { pfn: run.first(), holder: Holder::Unknown });
        };
        find_use(areas, uses, *m2p, p2m, run).map_or(Ok(()), Err)
    }

    fn on_record(&self, first: Pfn, frames: u64, see: &mut dyn FnMut(Pfn, Mfn)) {
        let Some(FrameUsers { m2p: Some(m2p), .. }) = self.others.get() else { return };
        // SAFETY: the call only returns a number.
        let Ok(end) = (unsafe { xen().memory_op(MemoryOp::MaximumRamPage) }) else { return };
        let wanted = first.number()..first.number() + frames;
        let mut number = 0;
        while number < end {
            let mfn = Mfn::new(number);
            let Some(entry) = m2p.entry(mfn) else { return };
            match try_read(entry) {
                Ok(record) => {
                    let recorded = M2p::decode(record);
                    if let Some(pfn) = recorded.filter(|pfn| wanted.contains(&pfn.number())) {
                        see(pfn, mfn);
                    }
                    number += 1;
                }
                // A hole in the machine's memory map: Xen does not map the M2P there.
                Err(_) => number = (number | (M2P_PIECE - 1)) + 1,
            }
        }
    }
}
