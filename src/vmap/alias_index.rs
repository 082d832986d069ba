//! The alias index: from a frame to the pages of areas that map it.

use crate::addr::Pfn;

/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// What the index knows of a page, in 16 bytes.
///
/// The frame that it maps, the neighbours in the list of pages that map the same frame, and the record
/// of its area.
#[derive(Clone, Copy, Debug)]
pub struct PageSlot {
    frame: u32,
    previous: u32,
    next: u32,
    area: u32,
}

impl PageSlot {
    /// The slot of a page that maps nothing.
    pub(super) const EMPTY: Self = Self { frame: NONE, previous: NONE, next: NONE, area: NONE };
}

/// The alias index. A page is in it as long as its entry may refer to the frame.
#[derive(Debug)]
pub(super) struct AliasIndex<'m> {
    /// The first page that maps each frame.
    heads: &'m mut [u32],
    slots: &'m mut [PageSlot],
    linked: u32,
    /// How many slots were read, other than by their list's neighbours.
    #[cfg(test)]
    pub reads: core::cell::Cell<u32>,
}

impl<'m> AliasIndex<'m> {
    pub fn new(heads: &'m mut [u32], slots: &'m mut [PageSlot]) -> Self {
        Self {
            heads,
            slots,
            linked: 0,
            #[cfg(test)]
            reads: core::cell::Cell::new(0),
        }
    }

    /// Returns true if no area maps any frame.
    pub const fn is_empty(&self) -> bool {
        self.linked == 0
    }

    /// Records that a page of `area` maps a frame.
    pub fn link(&mut self, page: u32, pfn: Pfn, area: u32) {
        let frame = pfn.number() as u32;
        let next = core::mem::replace(&mut self.heads[frame as usize], page);
        self.slots[page as usize] = PageSlot { frame, previous: NONE, next, area };
        if next != NONE {
            self.slots[next as usize].previous = page;
        }
        self.linked += 1;
    }

    /// Removes a page. Returns false if it was not in the index.
    pub fn unlink(&mut self, page: u32) -> bool {
        let PageSlot { frame, previous, next, area } = *self.slot(page);
        if frame == NONE {
            return false;
        }
        match previous {
            NONE => self.heads[frame as usize] = next,
            previous => self.slots[previous as usize].next = next,
        }
        if next != NONE {
            self.slots[next as usize].previous = previous;
        }
        self.slots[page as usize] = PageSlot { area, ..PageSlot::EMPTY };
        self.linked -= 1;
        true
    }

    /// The pages that map a frame, in no particular order.
    pub fn aliases(&self, pfn: Pfn) -> impl Iterator<Item = u32> {
        let listed = |page: u32| (page != NONE).then_some(page);
        let first = self.heads.get(pfn.number() as usize).copied().and_then(listed);
        core::iter::successors(first, move |page| listed(self.slot(*page).next))
    }

    /// Returns true if the page may have an entry.
    pub fn is_linked(&self, page: u32) -> bool {
        self.slot(page).frame != NONE
    }

    /// The frame that a page maps.
    pub fn frame(&self, page: u32) -> Pfn {
        Pfn::new(self.slot(page).frame.into())
    }

    /// The record of the area that the page belongs to, or belonged to when it was last in the index.
    pub fn area(&self, page: u32) -> u32 {
        self.slot(page).area
    }

    fn slot(&self, page: u32) -> &PageSlot {
        #[cfg(test)]
        self.reads.update(|reads| reads + 1);
        &self.slots[page as usize]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_frame_knows_its_pages_and_no_others() {
        let (mut heads, mut slots) = ([NONE; 4], [PageSlot::EMPTY; 8]);
        let mut index = AliasIndex::new(&mut heads, &mut slots);
        let (one, two) = (Pfn::new(1), Pfn::new(2));
        for (page, pfn) in [(0, one), (3, two), (5, one), (6, one)] {
            index.link(page, pfn, 9);
        }
        let pages = |index: &AliasIndex<'_>, pfn| {
            let mut pages: Vec<u32> = index.aliases(pfn).collect();
            pages.sort_unstable();
            pages
        };
        assert_eq!(
            (pages(&index, one), pages(&index, two)),
            (Vec::from([0, 5, 6]), Vec::from([3]))
        );
        // From the middle, the end and the front of the list.
        for (page, remaining) in [(5, &[0, 6][..]), (0, &[6]), (6, &[])] {
            assert!(index.unlink(page) && !index.is_linked(page));
            assert_eq!(pages(&index, one), remaining);
            assert!(!index.unlink(page), "once");
        }
        assert_eq!((pages(&index, two), index.is_empty()), (Vec::from([3]), false));
        assert!(index.unlink(3) && index.is_empty());
        assert_eq!(pages(&index, Pfn::new(1 << 40)), Vec::new());
    }
}
