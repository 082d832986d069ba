//! Takes memory back into the reserve, and gives idle memory to the kernel without a hypercall.
//!
//! Released buffers stay in the reserve. [`trim`](super::Allocator::trim) returns idle memory to Xen,
//! [`reclaim`](super::Allocator::reclaim) makes it free memory of the kernel.

use core::sync::atomic::Ordering::Relaxed;

use super::Allocator;
use super::class::LentFrames;
use super::device::live::LiveEntry;
use super::moved::{DeviceRange, Moved};
use super::reserve::{Block, CLASSES, Extent, Origin, class_of};
use crate::addr::{DmaAddr, Gfn, PAGE_SIZE, Pfn};
use crate::frames::FrameRun;
use crate::platform::Platform;

impl<P: Platform> Allocator<P> {
    /// Takes a buffer's extent back into the reserve. Makes no hypercall.
    pub(super) fn release(&self, extent: Extent) {
        let memory = self.platform().memory();
        let class = class_of(extent.gfn, extent.frames);
        let idle = self.reserve.with(|blocks| {
            blocks.release(memory, extent);
            blocks.idle(class)
        });
        if idle > self.watermarks.high() {
            self.watermarks.crossed.fetch_or(1 << class, Relaxed);
        }
    }

    /// Takes the memory of a buffer back into the reserve that a device recorded. Makes no hypercall.
    pub(super) fn release_recorded(&self, entry: &LiveEntry) {
        let DeviceRange { at, dma, .. } = entry.range;
        let (pfn, frames) = (at.frame(), entry.frames());
        match entry.origin {
            Some(origin) => {
                let gfn = Gfn::new(dma.get() / PAGE_SIZE as u64);
                self.release(Extent { pfn, gfn, frames, origin });
            }
            None => self.release_pieces(pfn, frames),
        }
    }

    /// Returns the first byte of a buffer of several pieces that is not at its device address. Takes the
    /// lock of the reserve for a moment per piece.
    pub(super) fn find_moved_piece(&self, buffer: &DeviceRange) -> Option<Moved> {
        let (memory, p2m) = (self.platform().memory(), self.platform().p2m());
        let mut offset = 0;
        while offset < buffer.len {
            let at = buffer.at.checked_add(offset)?;
            // The buffer is being freed if its piece is gone.
            let piece = self.reserve.with(|blocks| blocks.piece(memory, at.frame()))?;
            let within = at.offset() as u64;
            let dma = DmaAddr::of(piece.gfn).checked_add(within)?;
            let len = (piece.frames * PAGE_SIZE as u64 - within).min(buffer.len - offset);
            let range = DeviceRange { at, dma, len };
            if let Err(moved) = range.check_in_place(p2m) {
                return Some(Moved { offset: offset + moved.offset, ..moved });
            }
            offset += len;
        }
        None
    }

    /// Takes the pieces of a buffer back into the reserve. Makes no hypercall.
    pub(super) fn release_pieces(&self, first: Pfn, frames: u64) {
        self.take_pieces(first, frames, |piece| self.release(piece));
    }

    /// Forgets the recorded pieces of a run, and calls `visit` with each.
    pub(super) fn take_pieces(&self, first: Pfn, frames: u64, mut visit: impl FnMut(Extent)) {
        let memory = self.platform().memory();
        let (mut at, end) = (first, first.add(frames));
        while at < end {
            let piece = self.reserve.with(|blocks| blocks.take_piece(memory, at));
            let Some(piece) = piece else { return };
            at = at.add(piece.frames);
            visit(piece);
        }
    }

    /// Frees idle memory without a hypercall: at least `frames` frames, if there are as many. Returns how
    /// many, with those that held the reserve's records.
    ///
    /// For the place where the kernel's frame allocator fails, also where nothing may sleep. Must not be
    /// called under the lock of the frame allocator: it calls [`Platform::give`]. An interrupt handler may
    /// call it if that lock and the lock of the reserve mask interrupts. Scarce memory of Xen's is
    /// lent to the kernel last, and [`trim`](Self::trim) returns it once it is free.
    pub fn reclaim(&self, frames: u64) -> u64 {
        self.reclaim_of(u64::MAX, frames)
    }

    /// Frees the idle memory of some classes, a bit for each, as [`reclaim`](Self::reclaim) does.
    pub(super) fn reclaim_of(&self, classes: u64, frames: u64) -> u64 {
        let memory = self.platform().memory();
        let mut freed = 0;
        self.merge_recent();
        self.backoff.reset();
        for scarce in [false, true] {
            let is_chosen = |class: &usize| {
                LentFrames::is_scarce(*class) == scarce && classes >> class & 1 == 1
            };
            for class in (0..CLASSES).rev().filter(is_chosen) {
                while freed < frames {
                    let wanted = frames - freed;
                    let block = self.reserve.with(|blocks| {
                        let block = blocks.take_sufficient(memory, class, wanted);
                        block.or_else(|| blocks.take_smallest(memory, class))
                    });
                    let Some(block) = block else { break };
                    freed += block.order.frames();
                    if block.origin == Origin::Exchanged {
                        self.lent.lend(class, block.order.frames());
                    }
                    self.free(block);
                }
            }
        }
        freed + self.reserve.remove_pages(self.platform())
    }

    /// Merges what was released last, which can span classes, before a walk through the classes.
    pub(super) fn merge_recent(&self) {
        let memory = self.platform().memory();
        self.reserve.with(|blocks| blocks.flush_recent(memory));
    }

    /// Makes a block free memory of the kernel.
    pub(super) fn free(&self, block: Block) {
        let run = taken(&block);
        if block.dirty { self.give_covered_zeroed(run) } else { self.give_covered(run) }
    }

    /// Counts the frames of a run that Xen handed out for frames of a class as lent to the kernel: those that
    /// are lower, and as many others as the guest has gained. Returns true if a frame is lower.
    pub(super) fn lend_offer(&self, class: usize, first: Pfn, frames: u64) -> bool {
        let mut is_lower = false;
        for (found, frames) in self.scarce_frames(first, frames).by_class() {
            if found < class {
                self.lent.lend(found, frames);
                is_lower = true;
            } else {
                self.lend_gained(found, frames);
            }
        }
        is_lower
    }

    /// Counts at most `frames` frames of a class as lent to the kernel: what the guest has gained by its
    /// exchanges, and what is not lent already.
    pub(super) fn lend_gained(&self, class: usize, frames: u64) {
        let gained = self.counters.gained_up_to(class);
        if gained > 0 {
            self.lent.lend(class, gained.saturating_sub(self.lent.up_to(class)).min(frames));
        }
    }

    /// Returns true if all frames are where the reserve says. After a restore they may not be.
    pub(super) fn is_in_place(&self, extent: &Extent) -> bool {
        let p2m = self.platform().p2m();
        p2m.gfn(extent.pfn) == Some(extent.gfn)
            && p2m.last_piece(extent.pfn, extent.frames) == extent.pfn
    }

    /// Frees all idle blocks. For a domain that was restored: other machine frames back them
    /// ([C75](crate::conformance#C75)), so what the reserve knows of them is wrong.
    pub(super) fn dissolve_moved(&self) {
        let memory = self.platform().memory();
        self.merge_recent();
        for class in 0..CLASSES {
            while let Some(block) = self.reserve.with(|blocks| blocks.take_smallest(memory, class))
            {
                self.free(block);
            }
        }
        self.growth.reset();
        self.backoff.reset();
        self.lent.forget();
        self.counters.forget_low();
    }
}

/// Returns the frames of a block that was taken out of the reserve.
pub(super) fn taken(block: &Block) -> FrameRun {
    // SAFETY: the reserve owned the frames, and has forgotten the block ([M1](crate::rules#M1)).
    unsafe { FrameRun::new(block.pfn, block.order.frames()) }
}

impl<P: Platform> Drop for Allocator<P> {
    /// Idle memory becomes free memory of the kernel. Makes no hypercall. Call
    /// [`trim`](Self::trim) before, to return Xen's memory to Xen.
    fn drop(&mut self) {
        self.reclaim(u64::MAX);
    }
}
