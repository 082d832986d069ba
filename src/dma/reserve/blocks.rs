//! The buddy allocator of the reserve.
//!
//! Free memory is held as [`Block`]s: powers of two of frames that are consecutive for the guest and for
//! devices, aligned to their size in machine addresses. Two free buddies from the same origin are merged.
//! A free list holds the blocks of one order and one [class](class_of). Bitmaps say which lists have
//! blocks. So taking and returning memory costs at most a few steps per order, whatever the size of the
//! guest and the number of buffers.

use super::frame_table::{Block, Entry, Extent, FrameTable};
use crate::addr::{Gfn, Order, Pfn};
use crate::dma::plan::Plan;
use crate::frames::FrameRun;
use crate::paging::GuestMemory;

/// Address widths of blocks: class *c* ends below frame 2^*c*, and not below 2^(*c* - 1).
pub(in crate::dma) const CLASSES: usize = 41;
const ORDERS: usize = Order::MAX.get() as usize + 1;

/// Blocks that are compared with limits which cut their class in two, before the search goes on elsewhere.
const PROBES: usize = 8;

/// Returns the class of an extent: the address bits of its last frame's number.
pub(in crate::dma) const fn class_of(gfn: Gfn, frames: u64) -> usize {
    let last = gfn.number() + (frames - 1);
    let class = (u64::BITS - last.leading_zeros()) as usize;
    if class < CLASSES { class } else { CLASSES - 1 }
}

/// The free blocks, and the records of what else the reserve owns.
#[derive(Debug)]
pub(in crate::dma) struct Blocks {
    pub(super) table: FrameTable,
    /// The extent that was released last. It is merged when something else is wanted, so a driver that
    /// allocates and frees in turns costs no merging and splitting.
    recent: Option<Extent>,
    /// Bit *c*: there is a free block of class *c*.
    pub(super) classes: u64,
    /// By class. Bit *o*: there is a free block of order *o*.
    pub(super) orders: [u32; CLASSES],
    /// By class: the number of free frames.
    pub(super) idle: [u64; CLASSES],
    /// The first and the last frame that Xen refused.
    set_aside: Option<(Pfn, Pfn)>,
    set_aside_frames: u64,
    /// Frames that the table covers.
    owned: u64,
    pub(super) steps: u32,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            table: FrameTable::default(),
            recent: None,
            classes: 0,
            orders: [0; CLASSES],
            idle: [0; CLASSES],
            set_aside: None,
            set_aside_frames: 0,
            owned: 0,
            steps: 0,
        }
    }
}

impl Blocks {
    /// Makes room for the records of frames that are to join the reserve.
    ///
    /// # Errors
    /// How many pages have to be [added](Self::add_page) first.
    pub fn cover(&mut self, memory: &impl GuestMemory, first: Pfn, frames: u64) -> Result<(), u64> {
        self.steps += (frames / 256) as u32 + 1;
        self.table.cover(memory, first, frames)?;
        self.owned += frames;
        Ok(())
    }

    /// Forgets frames that left the reserve.
    pub fn uncover(&mut self, memory: &impl GuestMemory, first: Pfn, frames: u64) {
        self.steps += (frames / 256) as u32 + 1;
        self.table.uncover(memory, first, frames);
        self.owned -= frames;
    }

    /// Adds a zeroed page for records.
    pub fn add_page(&mut self, memory: &impl GuestMemory, page: FrameRun) {
        self.table.add_page(memory, page);
    }

    /// Removes a page that no record needs.
    pub fn remove_page(&mut self, memory: &impl GuestMemory) -> Option<FrameRun> {
        if self.owned == 0 {
            self.table.remove_root(memory);
        }
        self.table.remove_page(memory)
    }

    /// Returns the number of free frames in a class.
    pub const fn idle(&self, class: usize) -> u64 {
        self.idle[class]
    }

    /// Returns the number of frames that hold the records.
    pub const fn record_frames(&self) -> u64 {
        self.table.pages()
    }

    /// Returns the number of frames that Xen refused to take.
    pub const fn set_aside_frames(&self) -> u64 {
        self.set_aside_frames
    }

    /// Returns the steps since the last call: entries read or written.
    pub const fn take_steps(&mut self) -> u32 {
        core::mem::replace(&mut self.steps, 0)
    }

    /// Adds an extent whose frames are covered. Merges it with its buddies.
    pub fn insert(&mut self, memory: &impl GuestMemory, extent: Extent, dirty: bool) {
        let Extent { mut pfn, mut gfn, mut frames, origin } = extent;
        while let Some(longest) = frames.checked_ilog2() {
            // Frame 0 stays alone, so all frames of a block are of one class.
            let bits = match gfn.number() {
                0 => 0,
                number => number.trailing_zeros().min(longest).min(Order::MAX.get()),
            };
            let order = Order::new(bits).unwrap_or(Order::MAX);
            self.merge(memory, Block { pfn, gfn, order, origin, dirty });
            (pfn, gfn) = (pfn.add(order.frames()), gfn.add(order.frames()));
            frames -= order.frames();
        }
    }

    /// Adds an extent that a buffer was cut from.
    pub fn release(&mut self, memory: &impl GuestMemory, extent: Extent) {
        self.flush_recent(memory);
        self.idle[class_of(extent.gfn, extent.frames)] += extent.frames;
        self.recent = Some(extent);
    }

    /// Takes an extent that serves a request in one piece: of the highest class from `lowest_class` on, and
    /// there from the smallest block.
    ///
    /// Returns it with the frames that the request needs.
    pub fn carve(
        &mut self,
        memory: &impl GuestMemory,
        plan: &Plan,
        lowest_class: usize,
    ) -> Option<Extent> {
        if let Some(extent) = self.take_recent(plan, lowest_class) {
            return Some(extent);
        }
        self.flush_recent(memory);
        let (block, before) = self.find(memory, plan, lowest_class)?;
        self.remove(memory, block.pfn);
        Some(self.cut(memory, &block, before, plan.frames()))
    }

    /// Cuts `frames` frames out of a block that was taken, after the first `before`. The others stay free.
    pub(super) fn cut(
        &mut self,
        memory: &impl GuestMemory,
        block: &Block,
        before: u64,
        frames: u64,
    ) -> Extent {
        let Block { pfn, gfn, order, origin, dirty } = *block;
        let part = |first: u64, end: u64| Extent {
            pfn: pfn.add(first),
            gfn: gfn.add(first),
            frames: end - first,
            origin,
        };
        let end = before + frames;
        self.insert(memory, part(0, before), dirty);
        self.insert(memory, part(end, order.frames()), dirty);
        part(before, end)
    }

    /// Takes the smallest free block of a class.
    pub fn take_smallest(&mut self, memory: &impl GuestMemory, class: usize) -> Option<Block> {
        self.flush_recent(memory);
        let order = self.orders[class].trailing_zeros() as usize;
        self.take_head(memory, class, order)
    }

    /// Takes the smallest free block of a class that has at least `frames` frames.
    pub fn take_sufficient(
        &mut self,
        memory: &impl GuestMemory,
        class: usize,
        frames: u64,
    ) -> Option<Block> {
        self.flush_recent(memory);
        let order = frames.checked_next_power_of_two()?.ilog2();
        let sufficient = self.orders[class].checked_shr(order)?;
        self.take_head(memory, class, (sufficient.trailing_zeros() + order) as usize)
    }

    /// Records a covered frame that Xen refused to take, as the last one.
    pub fn set_aside(&mut self, memory: &impl GuestMemory, pfn: Pfn) {
        self.set(memory, pfn, Entry::SetAside { next: None });
        if let Some((_, last)) = self.set_aside {
            self.set(memory, last, Entry::SetAside { next: Some(pfn) });
        }
        self.set_aside = Some((self.set_aside.map_or(pfn, |(first, _)| first), pfn));
        self.set_aside_frames += 1;
    }

    /// Takes the first frame that Xen refused.
    pub fn take_set_aside(&mut self, memory: &impl GuestMemory) -> Option<Pfn> {
        let (pfn, last) = self.set_aside?;
        let Entry::SetAside { next } = self.entry(memory, pfn) else { return None };
        self.set(memory, pfn, Entry::Empty);
        self.set_aside = next.map(|next| (next, last));
        self.set_aside_frames -= 1;
        Some(pfn)
    }

    /// Takes the extent that was released last, if it serves and no block of a higher class would.
    fn take_recent(&mut self, plan: &Plan, lowest_class: usize) -> Option<Extent> {
        let extent = self.recent?;
        let class = class_of(extent.gfn, extent.frames);
        let higher = self.classes & plan.classes() & !((2 << class) - 1);
        let serves = extent.frames == plan.frames()
            && class >= lowest_class
            && higher == 0
            && plan.serves_from(extent.pfn, extent.gfn);
        serves.then(|| {
            self.steps += 1;
            self.idle[class] -= extent.frames;
            self.recent = None;
            extent
        })
    }

    /// Merges the extent that was released last with the free blocks. It can span classes, so a walk through
    /// the classes begins with this.
    pub fn flush_recent(&mut self, memory: &impl GuestMemory) {
        if let Some(extent) = self.recent.take() {
            self.idle[class_of(extent.gfn, extent.frames)] -= extent.frames;
            self.insert(memory, extent, false);
        }
    }

    /// Finds the block to carve from. Returns it with the number of its frames that lie before the buffer.
    fn find(
        &mut self,
        memory: &impl GuestMemory,
        plan: &Plan,
        lowest_class: usize,
    ) -> Option<(Block, u64)> {
        let order = plan.block()?.get();
        let mut probes = PROBES;
        let mut classes = self.classes & plan.classes() & (u64::MAX << lowest_class);
        while let Some(class) = classes.checked_ilog2() {
            classes &= !(1 << class);
            let mut orders = self.orders[class as usize] & (u32::MAX << order);
            while orders != 0 {
                let sufficient = orders.trailing_zeros();
                orders &= orders - 1;
                let mut at = self.table.head(memory, list(class as usize, sufficient as usize));
                while let Some(pfn) = at {
                    let Entry::Free { block, next, .. } = self.entry(memory, pfn) else { break };
                    let frames = block.order.frames();
                    if let Some(before) = plan.start_within(block.pfn, block.gfn, frames) {
                        return Some((block, before));
                    }
                    probes -= 1;
                    if probes == 0 {
                        return None;
                    }
                    at = next;
                }
            }
        }
        None
    }

    fn take_head(
        &mut self,
        memory: &impl GuestMemory,
        class: usize,
        order: usize,
    ) -> Option<Block> {
        if order >= ORDERS {
            return None;
        }
        let pfn = self.table.head(memory, list(class, order))?;
        self.remove(memory, pfn)
    }

    /// Merges a block with its free buddies, and puts the result into its free list.
    fn merge(&mut self, memory: &impl GuestMemory, mut block: Block) {
        while block.order < Order::MAX {
            let frames = block.order.frames();
            let is_upper = block.gfn.number() & frames != 0;
            let buddy_pfn = match is_upper {
                true => block.pfn.number().checked_sub(frames),
                false => block.pfn.number().checked_add(frames),
            };
            let Some(buddy_pfn) = buddy_pfn.map(Pfn::new) else { break };
            let Entry::Free { block: buddy, .. } = self.entry(memory, buddy_pfn) else { break };
            let is_buddy = buddy.order == block.order
                && buddy.gfn.number() == block.gfn.number() ^ frames
                && buddy.gfn.number().min(block.gfn.number()) > 0
                && buddy.origin == block.origin;
            if !is_buddy {
                break;
            }
            self.remove(memory, buddy_pfn);
            if is_upper {
                (block.pfn, block.gfn) = (buddy.pfn, buddy.gfn);
            }
            block.dirty |= buddy.dirty;
            block.order = Order::new(block.order.get() + 1).unwrap_or(Order::MAX);
        }
        self.add(memory, block);
    }

    /// Puts a block into its free list.
    fn add(&mut self, memory: &impl GuestMemory, block: Block) {
        let (class, order) = place_of(&block);
        let list = list(class, order);
        let next = self.table.head(memory, list);
        if let Some(pfn) = next
            && let Entry::Free { block: head, next, .. } = self.entry(memory, pfn)
        {
            let previous = Some(block.pfn);
            self.set(memory, pfn, Entry::Free { block: head, next, previous });
        }
        self.set(memory, block.pfn, Entry::Free { block, next, previous: None });
        self.table.set_head(memory, list, Some(block.pfn));
        self.classes |= 1 << class;
        self.orders[class] |= 1 << order;
        self.idle[class] += block.order.frames();
    }

    /// Takes a block out of its free list.
    pub(super) fn remove(&mut self, memory: &impl GuestMemory, pfn: Pfn) -> Option<Block> {
        let Entry::Free { block, next, previous } = self.entry(memory, pfn) else { return None };
        let (class, order) = place_of(&block);
        if let Some(pfn) = next
            && let Entry::Free { block, next, .. } = self.entry(memory, pfn)
        {
            self.set(memory, pfn, Entry::Free { block, next, previous });
        }
        match previous {
            Some(pfn) => {
                if let Entry::Free { block, previous, .. } = self.entry(memory, pfn) {
                    self.set(memory, pfn, Entry::Free { block, next, previous });
                }
            }
            None => {
                self.table.set_head(memory, list(class, order), next);
                if next.is_none() {
                    self.orders[class] &= !(1 << order);
                }
                if self.orders[class] == 0 {
                    self.classes &= !(1 << class);
                }
            }
        }
        self.set(memory, pfn, Entry::Empty);
        self.idle[class] -= block.order.frames();
        Some(block)
    }

    pub(super) fn entry(&mut self, memory: &impl GuestMemory, pfn: Pfn) -> Entry {
        self.steps += 1;
        self.table.entry(memory, pfn)
    }

    pub(super) fn set(&mut self, memory: &impl GuestMemory, pfn: Pfn, entry: Entry) {
        self.steps += 1;
        self.table.set(memory, pfn, entry);
    }
}

pub(super) const fn list(class: usize, order: usize) -> usize {
    class * ORDERS + order
}

const fn place_of(block: &Block) -> (usize, usize) {
    (class_of(block.gfn, block.order.frames()), block.order.get() as usize)
}
