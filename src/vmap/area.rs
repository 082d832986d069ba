//! An area, as its owner holds it and as the books know it.

use core::fmt;
use core::ops::Range;

use super::index::NONE;
use super::space::{Pages, Retired};
use crate::addr::{PAGE_SIZE, VirtAddr};

/// Which area, among all that ever had its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AreaId {
    pub record: u32,
    pub generation: u32,
}

/// A virtual area: frames mapped side by side. Ended with [`Vmap::vunmap`](super::Vmap::vunmap);
/// one that is dropped stays mapped for good.
///
/// What lies in it is reached through raw pointers alone: the frames may be anybody's (M5).
#[derive(PartialEq, Eq)]
#[must_use = "an area that is dropped stays mapped; end it with Vmap::vunmap"]
pub struct Area {
    id: AreaId,
    first: u32,
    pages: u32,
    address: VirtAddr,
}

impl Area {
    pub(super) const fn new(id: AreaId, first: u32, pages: u32, address: VirtAddr) -> Self {
        Self { id, first, pages, address }
    }

    pub(super) const fn id(&self) -> AreaId {
        self.id
    }

    pub(super) const fn page_numbers(&self) -> Range<u32> {
        self.first..self.first + self.pages
    }

    /// The first address.
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// The first byte.
    pub const fn pointer(&self) -> *mut u8 {
        self.address.as_mut_ptr()
    }

    /// How many pages.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// How many bytes.
    #[expect(clippy::len_without_is_empty, reason = "no area is empty")]
    pub const fn len(&self) -> usize {
        self.pages as usize * PAGE_SIZE
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Area({} pages at {:#x})", self.pages, self.address)
    }
}

/// What the books know of an area.
#[derive(Debug)]
pub struct Record {
    pub(super) state: State,
    /// What its owner called it.
    pub(super) name: &'static str,
    /// How many areas have had this record.
    pub(super) generation: u32,
    /// Pages in the index.
    pub(super) linked: u32,
    /// Pages that somebody is dropping, as often as somebody is.
    pub(super) claims: u32,
    /// No page before this one is in the index.
    pub(super) scan: u32,
    /// The records before and behind it in the list that it is in.
    pub(super) previous: u32,
    pub(super) next: u32,
}

/// How far an area has come.
#[derive(Debug)]
pub(super) enum State {
    /// There is none.
    Unused,
    /// Its entries are being written.
    New(Pages),
    /// Its owner uses it.
    Live(Pages),
    /// Its owner is done with it, entries are left.
    Leftover(Pages),
    /// No entries are left.
    Retired(Retired),
}

impl Record {
    /// Of no area.
    pub(super) const UNUSED: Self = Self {
        state: State::Unused,
        name: "",
        generation: 0,
        linked: 0,
        claims: 0,
        scan: 0,
        previous: NONE,
        next: NONE,
    };

    /// What the owner called it.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether its owner has not unmapped it.
    pub(super) const fn is_live(&self) -> bool {
        matches!(self.state, State::New(_) | State::Live(_))
    }

    /// Its pages, as long as it has any that may be in the index.
    pub(super) fn pages(&self) -> Range<u32> {
        match &self.state {
            State::New(pages) | State::Live(pages) | State::Leftover(pages) => pages.numbers(),
            State::Unused | State::Retired(_) => 0..0,
        }
    }
}

/// Records in a row, first in first out, any of them removable.
#[derive(Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl List {
    pub const EMPTY: Self = Self { first: NONE, last: NONE };

    /// The first record.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// The record behind one in the list.
    pub fn next(records: &[Record], record: u32) -> Option<u32> {
        let next = records[record as usize].next;
        (next != NONE).then_some(next)
    }

    pub fn push(&mut self, records: &mut [Record], record: u32) {
        records[record as usize].previous = self.last;
        records[record as usize].next = NONE;
        match self.last {
            NONE => self.first = record,
            last => records[last as usize].next = record,
        }
        self.last = record;
    }

    pub fn remove(&mut self, records: &mut [Record], record: u32) {
        let Record { previous, next, .. } = records[record as usize];
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
