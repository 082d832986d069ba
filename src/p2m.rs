//! The maps from guest frames to machine frames and back.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::addr::{Gfn, Mfn, Pfn, VirtAddr};
use crate::sync::AtomicU64;

/// An entry without a machine frame, as Linux and the toolstack write it.
const INVALID: u64 = u64::MAX;

/// The guest's own map from pseudo-physical to machine frames.
///
/// In PV it is the table that the domain builder made (`start_info.mfn_list`). This crate keeps it up to
/// date, and is the only one that writes to it. A translated guest has no such table: it writes the
/// `Pfn` itself into its page tables.
///
/// No method sleeps, takes a lock or makes a hypercall, so each may be called in an interrupt handler.
///
/// Page tables are filled from it. So safe code cannot make a table, and cannot write to one
/// ([M4](crate::rules#M4)):
/// ```compile_fail,E0133
/// # use xen_contig::{p2m::P2m, sync::AtomicU64};
/// static ENTRIES: [AtomicU64; 4] = [const { AtomicU64::new(u64::MAX) }; 4];
/// let p2m = P2m::table(&ENTRIES);
/// ```
/// ```
/// # use xen_contig::{p2m::P2m, sync::AtomicU64};
/// static ENTRIES: [AtomicU64; 4] = [const { AtomicU64::new(u64::MAX) }; 4];
/// // SAFETY: no frame is populated, and nothing else writes to the entries (M4).
/// let p2m = unsafe { P2m::table(&ENTRIES) };
/// assert_eq!(p2m.frames(), 4);
/// ```
#[derive(Clone, Copy)]
pub struct P2m<'a> {
    map: Map<'a>,
}

/// The kind of guest.
#[derive(Clone, Copy)]
enum Map<'a> {
    Table(&'a [AtomicU64]),
    Translated { frames: u64 },
}

impl<'a> P2m<'a> {
    /// Returns the P2M of a PV guest. Entry *n* is the machine frame of `Pfn` *n*.
    ///
    /// # Safety
    /// * Each entry is the machine frame that backs its frame by Xen's M2P, or `u64::MAX`
    ///   ([M4](crate::rules#M4)).
    /// * While the P2M exists, only this crate writes to the entries. The toolstack writes to them while
    ///   the guest is suspended, and a kernel that changes the backing of a frame itself may do so for
    ///   frames that it owns ([M1](crate::rules#M1)).
    pub const unsafe fn table(entries: &'a [AtomicU64]) -> Self {
        Self { map: Map::Table(entries) }
    }

    /// Returns the P2M of a translated guest with frames below `frames`.
    pub const fn translated(frames: u64) -> Self {
        Self { map: Map::Translated { frames } }
    }

    /// Returns true if Xen translates for this guest (PVH), so that it never sees machine frames.
    pub const fn is_translated(&self) -> bool {
        matches!(self.map, Map::Translated { .. })
    }

    /// Returns the address of the table, which has [`frames`](Self::frames) entries of 8 bytes.
    ///
    /// A kernel reports it to the toolstack in the shared page (`arch.p2m_vaddr` of
    /// `public/arch-x86/xen.h`). A translated guest has no table.
    pub fn table_address(&self) -> Option<VirtAddr> {
        match self.map {
            Map::Table(entries) => Some(VirtAddr::from_ptr(entries.as_ptr())),
            Map::Translated { .. } => None,
        }
    }

    /// Returns the number after the guest's highest frame.
    pub const fn frames(&self) -> u64 {
        match self.map {
            Map::Table(entries) => entries.len() as u64,
            Map::Translated { frames } => frames,
        }
    }

    /// Returns the machine frame that backs `pfn`.
    ///
    /// There is none in a translated guest, outside the guest's memory, and while a transaction holds
    /// the frame.
    pub fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        decode(self.entry(pfn)?.load(Relaxed))
    }

    /// Returns what a page-table entry for `pfn` must name.
    pub fn gfn(&self, pfn: Pfn) -> Option<Gfn> {
        match self.map {
            Map::Table(_) => self.mfn(pfn).map(|mfn| Gfn::new(mfn.number())),
            Map::Translated { frames } => (pfn.number() < frames).then(|| Gfn::new(pfn.number())),
        }
    }

    /// Returns where the last piece of a run begins: from there on, each Gfn follows the one before it.
    ///
    /// That is the first frame if the whole run is one piece, and the frame after the run if its last
    /// one is not populated.
    pub(crate) fn last_piece(&self, first: Pfn, frames: u64) -> Pfn {
        let end = first.add(frames);
        if self.is_translated() {
            return if end.number() <= self.frames() { first } else { end };
        }
        let Some(entries) = self.entries_from(first).get(..frames as usize) else { return end };
        let mut begin = entries.len();
        let mut follows = None;
        for entry in entries.iter().rev() {
            let number = entry.load(Relaxed);
            if number == INVALID || follows.is_some_and(|next| number.wrapping_add(1) != next) {
                break;
            }
            follows = Some(number);
            begin -= 1;
        }
        first.add(begin as u64)
    }

    /// Returns the first of `frames` frames from `first` on whose Gfn is one of `gfns`, or the frame
    /// after them. A translated guest is not searched: its frames are in order.
    pub(crate) fn first_within(&self, first: Pfn, frames: u64, gfns: &Range<Gfn>) -> Pfn {
        let (start, end) = (gfns.start.number(), gfns.end.number());
        let mut skipped = 0;
        for entry in self.entries_from(first).iter().take(frames as usize) {
            // One comparison for both ends.
            if entry.load(Relaxed).wrapping_sub(start) < end - start {
                break;
            }
            skipped += 1;
        }
        first.add(skipped)
    }

    /// Iterates over the machine frames of a run, as [`mfn`](Self::mfn) returns them. Ends where the
    /// table does.
    pub(crate) fn mfns(&self, first: Pfn, frames: u64) -> impl Iterator<Item = Option<Mfn>> {
        self.entries_from(first)
            .iter()
            .take(frames as usize)
            .map(|entry| decode(entry.load(Relaxed)))
    }

    /// Records the machine frames that `mfns` yields for the frames from `first` on.
    pub(crate) fn set_run(&self, first: Pfn, mfns: impl Iterator<Item = Option<Mfn>>) {
        for (entry, mfn) in self.entries_from(first).iter().zip(mfns) {
            // As in `set`.
            entry.store(mfn.map_or(INVALID, Mfn::number), Release);
        }
    }

    /// Records the machine frame of `pfn`. Returns false if the table has no such entry.
    pub(crate) fn set(&self, pfn: Pfn, mfn: Option<Mfn>) -> bool {
        let Some(entry) = self.entry(pfn) else { return false };
        // A thread that reads the entry and passes a fence then sees what came before the store, such
        // as the new page-table entry.
        entry.store(mfn.map_or(INVALID, Mfn::number), Release);
        true
    }

    /// Returns the entries from a frame on. A translated guest has none.
    fn entries_from(&self, first: Pfn) -> &[AtomicU64] {
        let Map::Table(entries) = self.map else { return &[] };
        usize::try_from(first.number()).ok().and_then(|first| entries.get(first..)).unwrap_or(&[])
    }

    fn entry(&self, pfn: Pfn) -> Option<&AtomicU64> {
        match self.map {
            Map::Table(entries) => entries.get(usize::try_from(pfn.number()).ok()?),
            Map::Translated { .. } => None,
        }
    }
}

/// Returns the machine frame that an entry names.
const fn decode(number: u64) -> Option<Mfn> {
    match number {
        INVALID => None,
        number => Some(Mfn::new(number)),
    }
}

impl fmt::Debug for P2m<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_translated() { "translated" } else { "table" };
        write!(f, "P2m({kind}, {} frames)", self.frames())
    }
}

/// Xen's machine-to-physical table, as a PV guest may read it (`XENMEM_machphys_mapping`).
///
/// It is Xen's record, so what the guest believes of its frames can be checked against it. No method
/// sleeps, takes a lock or makes a hypercall, so each may be called in an interrupt handler.
#[derive(Clone, Copy, Debug)]
pub struct M2p {
    base: *const u64,
    max_mfn: u64,
}

// SAFETY: the table is mapped read-only in every address space of the guest, for good, and is read by
// volatile accesses. So it does not matter which thread has the pointer.
unsafe impl Send for M2p {}
// SAFETY: a shared M2P is read only, by volatile accesses.
unsafe impl Sync for M2p {}

impl M2p {
    /// Returns the table at `base`, whose last entry is that of `max_mfn`.
    ///
    /// # Safety
    /// `base` and `max_mfn` are what `XENMEM_machphys_mapping` returned.
    pub const unsafe fn new(base: *const u64, max_mfn: u64) -> Self {
        Self { base, max_mfn }
    }

    /// Returns the guest frame that Xen records for `mfn`. There is none above the highest machine frame,
    /// and none if the record is not a guest's frame.
    ///
    /// # Safety
    /// `mfn` is RAM. Xen leaves holes of the machine's memory map out of the table, and reading there
    /// faults.
    pub unsafe fn pfn(&self, mfn: Mfn) -> Option<Pfn> {
        let entry = self.entry(mfn)?.as_ptr::<u64>();
        // SAFETY: the entry lies in the table, whose place is known by the requirement of `new`. It is
        // mapped, because `mfn` is RAM: this function's requirement.
        Self::decode(unsafe { entry.read_volatile() })
    }

    /// Returns the address of the record for `mfn`, for a kernel that can read where nothing may be
    /// mapped. There is none above the highest machine frame.
    pub fn entry(&self, mfn: Mfn) -> Option<VirtAddr> {
        let within = mfn.number() <= self.max_mfn;
        within.then(|| VirtAddr::from_ptr(self.base.wrapping_add(mfn.number() as usize)))
    }

    /// Returns the guest frame that a record names, if it names one.
    pub fn decode(record: u64) -> Option<Pfn> {
        // Xen marks frames of its own and free ones with all bits set or the top bit
        // (INVALID_M2P_ENTRY, SHARED_M2P_ENTRY in asm-x86/mm.h).
        (record >> 62 == 0).then(|| Pfn::new(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_edges_and_holes() {
        let entries = [const { AtomicU64::new(7) }; 4];
        // SAFETY: a test's table; nothing is mapped by it ([M4](crate::rules#M4)).
        let p2m = unsafe { P2m::table(&entries) };
        assert_eq!(p2m.mfn(Pfn::new(3)), Some(Mfn::new(7)));
        assert_eq!(p2m.mfn(Pfn::new(4)), None);
        assert!(p2m.set(Pfn::new(3), None));
        assert_eq!((p2m.mfn(Pfn::new(3)), p2m.gfn(Pfn::new(3))), (None, None));
        assert!(!p2m.set(Pfn::new(4), None));
    }

    #[test]
    fn the_last_piece_of_a_run_is_what_is_in_line_at_its_end() {
        let entries = [5, 6, 9, INVALID, 3, 4, 5, 7, INVALID].map(AtomicU64::new);
        // SAFETY: a test's table; nothing is mapped by it ([M4](crate::rules#M4)).
        let p2m = unsafe { P2m::table(&entries) };
        let last_piece = |first, frames| p2m.last_piece(Pfn::new(first), frames).number();
        assert_eq!((last_piece(0, 2), last_piece(0, 3), last_piece(4, 3)), (0, 2, 4));
        assert_eq!((last_piece(2, 2), last_piece(3, 4), last_piece(4, 4)), (4, 4, 7));
        // Unpopulated at the end, and beyond the table.
        assert_eq!((last_piece(7, 2), last_piece(7, 3), last_piece(9, 1)), (9, 10, 10));
        let translated = P2m::translated(4);
        assert_eq!(translated.last_piece(Pfn::new(1), 3), Pfn::new(1));
        assert_eq!(translated.last_piece(Pfn::new(1), 4), Pfn::new(5));
    }

    #[test]
    fn frames_outside_are_skipped() {
        let entries = [90, INVALID, 7, 3, 4, 50].map(AtomicU64::new);
        // SAFETY: a test's table; nothing is mapped by it ([M4](crate::rules#M4)).
        let p2m = unsafe { P2m::table(&entries) };
        let gfns = Gfn::new(4)..Gfn::new(51);
        let first = |from, frames| p2m.first_within(Pfn::new(from), frames, &gfns).number();
        assert_eq!((first(0, 6), first(0, 2), first(2, 4), first(3, 3)), (2, 2, 2, 4));
        assert_eq!((first(5, 9), first(6, 9), first(u64::MAX, 9)), (5, 6, u64::MAX));
        assert_eq!(P2m::translated(4).first_within(Pfn::new(1), 3, &gfns), Pfn::new(1));
    }

    #[test]
    fn a_translated_guest_sees_no_machine_frame() {
        let p2m = P2m::translated(4);
        assert_eq!((p2m.mfn(Pfn::new(1)), p2m.gfn(Pfn::new(1))), (None, Some(Gfn::new(1))));
        assert_eq!(p2m.gfn(Pfn::new(4)), None);
        assert!(!p2m.set(Pfn::new(1), None));
    }
}
