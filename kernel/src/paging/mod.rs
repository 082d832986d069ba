//! The kernel's page tables.

pub mod pv;
pub mod pvh;
pub mod walk;

use hypercall::ops::{MemoryOp, Pte};
use hypercall::{PageTableFlags, Xen, XenErrno};
use spin::Once;
use xen_contig::addr::{Gfn, MachineAddr, Mfn, PAGE_SIZE, Pfn};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::{M2p, P2m};
use xen_contig::paging::{EntryRow, FlushClock, FrameInUse, GuestMemory, Holder, LinearMapping};

use super::areas::{self, Areas, Uses};
use super::hypervisor::xen;
use super::kind::Kind;
use super::traps::try_read;
use super::{layout, say};

/// Flags of memory that is read and written.
pub const READ_WRITE: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::ACCESSED)
    .union(PageTableFlags::DIRTY)
    .union(PageTableFlags::NO_EXECUTE);

/// Flags of memory that is only read.
pub const READ: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::ACCESSED).union(PageTableFlags::NO_EXECUTE);

/// Flags of code.
pub const EXECUTE: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::ACCESSED);

/// Flags of an entry that names a lower table.
pub const TABLE: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::ACCESSED)
    .union(PageTableFlags::DIRTY);

/// Flags of a device's registers: neither reads nor writes may be cached.
pub const REGISTERS: PageTableFlags =
    READ_WRITE.union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH);

/// Machine frames that a page of 2 MiB of Xen's M2P is about: it is mapped by such pages, or larger
/// ones (`paging_init` in `x86_64/mm.c`).
const M2P_PIECE: u64 = 1 << 18;

/// Maps a frame at a window slot, or nothing, in either kind of guest.
///
/// # Errors
/// Xen's, in a PV guest: it does not let the domain map that frame so.
pub fn set_window(
    kind: Kind,
    slot: u64,
    target: Option<(Gfn, PageTableFlags)>,
) -> Result<(), XenErrno> {
    match kind {
        // A Gfn is what goes into a page-table entry, and in PV that is the machine frame.
        Kind::Pv => {
            pv::set_window(slot, target.map(|(gfn, flags)| (Mfn::new(gfn.number()), flags)))
        }
        Kind::Pvh => {
            pvh::set_window(slot, target);
            Ok(())
        }
    }
}

/// The linear mapping, as the component sees it.
#[derive(Debug)]
pub struct Linear {
    /// Where page tables lie in the machine, and the first of the run of first-level ones. `None`
    /// in a translated guest, which has no entries to offer.
    tables: Option<(P2m<'static>, Pfn)>,
    flushes: FlushClock,
    /// What else maps frames: the areas, which come after the linear mapping.
    others: Once<Others>,
}

/// What is asked about frames beside the linear mapping.
#[derive(Debug)]
pub struct Others {
    /// The virtual areas.
    pub areas: &'static Areas,
    /// Frames that are in use for good, or lent.
    pub uses: Uses,
    /// Of a PV guest: from what page tables name to guest frames.
    pub m2p: Option<M2p>,
}

impl Linear {
    /// The linear mapping of a PV guest whose first-level tables are a run of frames from `level1`
    /// on.
    pub const fn pv(p2m: P2m<'static>, level1: Pfn) -> Self {
        Self { tables: Some((p2m, level1)), flushes: FlushClock::pv(), others: Once::new() }
    }

    /// The linear mapping of a translated guest.
    pub const fn translated() -> Self {
        Self { tables: None, flushes: FlushClock::translated(), others: Once::new() }
    }
}

impl Linear {
    /// Says what else maps frames. Once.
    pub fn set_others(&self, others: Others) {
        self.others.call_once(|| others);
    }

    /// Takes note of who uses a frame, for the message of an exchange that meets it.
    pub fn note_use(&self, pfn: Pfn, holder: Holder) {
        if let Some(others) = self.others.get() {
            others.uses.add(pfn, holder);
        }
    }

    /// Forgets who uses a frame.
    pub fn forget_use(&self, pfn: Pfn) {
        if let Some(others) = self.others.get() {
            others.uses.remove(pfn);
        }
    }

    /// Who has hold of a frame, as far as the kernel knows.
    pub fn find_holder(&self, pfn: Pfn, mfn: Option<Mfn>) -> Holder {
        match (self.others.get(), mfn) {
            (Some(Others { areas, uses, m2p: Some(m2p) }), Some(mfn)) => {
                areas::holder(areas, uses, *m2p, pfn, mfn)
            }
            (Some(Others { areas, .. }), _) => areas.holder(pfn).unwrap_or(Holder::Unknown),
            (None, _) => Holder::Unknown,
        }
    }

    /// The first of the first-level tables; `None` in a translated guest.
    pub fn first_table(&self) -> Option<Pfn> {
        self.tables.as_ref().map(|(_, level1)| *level1)
    }

    /// The first-level entry of a frame as it stands in the table; `None` in a translated guest.
    pub fn read(&self, pfn: Pfn) -> Option<Pte> {
        let (_, level1) = self.tables.as_ref()?;
        let table = layout::linear(level1.add(pfn.number() / 512)).as_ptr::<u64>();
        // SAFETY: page tables are mapped read-only by the linear mapping; the index is below 512.
        let raw = unsafe { table.add((pfn.number() % 512) as usize).read_volatile() };
        Some(Pte::from_raw(raw))
    }
}

/// Whoever asked for the frame may swallow the error; the console has the line all the same.
fn say_busy(pfn: Pfn, mfn: Option<Mfn>, holder: Holder) {
    match mfn {
        Some(mfn) => say!("# frame busy: pfn {pfn} mfn {mfn} {holder}"),
        None => say!("# frame busy: pfn {pfn} {holder}"),
    }
}

// SAFETY: the linear mapping covers every frame, and zero writes the given ones.
unsafe impl GuestMemory for Linear {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        let words = frames as usize * (PAGE_SIZE / 8);
        let start = layout::linear(first).as_mut_ptr::<u64>();
        // SAFETY: the frames are populated and nobody else uses them, by the caller's word. `rep
        // stosq` is to a device or another domain what a volatile write of each word is.
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

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        layout::linear(pfn).as_mut_ptr()
    }

    fn purge(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        let vacated = self.others.get().map_or(Ok(()), |others| others.areas.vacate(run));
        if let Err(FrameInUse { pfn, holder }) = vacated {
            let mfn = self.tables.as_ref().and_then(|(p2m, _)| p2m.mfn(pfn));
            say_busy(pfn, mfn, holder);
        }
        vacated
    }

    fn holder(&self, pfn: Pfn, mfn: Option<Mfn>) -> Holder {
        let holder = self.find_holder(pfn, mfn);
        say_busy(pfn, mfn, holder);
        holder
    }
}

// SAFETY: `pv::build` fills the run of first-level tables in the order of the frames and hooks it
// in once, in the only address space there is.
unsafe impl LinearMapping for Linear {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        let (p2m, first) = self.tables.as_ref().expect("a translated guest makes no PTE updates");
        let table = first.add(pfn.number() / 512);
        let mfn = p2m.mfn(table).expect("page tables are never exchanged");
        MachineAddr::new(MachineAddr::of(mfn).get() + pfn.number() % 512 * 8)
    }

    fn entries(&self, first: Pfn, frames: u64) -> EntryRow {
        let in_table = 512 - first.number() % 512;
        EntryRow { first: self.entry(first), count: frames.min(in_table) }
    }

    fn flags(&self) -> PageTableFlags {
        READ_WRITE
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }

    fn on_record(&self, first: Pfn, frames: u64, see: &mut dyn FnMut(Pfn, Mfn)) {
        let Some(Others { m2p: Some(m2p), .. }) = self.others.get() else { return };
        // SAFETY: asks for a number.
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
                // A hole of the machine's memory map, for which Xen maps no piece of the table.
                Err(_) => number = (number | (M2P_PIECE - 1)) + 1,
            }
        }
    }
}
