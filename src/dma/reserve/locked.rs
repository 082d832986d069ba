//! The reserve, guarded by the embedder's lock.

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use super::blocks::Blocks;
use super::frame_table::Extent;
use crate::addr::Pfn;
use crate::paging::GuestMemory;
use crate::platform::Platform;
use crate::sync::AtomicU64;

#[cfg(loom)]
type Locked<P> = (crate::sync::Mutex<Blocks>, core::marker::PhantomData<fn(P)>);
#[cfg(not(loom))]
type Locked<P> = lock_api::Mutex<<P as Platform>::Lock, Blocks>;

/// Frames whose records are made or removed under one hold of the lock.
const COVERED_AT_ONCE: u64 = 2048;

/// The blocks of an allocator.
///
/// Nothing is called under the lock but [`GuestMemory::load`] and [`GuestMemory::store`], which reach the
/// records.
pub(in crate::dma) struct Reserve<P: Platform> {
    blocks: Locked<P>,
    longest_hold: AtomicU64,
}

impl<P: Platform> Reserve<P> {
    pub fn new() -> Self {
        let blocks = Blocks::default();
        #[cfg(loom)]
        let blocks = (crate::sync::Mutex::new(blocks), core::marker::PhantomData);
        #[cfg(not(loom))]
        let blocks = lock_api::Mutex::new(blocks);
        Self { blocks, longest_hold: AtomicU64::new(0) }
    }

    /// Calls `work` with the blocks locked.
    pub fn with<R>(&self, work: impl FnOnce(&mut Blocks) -> R) -> R {
        #[cfg(loom)]
        let mut blocks = self.blocks.0.lock();
        #[cfg(not(loom))]
        let mut blocks = self.blocks.lock();
        let result = work(&mut blocks);
        let steps = u64::from(blocks.take_steps());
        if steps > self.longest_hold.load(Relaxed) {
            self.longest_hold.store(steps, Relaxed);
        }
        result
    }

    /// Returns the most steps that the lock was held for: records read or written.
    pub fn longest_hold(&self) -> u64 {
        self.longest_hold.load(Relaxed)
    }

    /// Makes room for the records of a run. Takes pages for them from the kernel.
    ///
    /// # Errors
    /// The kernel has no page. Then nothing is covered.
    pub fn cover(&self, platform: &P, first: Pfn, frames: u64) -> Result<(), NoPages> {
        for covered in (0..frames).step_by(COVERED_AT_ONCE as usize) {
            let part = (frames - covered).min(COVERED_AT_ONCE);
            if self.cover_part(platform, first.add(covered), part).is_err() {
                self.uncover(platform, first, covered);
                self.remove_pages(platform);
                return Err(NoPages);
            }
        }
        Ok(())
    }

    fn cover_part(&self, platform: &P, first: Pfn, frames: u64) -> Result<(), NoPages> {
        let memory = platform.memory();
        // Another vCPU may use the pages that this one added, so the number is asked for again.
        while let Err(missing) = self.with(|blocks| blocks.cover(memory, first, frames)) {
            if missing > frames + 8 {
                // The frame numbers are above the table's limit. No number of pages helps.
                return Err(NoPages);
            }
            for _ in 0..missing {
                let page = platform.take(1, 1).ok_or(NoPages)?;
                // SAFETY: the page is populated and mapped, and nothing else uses it
                // ([M1](crate::rules#M1)).
                unsafe { memory.zero(page.first(), 1) };
                self.with(|blocks| blocks.add_page(memory, page));
            }
        }
        Ok(())
    }

    /// Removes the room for the records of a run that leaves the reserve.
    pub fn uncover(&self, platform: &P, first: Pfn, frames: u64) {
        let memory = platform.memory();
        for covered in (0..frames).step_by(COVERED_AT_ONCE as usize) {
            let part = (frames - covered).min(COVERED_AT_ONCE);
            self.with(|blocks| blocks.uncover(memory, first.add(covered), part));
        }
    }

    /// Returns the pages that no record needs to the kernel, and their number.
    pub fn remove_pages(&self, platform: &P) -> u64 {
        let memory = platform.memory();
        let mut pages = 0;
        while let Some(page) = self.with(|blocks| blocks.remove_page(memory)) {
            platform.give(page);
            pages += 1;
        }
        pages
    }

    /// Adds an extent whose frames are covered.
    pub fn insert(&self, platform: &P, extent: Extent, dirty: bool) {
        self.with(|blocks| blocks.insert(platform.memory(), extent, dirty));
    }
}

/// The kernel has no page for records.
#[derive(Debug)]
pub(in crate::dma) struct NoPages;

impl<P: Platform> fmt::Debug for Reserve<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reserve")
    }
}
