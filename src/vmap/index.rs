//! The alias index: from a frame to the pages of areas that map it.

use crate::addr::Pfn;

/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// What the index knows of a page: the frame that it maps, the pages before and behind it that map
/// the same frame, and whose page it is. 16 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    frame: u32,
    previous: u32,
    next: u32,
    area: u32,
}

impl Slot {
    /// Of a page that maps nothing.
    pub(super) const EMPTY: Self = Self { frame: NONE, previous: NONE, next: NONE, area: NONE };
}

/// The index. A page is in it as long as its entry may refer to the frame.
#[derive(Debug)]
pub(super) struct Index<'m> {
    /// By frame, the first page that maps it.
    heads: &'m mut [u32],
    slots: &'m mut [Slot],
    linked: u32,
}

impl<'m> Index<'m> {
    pub fn new(heads: &'m mut [u32], slots: &'m mut [Slot]) -> Self {
        Self { heads, slots, linked: 0 }
    }

    /// Whether there are no aliases at all.
    pub const fn is_empty(&self) -> bool {
        self.linked == 0
    }

    /// Takes note that a page of `area` maps a frame.
    pub fn link(&mut self, page: u32, pfn: Pfn, area: u32) {
        let frame = pfn.number() as u32;
        let next = core::mem::replace(&mut self.heads[frame as usize], page);
        self.slots[page as usize] = Slot { frame, previous: NONE, next, area };
        if next != NONE {
            self.slots[next as usize].previous = page;
        }
        self.linked += 1;
    }

    /// Takes note that a page maps nothing any more. Returns whether it was in the index.
    pub fn unlink(&mut self, page: u32) -> bool {
        let Slot { frame, previous, next, area } = self.slots[page as usize];
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
        self.slots[page as usize] = Slot { area, ..Slot::EMPTY };
        self.linked -= 1;
        true
    }

    /// The pages that map a frame, in no order.
    pub fn aliases(&self, pfn: Pfn) -> impl Iterator<Item = u32> {
        let listed = |page: u32| (page != NONE).then_some(page);
        let first = self.heads.get(pfn.number() as usize).copied().and_then(listed);
        core::iter::successors(first, move |page| listed(self.slots[*page as usize].next))
    }

    /// Whether a page may have an entry.
    pub fn is_linked(&self, page: u32) -> bool {
        self.slots[page as usize].frame != NONE
    }

    /// The frame that a page maps.
    pub fn frame(&self, page: u32) -> Pfn {
        Pfn::new(self.slots[page as usize].frame.into())
    }

    /// Whose page it is, or was when it was last in the index.
    pub fn area(&self, page: u32) -> u32 {
        self.slots[page as usize].area
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_frame_knows_its_pages_and_no_others() {
        let (mut heads, mut slots) = ([NONE; 4], [Slot::EMPTY; 8]);
        let mut index = Index::new(&mut heads, &mut slots);
        let (one, two) = (Pfn::new(1), Pfn::new(2));
        for (page, pfn) in [(0, one), (3, two), (5, one), (6, one)] {
            index.link(page, pfn, 9);
        }
        let pages = |index: &Index<'_>, pfn| {
            let mut pages: Vec<u32> = index.aliases(pfn).collect();
            pages.sort_unstable();
            pages
        };
        assert_eq!(
            (pages(&index, one), pages(&index, two)),
            (Vec::from([0, 5, 6]), Vec::from([3]))
        );
        // From the middle, the end and the front of the list.
        for (page, left) in [(5, &[0, 6][..]), (0, &[6]), (6, &[])] {
            assert!(index.unlink(page) && !index.is_linked(page));
            assert_eq!(pages(&index, one), left);
            assert!(!index.unlink(page), "once");
        }
        assert_eq!((pages(&index, two), index.is_empty()), (Vec::from([3]), false));
        assert!(index.unlink(3) && index.is_empty());
        assert_eq!(pages(&index, Pfn::new(1 << 40)), Vec::new());
    }
}
