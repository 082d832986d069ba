//! Buffers of several pieces, and the search for idle memory however it is cut into blocks.

use core::ops::Range;

use super::blocks::{Blocks, CLASSES, list};
use super::frame_table::{Block, Entry, Extent, NextBlock, Origin};
use crate::addr::{Gfn, Order, Pfn};
use crate::dma::plan::Plan;
use crate::dma::segments::Piece;
use crate::paging::GuestMemory;

/// Blocks that may begin a buffer of several pieces, and pieces of such a buffer, that one search visits.
const STARTS: usize = 8;
const PIECES: usize = 64;

/// Records that one step of the search for idle memory reads.
const SLICE: u32 = 512;

/// What a slice of the search for idle memory came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dma) enum IdleSlice {
    /// These frames are free. The search goes on after them.
    Blocks(Range<Pfn>),
    /// No free block begins before this frame. The search goes on there.
    Continue(Pfn),
    /// The table has no other free block.
    End,
}

impl Blocks {
    /// Finds blocks side by side that serve a request as several pieces, from a few starts. Returns the
    /// first frame.
    pub fn find_pieces(&mut self, memory: &impl GuestMemory, plan: &Plan) -> Option<Pfn> {
        self.flush_recent(memory);
        let mut starts = 0;
        let mut classes = self.classes;
        while let Some(class) = classes.checked_ilog2() {
            classes &= !(1 << class);
            let mut orders = self.orders[class as usize];
            while let Some(order) = orders.checked_ilog2() {
                orders &= !(1 << order);
                let mut at = self.table.head(memory, list(class as usize, order as usize));
                while let Some(first) = at {
                    if starts == STARTS {
                        return None;
                    }
                    starts += 1;
                    if plan.is_aligned(first)
                        && self.run_of_blocks(memory, first, plan.frames())
                        && plan.accepts(self.pieces_from(memory, first, plan.frames()))
                    {
                        return Some(first);
                    }
                    let Entry::Free { next, .. } = self.entry(memory, first) else { break };
                    at = next;
                }
            }
        }
        None
    }

    /// Returns true if the classes that the device reaches have as many free frames as a request needs.
    pub fn has_idle(&mut self, memory: &impl GuestMemory, plan: &Plan) -> bool {
        self.flush_recent(memory);
        let classes = (0..CLASSES).filter(|class| plan.classes() >> class & 1 == 1);
        classes.map(|class| self.idle[class]).sum::<u64>() >= plan.frames()
    }

    /// Searches the next slice of the table, from `from` on, for blocks side by side.
    pub fn next_idle(&mut self, memory: &impl GuestMemory, from: Pfn) -> IdleSlice {
        self.flush_recent(memory);
        let (found, entries) = self.table.next_block(memory, from, SLICE);
        self.steps += entries;
        let first = match found {
            NextBlock::Block(first) => first,
            NextBlock::Continue(next) => return IdleSlice::Continue(next),
            NextBlock::End => return IdleSlice::End,
        };
        let mut end = first;
        for _ in 0..SLICE {
            let Entry::Free { block, .. } = self.entry(memory, end) else { break };
            end = end.add(block.order.frames());
        }
        IdleSlice::Blocks(first..end)
    }

    /// Takes free frames from `pfn` on, which `gfn` backs, as a piece of a buffer: at most `frames`, out of
    /// one block. Records the piece.
    pub fn take_part(
        &mut self,
        memory: &impl GuestMemory,
        pfn: Pfn,
        gfn: Gfn,
        frames: u64,
    ) -> Option<Extent> {
        self.flush_recent(memory);
        let block = self.block_with(memory, pfn, gfn)?;
        self.remove(memory, block.pfn);
        let before = pfn.number() - block.pfn.number();
        let frames = frames.min(block.order.frames() - before);
        let piece = self.cut(memory, &block, before, frames);
        self.set_piece(memory, piece);
        Some(piece)
    }

    /// Takes the free block that begins at a frame, if it was adopted.
    ///
    /// # Errors
    /// The number of frames to skip.
    pub fn take_adopted(&mut self, memory: &impl GuestMemory, pfn: Pfn) -> Result<Block, u64> {
        match self.entry(memory, pfn) {
            Entry::Free { block, .. } if block.origin == Origin::Adopted => {
                self.remove(memory, pfn).ok_or(1)
            }
            Entry::Free { block, .. } => Err(block.order.frames()),
            _ => Err(1),
        }
    }

    /// Returns the piece that begins at a frame of a buffer of several.
    pub fn piece(&mut self, memory: &impl GuestMemory, pfn: Pfn) -> Option<Extent> {
        match self.entry(memory, pfn) {
            Entry::Piece(extent) => Some(extent),
            _ => None,
        }
    }

    /// Records a piece of a buffer of several.
    pub fn set_piece(&mut self, memory: &impl GuestMemory, piece: Extent) {
        self.set(memory, piece.pfn, Entry::Piece(piece));
    }

    /// Forgets a piece. Returns it.
    pub fn take_piece(&mut self, memory: &impl GuestMemory, pfn: Pfn) -> Option<Extent> {
        let piece = self.piece(memory, pfn)?;
        self.set(memory, pfn, Entry::Empty);
        Some(piece)
    }

    /// Returns the free block that begins at a frame, or the one that contains it.
    fn block_with(&mut self, memory: &impl GuestMemory, pfn: Pfn, gfn: Gfn) -> Option<Block> {
        if let Entry::Free { block, .. } = self.entry(memory, pfn) {
            return Some(block);
        }
        // A block is aligned in machine addresses, so its order says where it begins.
        Order::MAX.up_to().find_map(|order| {
            let before = gfn.number() & (order.frames() - 1);
            let first = Pfn::new(pfn.number().checked_sub(before)?);
            let Entry::Free { block, .. } = self.entry(memory, first) else { return None };
            (block.order == order && block.gfn.add(before) == gfn).then_some(block)
        })
    }

    /// Returns true if free blocks cover a run without a gap.
    fn run_of_blocks(&mut self, memory: &impl GuestMemory, first: Pfn, frames: u64) -> bool {
        let mut at = first;
        for _ in 0..PIECES {
            let Entry::Free { block, .. } = self.entry(memory, at) else { return false };
            at = at.add(block.order.frames());
            if at.number() - first.number() >= frames {
                return true;
            }
        }
        false
    }

    /// Iterates over the blocks that cover a run, as pieces of a buffer.
    fn pieces_from<'b>(
        &'b self,
        memory: &'b impl GuestMemory,
        first: Pfn,
        frames: u64,
    ) -> impl Iterator<Item = Piece> + 'b {
        let (mut at, end) = (first, first.add(frames));
        core::iter::from_fn(move || {
            let Entry::Free { block, .. } = self.table.entry(memory, at) else { return None };
            if at >= end {
                return None;
            }
            at = at.add(block.order.frames());
            let beyond = at.number().saturating_sub(end.number());
            Some(Piece::of_frames(block.gfn, block.order.frames() - beyond))
        })
    }
}
