//! The reserve's records: one entry for each guest frame that the reserve owns.
//!
//! The entries lie in ordinary frames of the guest, never in a block of the reserve, so no device can
//! reach them. A page of 256 entries covers 1 MiB of guest memory. Three levels of directories lead to
//! it. Pages come and go with the frames that they cover.
//!
//! | page | words |
//! |---|---|
//! | root | 64 directory entries, then the heads of the free lists |
//! | directory, two levels | 512 directory entries |
//! | entries | 256 entries of two words |

use crate::addr::{Gfn, Order, Pfn, PseudoPhysAddr};
use crate::frames::FrameRun;
use crate::paging::GuestMemory;

/// Frames that a page of entries covers.
const ENTRIES: u64 = 256;

/// The word of the root page after its directory entries.
const HEADS: u64 = 64;

/// Where a frame number is split into the indices of the three directories.
const SHIFTS: [u32; 3] = [26, 17, 8];

/// The frame after the last one that the table has room for (16 TiB). One number less, because links
/// are stored as the number of the next frame.
const LIMIT: u64 = (HEADS << SHIFTS[0]) - 1;

/// A record about the frames from one on. The other frames that it covers have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// No record begins here.
    Empty,
    /// A free block, with its neighbours in its free list.
    Free { block: Block, next: Option<Pfn>, previous: Option<Pfn> },
    /// A piece of a buffer that has several.
    Piece(Extent),
    /// A frame that Xen refused to take, and the next such frame.
    SetAside { next: Option<Pfn> },
}

/// Machine-contiguous frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dma) struct Extent {
    /// The first frame.
    pub pfn: Pfn,
    /// The number by which devices see it.
    pub gfn: Gfn,
    pub frames: u64,
    pub origin: Origin,
}

/// A free extent, as long as its order says and aligned to its size in machine addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dma) struct Block {
    pub pfn: Pfn,
    pub gfn: Gfn,
    pub order: Order,
    pub origin: Origin,
    /// The memory came from Xen and was not zeroed since ([C56](crate::conformance#C56)).
    pub dirty: bool,
}

/// Where the reserve has memory from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dma) enum Origin {
    /// Free memory of the kernel that was contiguous already.
    Adopted,
    /// Xen exchanged it.
    Exchanged,
}

/// What a search for a free block came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextBlock {
    /// A block begins at this frame.
    Block(Pfn),
    /// No block begins before this frame. The search can go on there.
    Continue(Pfn),
    /// The table has no other block.
    End,
}

/// A word of the table: the page and the index in it.
#[derive(Clone, Copy)]
struct Place(Pfn, u64);

/// The table. It has no page until [`cover`](Self::cover) succeeds.
#[derive(Debug, Default)]
pub(super) struct FrameTable {
    root: Option<Pfn>,
    /// Pages that are not in use, linked by their first words. All other words are 0.
    spare: Option<Pfn>,
    spares: u64,
    /// All pages, in use or not.
    pages: u64,
}

impl FrameTable {
    /// Makes room for the entries of `frames` frames from `first` on.
    ///
    /// # Errors
    /// How many pages have to be [added](Self::add_page) first. Then nothing has changed.
    pub fn cover(&mut self, memory: &impl GuestMemory, first: Pfn, frames: u64) -> Result<(), u64> {
        let missing = self.missing(memory, first, frames);
        if missing > self.spares {
            return Err(missing - self.spares);
        }
        for (pfn, covered) in split(first, frames) {
            let mut page = self.root.unwrap_or_else(|| self.take_spare(memory));
            self.root.get_or_insert(page);
            let mut parent: Option<Place> = None;
            for (level, index) in indices(pfn).into_iter().enumerate() {
                let place = Place(page, index);
                let (child, count) = directory_entry(load(memory, place));
                let child_page = child.unwrap_or_else(|| self.take_spare(memory));
                if let (None, Some(parent)) = (child, parent) {
                    add(memory, parent, 1);
                }
                let count = if level == 2 { count + covered } else { count };
                store(memory, place, child_page.number() << 16 | count);
                parent = Some(place);
                page = child_page;
            }
        }
        Ok(())
    }

    /// Frees the room of frames that were covered. They must have no entries.
    pub fn uncover(&mut self, memory: &impl GuestMemory, first: Pfn, frames: u64) {
        for (pfn, covered) in split(first, frames) {
            let Some(path) = self.path(memory, pfn) else { continue };
            let mut less = covered;
            for place in path.into_iter().rev() {
                let word = load(memory, place);
                let (Some(page), count) = directory_entry(word) else { break };
                if count > less {
                    store(memory, place, word - less);
                    break;
                }
                store(memory, place, 0);
                self.put_spare(memory, page);
                less = 1;
            }
        }
    }

    /// Adds a page for entries. Its frame must be zeroed.
    pub fn add_page(&mut self, memory: &impl GuestMemory, page: FrameRun) {
        self.pages += 1;
        self.put_spare(memory, page.first());
    }

    /// Returns the number of pages.
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Removes a page that is not in use.
    pub fn remove_page(&mut self, memory: &impl GuestMemory) -> Option<FrameRun> {
        self.spare?;
        let page = self.take_spare(memory);
        self.pages -= 1;
        // SAFETY: the page is a run of one frame that `add_page` took, and the table no longer uses it
        // ([M1](crate::rules#M1)).
        Some(unsafe { FrameRun::new(page, 1) })
    }

    /// Stops using the root page, whose lists are empty. No frame may be covered.
    pub fn remove_root(&mut self, memory: &impl GuestMemory) {
        if let Some(root) = self.root.take() {
            self.put_spare(memory, root);
        }
    }

    /// Returns the record that begins at a frame.
    pub fn entry(&self, memory: &impl GuestMemory, pfn: Pfn) -> Entry {
        let Some(place) = self.place(memory, pfn) else { return Entry::Empty };
        let record = load(memory, place);
        let links = load(memory, place.next());
        let (low, high) = (links & u64::from(u32::MAX), links >> 32);
        let gfn = Gfn::new(record >> 12);
        let origin = if record & 4 == 0 { Origin::Adopted } else { Origin::Exchanged };
        match record & 3 {
            0 => Entry::Empty,
            1 => {
                let order = Order::new((record >> 4 & 31) as u32).unwrap_or(Order::ZERO);
                let dirty = record & 8 != 0;
                let block = Block { pfn, gfn, order, origin, dirty };
                Entry::Free { block, next: link(low), previous: link(high) }
            }
            2 => Entry::Piece(Extent { pfn, gfn, frames: links, origin }),
            _ => Entry::SetAside { next: link(low) },
        }
    }

    /// Searches for the first free block that begins at `from` or after. Returns the number of entries that
    /// it read, too: at most `most`.
    pub fn next_block(&self, memory: &impl GuestMemory, from: Pfn, most: u32) -> (NextBlock, u32) {
        let Some(root) = self.root else { return (NextBlock::End, 0) };
        let (mut at, mut entries) = (from.number(), 0);
        while at < LIMIT {
            if entries >= most {
                return (NextBlock::Continue(Pfn::new(at)), entries);
            }
            entries += 1;
            let mut page = root;
            let missing = indices(Pfn::new(at)).into_iter().zip(SHIFTS).find(|(index, _)| {
                let (child, _) = directory_entry(load(memory, Place(page, *index)));
                page = child.unwrap_or(page);
                child.is_none()
            });
            if let Some((_, shift)) = missing {
                at = ((at >> shift) + 1) << shift;
                continue;
            }
            let end = (at / ENTRIES + 1) * ENTRIES;
            while at < end && entries < most {
                let place = Place(page, at % ENTRIES * 2);
                at += match load(memory, place) & 3 {
                    1 => return (NextBlock::Block(Pfn::new(at)), entries),
                    2 => load(memory, place.next()).max(1),
                    _ => 1,
                };
                entries += 1;
            }
        }
        (NextBlock::End, entries)
    }

    /// Writes the record that begins at a covered frame.
    pub fn set(&mut self, memory: &impl GuestMemory, pfn: Pfn, entry: Entry) {
        let origin = |origin| if origin == Origin::Exchanged { 4 } else { 0 };
        let (record, links) = match entry {
            Entry::Empty => (0, 0),
            Entry::Free { block, next, previous } => (
                1 | origin(block.origin)
                    | u64::from(block.dirty) << 3
                    | u64::from(block.order.get()) << 4
                    | block.gfn.number() << 12,
                number(next) | number(previous) << 32,
            ),
            Entry::Piece(Extent { gfn, frames, origin: from, .. }) => {
                (2 | origin(from) | gfn.number() << 12, frames)
            }
            Entry::SetAside { next } => (3, number(next)),
        };
        let Some(place) = self.place(memory, pfn) else {
            debug_assert!(false, "pfn {pfn} is not covered");
            return;
        };
        store(memory, place, record);
        store(memory, place.next(), links);
    }

    /// Returns the first block of a free list.
    pub fn head(&self, memory: &impl GuestMemory, list: usize) -> Option<Pfn> {
        let (place, shift) = self.head_place(list)?;
        link(load(memory, place) >> shift & u64::from(u32::MAX))
    }

    /// Makes a block the first of a free list.
    pub fn set_head(&mut self, memory: &impl GuestMemory, list: usize, head: Option<Pfn>) {
        let Some((place, shift)) = self.head_place(list) else { return };
        let others = load(memory, place) & !(u64::from(u32::MAX) << shift);
        store(memory, place, others | number(head) << shift);
    }

    fn head_place(&self, list: usize) -> Option<(Place, u32)> {
        Some((Place(self.root?, HEADS + list as u64 / 2), 32 * (list as u32 % 2)))
    }

    /// Returns how many pages are missing for the entries of a run.
    fn missing(&self, memory: &impl GuestMemory, first: Pfn, frames: u64) -> u64 {
        if first.number().checked_add(frames).is_none_or(|end| end > LIMIT) {
            return u64::MAX;
        }
        let mut missing = u64::from(self.root.is_none());
        let mut counted = [None; 3];
        for (pfn, _) in split(first, frames) {
            let mut page = self.root;
            for (level, index) in indices(pfn).into_iter().enumerate() {
                page = page.and_then(|page| directory_entry(load(memory, Place(page, index))).0);
                let part = Some(pfn.number() >> SHIFTS[level]);
                if page.is_none() && counted[level] != part {
                    counted[level] = part;
                    missing += 1;
                }
            }
        }
        missing
    }

    /// Returns the directory entries that lead to a frame's page of entries.
    fn path(&self, memory: &impl GuestMemory, pfn: Pfn) -> Option<[Place; 3]> {
        // The indices have no more bits than the limit, so a larger number would name another frame.
        if pfn.number() >= LIMIT {
            return None;
        }
        let indices = indices(pfn);
        let top = Place(self.root?, indices[0]);
        let middle = Place(directory_entry(load(memory, top)).0?, indices[1]);
        let bottom = Place(directory_entry(load(memory, middle)).0?, indices[2]);
        Some([top, middle, bottom])
    }

    /// Returns the first word of a frame's entry.
    fn place(&self, memory: &impl GuestMemory, pfn: Pfn) -> Option<Place> {
        let (page, _) = directory_entry(load(memory, self.path(memory, pfn)?[2]));
        Some(Place(page?, pfn.number() % ENTRIES * 2))
    }

    /// # Panics
    /// If there is none: the pages that `cover` needs are counted first.
    fn take_spare(&mut self, memory: &impl GuestMemory) -> Pfn {
        let page = self.spare.expect("the pages were counted");
        let first = Place(page, 0);
        self.spare = link(load(memory, first));
        self.spares -= 1;
        store(memory, first, 0);
        page
    }

    fn put_spare(&mut self, memory: &impl GuestMemory, page: Pfn) {
        store(memory, Place(page, 0), number(self.spare));
        self.spare = Some(page);
        self.spares += 1;
    }
}

impl Place {
    const fn next(self) -> Self {
        Self(self.0, self.1 + 1)
    }
}

/// Splits a run where the pages of entries end. Yields the first frame and the number of frames.
fn split(first: Pfn, frames: u64) -> impl Iterator<Item = (Pfn, u64)> {
    let (mut at, end) = (first.number(), first.number() + frames);
    core::iter::from_fn(move || {
        let (pfn, edge) = (at, (at / ENTRIES + 1) * ENTRIES);
        at = edge.min(end);
        (pfn < end).then(|| (Pfn::new(pfn), at - pfn))
    })
}

fn indices(pfn: Pfn) -> [u64; 3] {
    let at = |shift: u32, bits: u32| pfn.number() >> shift & ((1 << bits) - 1);
    [at(SHIFTS[0], 6), at(SHIFTS[1], 9), at(SHIFTS[2], 9)]
}

/// Decodes a directory entry: the page that it leads to, and how many frames or pages that one covers.
const fn directory_entry(word: u64) -> (Option<Pfn>, u64) {
    if word == 0 { (None, 0) } else { (Some(Pfn::new(word >> 16)), word & 0xffff) }
}

/// Decodes a link. 0 stands for none.
fn link(number: u64) -> Option<Pfn> {
    number.checked_sub(1).map(Pfn::new)
}

const fn number(link: Option<Pfn>) -> u64 {
    match link {
        Some(pfn) => pfn.number() + 1,
        None => 0,
    }
}

fn add(memory: &impl GuestMemory, place: Place, count: u64) {
    store(memory, place, load(memory, place) + count);
}

fn address(Place(page, index): Place) -> PseudoPhysAddr {
    PseudoPhysAddr::new(PseudoPhysAddr::of(page).get() + index * 8)
}

fn load(memory: &impl GuestMemory, place: Place) -> u64 {
    // SAFETY: the word lies in a page of the table, whose frame is mapped and belongs to the table alone
    // ([M1](crate::rules#M1)). It is aligned, because `address` multiplies by the size of a word.
    unsafe { memory.load(address(place)) }
}

fn store(memory: &impl GuestMemory, place: Place, word: u64) {
    // SAFETY: as in `load`.
    unsafe { memory.store(address(place), word) }
}
