//! The registry of all areas. One lock guards it.
//!
//! Nothing here calls Xen. The lock does not mask events, so a handler of events or traps must not use
//! areas and must not make a hypercall that does.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::addresses::AddressPool;
use super::alias_index::AliasIndex;
use super::area::{Area, AreaId};
use super::error::VmapError;
use super::options::Budget;
use super::record::{AreaRecord, AreaState, RecordList};
use super::report::{AreaCount, Purged, VmapStats};
use super::storage::VmapMemory;
use crate::addr::{Pfn, VirtAddr};
use crate::paging::FlushClock;

/// Pages that are dropped in one hypercall: the entries of one first-level table.
pub(super) const BATCH: usize = 512;

/// Pages of unmapped areas that are visited while the lock is held once.
const VISITS: usize = 8 * BATCH;

/// Pages that a vCPU has claimed to drop their entries.
pub(super) type Claimed = ArrayVec<u32, BATCH>;

/// What is known of the areas.
#[derive(Debug)]
pub(super) struct AreaRegistry<'m> {
    pub index: AliasIndex<'m>,
    space: AddressPool<'m>,
    records: &'m mut [AreaRecord],
    unused: RecordList,
    leftovers: RecordList,
    retired: RecordList,
    live: AreaCount,
    leftover: AreaCount,
    waiting: AreaCount,
}

impl<'m> AreaRegistry<'m> {
    /// The registry of no areas yet, for a stretch of `pages` pages.
    ///
    /// # Errors
    /// [`VmapError::WrongMemory`] if the memory was prepared for another number of pages.
    pub fn new(memory: VmapMemory<'m>, pages: u32) -> Result<Self, VmapError> {
        let VmapMemory { records, bitmap, slots, heads } = memory;
        if slots.len() != pages as usize {
            return Err(VmapError::WrongMemory { pages, prepared: slots.len() });
        }
        let mut unused = RecordList::EMPTY;
        for record in 0..records.len() as u32 {
            unused.push(records, record);
        }
        Ok(Self {
            index: AliasIndex::new(heads, slots),
            space: AddressPool::new(bitmap, pages),
            records,
            unused,
            leftovers: RecordList::EMPTY,
            retired: RecordList::EMPTY,
            live: AreaCount::default(),
            leftover: AreaCount::default(),
            waiting: AreaCount::default(),
        })
    }

    pub fn stats(&self) -> VmapStats {
        VmapStats {
            live: self.live,
            leftover: self.leftover,
            retired: self.waiting,
            free_pages: self.space.free(),
        }
    }

    pub fn record(&self, record: u32) -> &AreaRecord {
        &self.records[record as usize]
    }

    /// Returns true if there are more leftovers than the budget allows.
    pub fn is_over(&self, budget: Budget) -> bool {
        self.leftover.pages > budget.pages || self.leftover.areas > budget.areas
    }

    /// Begins an area. `None` if no addresses or no record are free.
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
        *entry =
            AreaRecord { state: AreaState::New(taken), name, generation, ..AreaRecord::UNUSED };
        self.live.areas += 1;
        Some(Area::new(AreaId { record, generation }, first, pages, address(first)))
    }

    /// Records a page before its entry is written.
    pub fn link(&mut self, page: u32, pfn: Pfn, id: AreaId) {
        self.index.link(page, pfn, id.record);
        self.records[id.record as usize].linked += 1;
        self.live.pages += 1;
    }

    /// Hands a new area to its owner: all its entries are written.
    pub fn set_live(&mut self, area: &Area) {
        let record = &mut self.records[area.id().record as usize];
        record.state = match core::mem::replace(&mut record.state, AreaState::Unused) {
            AreaState::New(pages) => AreaState::Live(pages),
            other => other,
        };
    }

    /// Makes a leftover of a new area whose entries could not all be written.
    pub fn abandon(&mut self, area: Area, clock: &FlushClock) {
        self.leave(area.id());
        self.retire_if_done(area.id().record, clock);
    }

    /// Makes a leftover of an area that its owner unmaps.
    ///
    /// # Errors
    /// The area, if this registry does not know it.
    pub fn close(&mut self, area: Area) -> Result<(), Area> {
        let known = self.find(area.id()).is_some_and(|record| {
            matches!(&record.state, AreaState::Live(pages) if pages.numbers() == area.page_numbers())
        });
        if !known {
            return Err(area);
        }
        self.leave(area.id());
        Ok(())
    }

    fn find(&self, id: AreaId) -> Option<&AreaRecord> {
        let record = self.records.get(id.record as usize)?;
        (record.generation == id.generation).then_some(record)
    }

    fn leave(&mut self, id: AreaId) {
        let record = &mut self.records[id.record as usize];
        let linked = record.linked;
        record.state = match core::mem::replace(&mut record.state, AreaState::Unused) {
            AreaState::New(pages) | AreaState::Live(pages) => AreaState::Leftover(pages),
            other => other,
        };
        self.leftovers.push(self.records, id.record);
        self.live.areas -= 1;
        self.live.pages -= linked;
        self.leftover.areas += 1;
        self.leftover.pages += linked;
    }

    /// Claims leftover pages of the first frames of `frames`, until `claimed` is full. Removes the
    /// frames from `frames` whose pages are all claimed.
    ///
    /// One call visits at most 512 frames and 513 pages. The caller drops the claimed pages before
    /// its next call, which then finds the remaining pages at the front of their lists. So the calls
    /// of one purge visit each page once.
    ///
    /// # Errors
    /// A page of a live area that maps one of the frames. Nothing is claimed then.
    pub fn claim_frames(
        &mut self,
        frames: &mut Range<u64>,
        claimed: &mut Claimed,
    ) -> Result<(), u32> {
        if self.index.is_empty() {
            *frames = frames.end..frames.end;
            return Ok(());
        }
        frames.start = self.collect(frames.clone(), claimed)?;
        for page in claimed.iter() {
            self.records[self.index.area(*page) as usize].claims += 1;
        }
        Ok(())
    }

    /// Collects the pages that map the first frames of `frames`. Returns the first frame some of whose
    /// pages are not among them.
    ///
    /// # Errors
    /// A page of a live area.
    fn collect(&self, frames: Range<u64>, pages: &mut Claimed) -> Result<u64, u32> {
        let chunk = frames.start..frames.end.min(frames.start + BATCH as u64);
        for pfn in chunk.clone() {
            for page in self.index.aliases(Pfn::new(pfn)) {
                if self.record(self.index.area(page)).is_live() {
                    return Err(page);
                }
                if pages.try_push(page).is_err() {
                    return Ok(pfn);
                }
            }
        }
        Ok(chunk.end)
    }

    /// Claims leftover pages of an area until `claimed` is full.
    ///
    /// Returns true if it stopped before the end of the area. One call visits at most 4,096 pages.
    pub fn claim_area(&mut self, id: AreaId, claimed: &mut Claimed) -> bool {
        let leftover =
            self.find(id).is_some_and(|record| matches!(record.state, AreaState::Leftover(_)));
        let mut visits = VISITS;
        leftover && self.claim_record(id.record, claimed, &mut visits)
    }

    /// Claims leftover pages of all areas, oldest area first, until `claimed` is full.
    ///
    /// Returns true if it stopped before the end of the last area. One call visits at most 4,096 pages.
    /// Besides, it passes areas without a page, which wait until another vCPU gives up its claims: at
    /// most 512 for each vCPU.
    pub fn claim_leftovers(&mut self, claimed: &mut Claimed) -> bool {
        let mut visits = VISITS;
        let mut next = self.leftovers.first();
        while let Some(record) = next {
            if self.claim_record(record, claimed, &mut visits) {
                return true;
            }
            next = RecordList::next(self.records, record);
        }
        false
    }

    /// Claims leftover pages of an area until `claimed` is full or no `visits` remain.
    ///
    /// Returns true if it stopped before the end of the area. Then it claimed a page, or it advanced
    /// `scan`, so a caller that drops what it claimed and calls again comes to the end.
    fn claim_record(&mut self, number: u32, claimed: &mut Claimed, visits: &mut usize) -> bool {
        let record = &mut self.records[number as usize];
        if record.linked == 0 {
            return false;
        }
        let pages = record.pages();
        let mut contiguous = true;
        for page in pages.start + record.scan..pages.end {
            let Some(remaining) = visits.checked_sub(1) else { return true };
            *visits = remaining;
            let linked = self.index.is_linked(page);
            if linked && claimed.try_push(page).is_err() {
                return true;
            }
            contiguous &= !linked;
            record.claims += u32::from(linked);
            record.scan += u32::from(contiguous);
        }
        false
    }

    /// Gives up all claims, and removes the first `done` of the claimed pages, whose entries were
    /// dropped.
    pub fn settle(
        &mut self,
        claimed: &[u32],
        done: usize,
        clock: &FlushClock,
        purged: &mut Purged,
    ) {
        for (place, page) in claimed.iter().enumerate() {
            // The claim kept the page with its area, even if another vCPU dropped the entry meanwhile.
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

    /// Retires an area without linked pages and without claims.
    fn retire_if_done(&mut self, number: u32, clock: &FlushClock) -> bool {
        let record = &mut self.records[number as usize];
        if record.linked > 0 || record.claims > 0 {
            return false;
        }
        record.state = match core::mem::replace(&mut record.state, AreaState::Unused) {
            AreaState::Leftover(pages) => {
                self.waiting.areas += 1;
                self.waiting.pages += pages.count();
                AreaState::Retired(AddressPool::retire(pages, clock))
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

    /// Frees the addresses of at most 512 retired areas that a flush has covered, the oldest first.
    ///
    /// Returns true if there may be more of them.
    pub fn reuse(&mut self, clock: &FlushClock) -> bool {
        for _ in 0..BATCH {
            let Some(number) = self.retired.first() else { return false };
            let record = &mut self.records[number as usize];
            let AreaState::Retired(retired) =
                core::mem::replace(&mut record.state, AreaState::Unused)
            else {
                unreachable!("an area in the list of the retired is retired")
            };
            let count = retired.count();
            if let Err(retired) = self.space.reuse(retired, clock) {
                // The areas after it were retired later still.
                record.state = AreaState::Retired(retired);
                return false;
            }
            self.retired.remove(self.records, number);
            self.unused.push(self.records, number);
            self.waiting.areas -= 1;
            self.waiting.pages -= count;
        }
        true
    }
}
