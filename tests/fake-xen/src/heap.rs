//! Xen's heap: free frames in blocks of powers of two, merged with their buddies.
//!
//! As in Xen, an extent is aligned to its size. It comes from the highest addresses below the caller's
//! limit, so that low memory is spared.

use std::collections::BTreeSet;

/// The highest order of a block (`MAX_ORDER` in Xen).
pub(crate) const MAX_ORDER: u32 = 20;

/// Free blocks by order.
#[derive(Debug)]
pub(crate) struct Heap {
    blocks: [BTreeSet<u64>; MAX_ORDER as usize + 1],
    free: u64,
}

impl Heap {
    pub fn new() -> Self {
        Self { blocks: [const { BTreeSet::new() }; MAX_ORDER as usize + 1], free: 0 }
    }

    /// How many frames are free.
    pub const fn free_frames(&self) -> u64 {
        self.free
    }

    /// The highest order of which there is a free block.
    pub fn highest_order(&self) -> Option<u32> {
        (0..=MAX_ORDER).rev().find(|order| !self.blocks[*order as usize].is_empty())
    }

    /// Every free frame.
    pub fn frames(&self) -> impl Iterator<Item = u64> {
        self.blocks.iter().enumerate().flat_map(|(order, blocks)| {
            blocks.iter().flat_map(move |first| *first..*first + (1 << order))
        })
    }

    /// Takes an extent of `order` that lies wholly below frame `limit` and does not start at
    /// `avoid`.
    pub fn take(&mut self, order: u32, limit: u64, avoid: u64) -> Option<u64> {
        let last_start = limit.checked_sub(1 << order)?;
        // A zone is all frames whose numbers have their highest bit in common; no block crosses
        // into another, since frame 0 is never free.
        for zone in (0..=last_start.checked_ilog2()?).rev() {
            let starts = 1 << zone..=last_start.min((2 << zone) - 1);
            for from in order..=MAX_ORDER {
                // Two, for where the first has no other start than the avoided one.
                let blocks = self.blocks[from as usize].range(starts.clone());
                let candidates: Vec<u64> = blocks.rev().take(2).copied().collect();
                for block in candidates {
                    if let Some(start) = fitting(block, from, order, last_start, avoid) {
                        self.split(block, from, start, order);
                        self.free -= 1 << order;
                        return Some(start);
                    }
                }
            }
        }
        None
    }

    /// Takes the extent at `start` out of a free block. The remaining frames stay free.
    fn split(&mut self, mut block: u64, from: u32, start: u64, order: u32) {
        self.blocks[from as usize].remove(&block);
        for size in (order..from).rev() {
            let upper = block + (1 << size);
            let (kept, given) = if start >= upper { (upper, block) } else { (block, upper) };
            self.blocks[size as usize].insert(given);
            block = kept;
        }
    }

    /// Takes one certain frame, if it is free.
    pub fn take_frame(&mut self, mfn: u64) -> bool {
        for order in 0..=MAX_ORDER {
            let first = mfn >> order << order;
            if !self.blocks[order as usize].remove(&first) {
                continue;
            }
            for size in (0..order).rev() {
                self.blocks[size as usize].insert((mfn >> size ^ 1) << size);
            }
            self.free -= 1;
            return true;
        }
        false
    }

    /// Frees a block and merges it with its buddies.
    pub fn give(&mut self, first: u64, order: u32) {
        self.free += 1 << order;
        let (mut first, mut order) = (first, order);
        while order < MAX_ORDER && self.blocks[order as usize].remove(&(first ^ 1 << order)) {
            first &= !(1 << order);
            order += 1;
        }
        let fresh = self.blocks[order as usize].insert(first);
        assert!(fresh, "frame {first:#x} was freed twice");
    }
}

/// The highest start of an extent of `order` in a block of order `from`, up to `last_start` and not
/// at `avoid`.
fn fitting(block: u64, from: u32, order: u32, last_start: u64, avoid: u64) -> Option<u64> {
    let mut start = block;
    for half in (order..from).rev() {
        if start + (1 << half) <= last_start {
            start += 1 << half;
        }
    }
    if start != avoid {
        return Some(start);
    }
    start.checked_sub(1 << order).filter(|below| *below >= block)
}
