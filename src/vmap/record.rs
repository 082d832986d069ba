//! An area as the registry knows it, and lists of such records.

use core::ops::Range;

use super::addresses::{PageRange, RetiredPages};
use super::alias_index::NONE;

/// What the registry knows of an area.
#[derive(Debug)]
pub struct AreaRecord {
    pub(super) state: AreaState,
    /// The name that the owner gave it.
    pub(super) name: &'static str,
    /// How many areas have had this record.
    pub(super) generation: u32,
    /// Pages in the alias index.
    pub(super) linked: u32,
    /// Claims on its pages. A vCPU that drops an entry claims the page first.
    pub(super) claims: u32,
    /// No page before this one is in the alias index.
    pub(super) scan: u32,
    /// The neighbours in the list that this record is in.
    pub(super) previous: u32,
    pub(super) next: u32,
}

/// How far an area has come.
#[derive(Debug)]
pub(super) enum AreaState {
    /// No area has this record.
    Unused,
    /// Its entries are being written.
    New(PageRange),
    /// Its owner uses it.
    Live(PageRange),
    /// Its owner unmapped it, and entries remain.
    Leftover(PageRange),
    /// No entries remain, and its addresses wait for a flush.
    Retired(RetiredPages),
}

impl AreaRecord {
    /// The record of no area.
    pub(super) const UNUSED: Self = Self {
        state: AreaState::Unused,
        name: "",
        generation: 0,
        linked: 0,
        claims: 0,
        scan: 0,
        previous: NONE,
        next: NONE,
    };

    /// The name that the owner gave the area.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns true until the owner unmaps the area.
    pub(super) const fn is_live(&self) -> bool {
        matches!(self.state, AreaState::New(_) | AreaState::Live(_))
    }

    /// The pages that may be in the alias index.
    pub(super) fn pages(&self) -> Range<u32> {
        match &self.state {
            AreaState::New(pages) | AreaState::Live(pages) | AreaState::Leftover(pages) => {
                pages.numbers()
            }
            AreaState::Unused | AreaState::Retired(_) => 0..0,
        }
    }
}

/// A queue of records; any record can be removed.
#[derive(Debug)]
pub(super) struct RecordList {
    first: u32,
    last: u32,
}

impl RecordList {
    pub const EMPTY: Self = Self { first: NONE, last: NONE };

    /// The first record.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// The record that follows `record` in its list.
    pub fn next(records: &[AreaRecord], record: u32) -> Option<u32> {
        let next = records[record as usize].next;
        (next != NONE).then_some(next)
    }

    pub fn push(&mut self, records: &mut [AreaRecord], record: u32) {
        records[record as usize].previous = self.last;
        records[record as usize].next = NONE;
        match self.last {
            NONE => self.first = record,
            last => records[last as usize].next = record,
        }
        self.last = record;
    }

    pub fn remove(&mut self, records: &mut [AreaRecord], record: u32) {
        let AreaRecord { previous, next, .. } = records[record as usize];
        match previous {
            NONE => self.first = next,
            previous => records[previous as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => records[next as usize].previous = previous,
        }
    }
}
