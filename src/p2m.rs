//! From guest frames to machine frames and back.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::addr::{Gfn, Mfn, Pfn, VirtAddr};
use crate::sync::AtomicU64;

/// An entry that names no machine frame, as Linux and the toolstack write it.
const INVALID: u64 = u64::MAX;

/// The guest's own map from pseudo-physical to machine frames.
///
/// In PV it is the table that the domain builder made (`start_info.mfn_list`), kept up to date by
/// the exchange. A translated guest has none and needs none: what it writes into its page tables
/// is the `Pfn` itself.
pub struct P2m<'a> {
    map: Map<'a>,
}

enum Map<'a> {
    Table(&'a [AtomicU64]),
    Translated { frames: u64 },
}

impl<'a> P2m<'a> {
    /// A PV guest's table: entry *n* is the machine frame of `Pfn` *n*.
    pub const fn table(entries: &'a [AtomicU64]) -> Self {
        Self { map: Map::Table(entries) }
    }

    /// A translated guest with frames below `frames`.
    pub const fn translated(frames: u64) -> Self {
        Self { map: Map::Translated { frames } }
    }

    /// Whether Xen translates for this guest (PVH), so that it never sees machine frames.
    pub const fn is_translated(&self) -> bool {
        matches!(self.map, Map::Translated { .. })
    }

    /// The table itself, for a kernel that tells the toolstack where it is (`arch.p2m_vaddr` of the
    /// shared page, `public/arch-x86/xen.h`); `None` in a translated guest.
    pub const fn entries(&self) -> Option<&'a [AtomicU64]> {
        match self.map {
            Map::Table(entries) => Some(entries),
            Map::Translated { .. } => None,
        }
    }

    /// The first frame number behind the guest's memory.
    pub const fn frames(&self) -> u64 {
        match self.map {
            Map::Table(entries) => entries.len() as u64,
            Map::Translated { frames } => frames,
        }
    }

    /// The machine frame under `pfn`; `None` in a translated guest, outside its memory, and while
    /// a transaction holds the frame.
    pub fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        decode(self.entry(pfn)?.load(Relaxed))
    }

    /// What goes into a page-table entry for `pfn`.
    pub fn gfn(&self, pfn: Pfn) -> Option<Gfn> {
        match self.map {
            Map::Table(_) => self.mfn(pfn).map(|mfn| Gfn::new(mfn.number())),
            Map::Translated { frames } => (pfn.number() < frames).then(|| Gfn::new(pfn.number())),
        }
    }

    /// Where the last piece of a run begins: from there on each frame's Gfn follows that of the one
    /// before it. It is the first frame where the whole run is one piece, and the frame behind the run
    /// where the last one is not populated.
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

    /// The first of `frames` frames from `first` on whose Gfn is one of `gfns`; the frame behind them
    /// where there is none. A translated guest, whose frames are in order anyway, is not searched.
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

    /// The machine frame under each frame of a run, as [`mfn`](Self::mfn) has it; it ends where the
    /// table does, and has none in a translated guest.
    pub(crate) fn mfns(&self, first: Pfn, frames: u64) -> impl Iterator<Item = Option<Mfn>> {
        self.entries_from(first)
            .iter()
            .take(frames as usize)
            .map(|entry| decode(entry.load(Relaxed)))
    }

    /// Records what is under each frame of a run, of which the table has all.
    pub(crate) fn set_run(&self, first: Pfn, mfns: impl Iterator<Item = Option<Mfn>>) {
        for (entry, mfn) in self.entries_from(first).iter().zip(mfns) {
            // As in `set`.
            entry.store(mfn.map_or(INVALID, Mfn::number), Release);
        }
    }

    /// Records what is under `pfn`, `None` for nothing. Returns false where there is no entry.
    pub(crate) fn set(&self, pfn: Pfn, mfn: Option<Mfn>) -> bool {
        let Some(entry) = self.entry(pfn) else { return false };
        // Whoever sees that a frame has gone sees, behind a fence, who gave it up, too.
        entry.store(mfn.map_or(INVALID, Mfn::number), Release);
        true
    }

    /// The entries from a frame on; none in a translated guest.
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

/// What an entry names.
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
/// It is Xen's word, not the guest's: what the guest believes of its frames is checked against it.
#[derive(Clone, Copy, Debug)]
pub struct M2p {
    base: *const u64,
    max_mfn: u64,
}

// SAFETY: the table is mapped read-only in every address space of the guest; reads are volatile.
unsafe impl Send for M2p {}
// SAFETY: as above.
unsafe impl Sync for M2p {}

impl M2p {
    /// The table at `base`.
    ///
    /// # Safety
    /// `base` and `max_mfn` are what `XENMEM_machphys_mapping` answered.
    pub const unsafe fn new(base: *const u64, max_mfn: u64) -> Self {
        Self { base, max_mfn }
    }

    /// The guest frame that Xen has on record for `mfn`; `None` above the highest machine frame
    /// and where the record is no frame of a guest.
    ///
    /// # Safety
    /// `mfn` is RAM: Xen leaves holes of the machine's memory map out of the table, and reading
    /// there faults.
    pub unsafe fn pfn(&self, mfn: Mfn) -> Option<Pfn> {
        let entry = self.entry(mfn)?.as_ptr::<u64>();
        // SAFETY: within the table as Xen described it, and RAM by the caller's word.
        Self::decode(unsafe { entry.read_volatile() })
    }

    /// Where the record for `mfn` is, for a kernel that can read where nothing may be mapped; `None`
    /// above the highest machine frame.
    pub fn entry(&self, mfn: Mfn) -> Option<VirtAddr> {
        let within = mfn.number() <= self.max_mfn;
        within.then(|| VirtAddr::from_ptr(self.base.wrapping_add(mfn.number() as usize)))
    }

    /// The guest frame that a record names; `None` where it is no frame of a guest.
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
        let p2m = P2m::table(&entries);
        assert_eq!(p2m.mfn(Pfn::new(3)), Some(Mfn::new(7)));
        assert_eq!(p2m.mfn(Pfn::new(4)), None);
        assert!(p2m.set(Pfn::new(3), None));
        assert_eq!((p2m.mfn(Pfn::new(3)), p2m.gfn(Pfn::new(3))), (None, None));
        assert!(!p2m.set(Pfn::new(4), None));
    }

    #[test]
    fn the_last_piece_of_a_run_is_what_is_in_line_at_its_end() {
        let entries = [5, 6, 9, INVALID, 3, 4, 5, 7, INVALID].map(AtomicU64::new);
        let p2m = P2m::table(&entries);
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
        let p2m = P2m::table(&entries);
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
