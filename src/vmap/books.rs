//! What is known of the areas, behind one lock. Nothing here calls Xen. The lock masks no events: a
//! handler of events or traps must neither use areas nor make a hypercall that does.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::area::{Area, AreaId, List, Record, State};
use super::index::Index;
use super::space::Space;
use super::{Budget, Count, Memory, Purged, Stats};
use crate::addr::{Pfn, VirtAddr};
use crate::paging::FlushClock;

/// Pages that are dropped in one hypercall: a first-level table's worth.
pub(super) const BATCH: usize = 512;

/// Pages that somebody has claimed, to drop their entries.
pub(super) type Claimed = ArrayVec<u32, BATCH>;

#[derive(Debug)]
pub(super) struct Books<'m> {
    pub index: Index<'m>,
    space: Space<'m>,
    records: &'m mut [Record],
    unused: List,
    leftovers: List,
    retired: List,
    live: Count,
    leftover: Count,
    waiting: Count,
}

impl<'m> Books<'m> {
    pub fn new(memory: Memory<'m>, pages: u32) -> Self {
        let Memory { records, bitmap, slots, heads } = memory;
        assert_eq!(slots.len(), pages as usize, "memory for another number of pages");
        let mut unused = List::EMPTY;
        for record in 0..records.len() as u32 {
            unused.push(records, record);
        }
        Self {
            index: Index::new(heads, slots),
            space: Space::new(bitmap, pages),
            records,
            unused,
            leftovers: List::EMPTY,
            retired: List::EMPTY,
            live: Count::default(),
            leftover: Count::default(),
            waiting: Count::default(),
        }
    }

    pub fn stats(&self) -> Stats {
        Stats {
            live: self.live,
            leftover: self.leftover,
            retired: self.waiting,
            free_pages: self.space.free(),
        }
    }

    pub fn record(&self, record: u32) -> &Record {
        &self.records[record as usize]
    }

    /// Whether more is left than the budget allows.
    pub fn is_over(&self, budget: Budget) -> bool {
        self.leftover.pages > budget.pages || self.leftover.areas > budget.areas
    }

    /// Begins an area: addresses and a record. `None` where there is none of either.
    pub fn open(
        &mut self,
        pages: u32,
        name: &'static str,
        address: impl Fn(u32) -> VirtAddr,
    ) -> Option<Area> {
        let record = self.unused.first()?;
        let taken = self.space.take(pages)?;
        self.unused.remove(self.records, record);
        let first = taken.numbers().start;
        let entry = &mut self.records[record as usize];
        let generation = entry.generation.wrapping_add(1);
        *entry = Record { state: State::New(taken), name, generation, ..Record::UNUSED };
        self.live.areas += 1;
        Some(Area::new(AreaId { record, generation }, first, pages, address(first)))
    }

    /// Takes note of a page before its entry is written.
    pub fn link(&mut self, page: u32, pfn: Pfn, id: AreaId) {
        self.index.link(page, pfn, id.record);
        self.records[id.record as usize].linked += 1;
        self.live.pages += 1;
    }

    /// All entries of a new area are written.
    pub fn set_live(&mut self, area: &Area) {
        let record = &mut self.records[area.id().record as usize];
        record.state = match core::mem::replace(&mut record.state, State::Unused) {
            State::New(pages) => State::Live(pages),
            other => other,
        };
    }

    /// Makes a leftover of a new area whose entries could not be written.
    pub fn abandon(&mut self, area: Area, clock: &FlushClock) {
        self.leave(area.id());
        self.retire_if_done(area.id().record, clock);
    }

    /// Makes a leftover of an area that its owner is done with.
    ///
    /// # Errors
    /// The area, if it is none of these books.
    pub fn close(&mut self, area: Area) -> Result<(), Area> {
        let known = self.find(area.id()).is_some_and(|record| {
            matches!(&record.state, State::Live(pages) if pages.numbers() == area.page_numbers())
        });
        if !known {
            return Err(area);
        }
        self.leave(area.id());
        Ok(())
    }

    fn find(&self, id: AreaId) -> Option<&Record> {
        let record = self.records.get(id.record as usize)?;
        (record.generation == id.generation).then_some(record)
    }

    fn leave(&mut self, id: AreaId) {
        let record = &mut self.records[id.record as usize];
        let linked = record.linked;
        record.state = match core::mem::replace(&mut record.state, State::Unused) {
            State::New(pages) | State::Live(pages) => State::Leftover(pages),
            other => other,
        };
        self.leftovers.push(self.records, id.record);
        self.live.areas -= 1;
        self.live.pages -= linked;
        self.leftover.areas += 1;
        self.leftover.pages += linked;
    }

    /// Claims what is left of the first frames of `frames`, as many as it can, and takes these out
    /// of `frames`.
    ///
    /// # Errors
    /// A page whose owner has not unmapped it; then nothing is claimed.
    pub fn claim_frames(
        &mut self,
        frames: &mut Range<u64>,
        claimed: &mut Claimed,
    ) -> Result<(), u32> {
        if self.index.is_empty() {
            *frames = frames.end..frames.end;
            return Ok(());
        }
        // No more than a table's worth under one hold of the lock.
        let chunk = frames.start..frames.end.min(frames.start + BATCH as u64);
        for pfn in chunk.clone().map(Pfn::new) {
            for page in self.index.aliases(pfn) {
                if self.record(self.index.area(page)).is_live() {
                    return Err(page);
                }
            }
        }
        for pfn in chunk {
            for page in self.index.aliases(Pfn::new(pfn)) {
                if claimed.is_full() {
                    // The rest of this frame's comes next time: what is claimed now is gone then.
                    return Ok(());
                }
                self.records[self.index.area(page) as usize].claims += 1;
                claimed.push(page);
            }
            frames.start = pfn + 1;
        }
        Ok(())
    }

    /// Claims what is left of an area, as much as it can.
    pub fn claim_area(&mut self, id: AreaId, claimed: &mut Claimed) {
        if self.find(id).is_some_and(|record| matches!(record.state, State::Leftover(_))) {
            self.claim_record(id.record, claimed);
        }
    }

    /// Claims what is left of all areas, the oldest first, as much as it can.
    pub fn claim_leftovers(&mut self, claimed: &mut Claimed) {
        let mut next = self.leftovers.first();
        while let Some(record) = next.filter(|_| !claimed.is_full()) {
            self.claim_record(record, claimed);
            next = List::next(self.records, record);
        }
    }

    fn claim_record(&mut self, number: u32, claimed: &mut Claimed) {
        let record = &mut self.records[number as usize];
        let pages = record.pages();
        let mut contiguous = true;
        for page in pages.start + record.scan..pages.end {
            let linked = self.index.is_linked(page);
            if linked && claimed.try_push(page).is_err() {
                return;
            }
            contiguous &= !linked;
            record.claims += u32::from(linked);
            record.scan += u32::from(contiguous);
        }
    }

    /// Takes the first `done` of the claimed pages off the books, whose entries are gone, and gives
    /// up the claims on all of them.
    pub fn settle(
        &mut self,
        claimed: &[u32],
        done: usize,
        clock: &FlushClock,
        purged: &mut Purged,
    ) {
        for (place, page) in claimed.iter().enumerate() {
            // The claim has kept the page the area's, even if somebody else dropped it meanwhile.
            let record = self.index.area(*page);
            self.records[record as usize].claims -= 1;
            if place < done && self.index.unlink(*page) {
                self.records[record as usize].linked -= 1;
                self.leftover.pages -= 1;
                purged.aliases += 1;
            }
            purged.areas += u32::from(self.retire_if_done(record, clock));
        }
    }

    /// Retires an area of which nothing is left and nobody has a claim on.
    fn retire_if_done(&mut self, number: u32, clock: &FlushClock) -> bool {
        let record = &mut self.records[number as usize];
        if record.linked > 0 || record.claims > 0 {
            return false;
        }
        record.state = match core::mem::replace(&mut record.state, State::Unused) {
            State::Leftover(pages) => {
                self.waiting.areas += 1;
                self.waiting.pages += pages.count();
                State::Retired(Space::retire(pages, clock))
            }
            other => {
                record.state = other;
                return false;
            }
        };
        self.leftovers.remove(self.records, number);
        self.leftover.areas -= 1;
        self.retired.push(self.records, number);
        true
    }

    /// Frees the addresses of retired areas that a flush has covered, the oldest first.
    pub fn reuse(&mut self, clock: &FlushClock) {
        while let Some(number) = self.retired.first() {
            let record = &mut self.records[number as usize];
            let State::Retired(retired) = core::mem::replace(&mut record.state, State::Unused)
            else {
                unreachable!("an area in the list of the retired is retired")
            };
            let count = retired.count();
            if let Err(retired) = self.space.reuse(retired, clock) {
                // Those behind it were retired later still.
                record.state = State::Retired(retired);
                return;
            }
            self.retired.remove(self.records, number);
            self.unused.push(self.records, number);
            self.waiting.areas -= 1;
            self.waiting.pages -= count;
        }
    }
}
