//! Xen's heap: free frames in blocks of powers of two, merged with their buddies.
//!
//! Like Xen's it serves an extent aligned to its own size, from the highest addresses that the
//! caller's limit allows, so that low memory is spared.

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
        for from in order..=MAX_ORDER {
            // Two, for where the first has no other start than the avoided one.
            let candidates: Vec<u64> =
                self.blocks[from as usize].range(..=last_start).rev().take(2).copied().collect();
            for first in candidates {
                let mut start = first;
                for half in (order..from).rev() {
                    if start + (1 << half) <= last_start {
                        start += 1 << half;
                    }
                }
                if start == avoid {
                    let below = start ^ (1 << order);
                    if from == order || below > start {
                        continue;
                    }
                    start = below;
                }
                self.blocks[from as usize].remove(&first);
                let (mut block, mut size) = (first, from);
                while size > order {
                    size -= 1;
                    let upper = block + (1 << size);
                    let (kept, given) =
                        if start >= upper { (upper, block) } else { (block, upper) };
                    self.blocks[size as usize].insert(given);
                    block = kept;
                }
                self.free -= 1 << order;
                return Some(block);
            }
        }
        None
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

    /// Takes a block back and merges it with its buddies.
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
