//! Memory for records of the library: frames of the kernel that no device reaches.
//!
//! All unsafe code of the pools and of the devices' records is here, but for the accesses to their memory.

use core::alloc::Layout;
use core::iter::successors;
use core::marker::PhantomData;
use core::mem::{forget, replace};
use core::ptr::{self, NonNull, null_mut};
use core::slice;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::addr::PAGE_SIZE;
use crate::frames::FrameRun;
use crate::paging::GuestMemory;
use crate::platform::Platform;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Once};

/// A chain of blocks of frames, with slots for records and words beside each record.
///
/// Nothing is locked. Blocks and records are added through a shared reference, each published with
/// one store after it is complete. They are removed through an exclusive reference only.
pub struct RecordChain<'a, P: Platform, T> {
    platform: &'a P,
    /// The block that was added last, or null.
    first: AtomicPtr<Block<T>>,
    /// The block in which the last search ended, or null.
    recent: AtomicPtr<Block<T>>,
    /// Words beside each record.
    words: usize,
    /// The chain owns slots: it can be sent and shared as far as they can.
    slots: PhantomData<Slot<T>>,
}

/// The head of a run of frames. Its slots and their words follow in the same frames.
pub struct Block<T> {
    run: FrameRun,
    /// The block that was added before, or null.
    next: AtomicPtr<Self>,
    slots: NonNull<Slot<T>>,
    len: usize,
    words: NonNull<AtomicU64>,
    words_per_slot: usize,
}

/// Room for one record.
struct Slot<T> {
    claimed: AtomicBool,
    record: Once<T>,
}

/// A record and the words beside it.
pub struct Entry<'c, T> {
    pub record: &'c T,
    pub words: &'c [AtomicU64],
}

/// A slot without a record that no other caller can fill. Dropping it makes it available again.
pub struct ClaimedSlot<'c, T> {
    block: &'c Block<T>,
    index: usize,
}

/// What becomes of a record in [`RecordChain::settle`].
pub enum Settlement {
    /// It stays.
    Keep,
    /// It is dropped.
    Drop,
    /// It is forgotten: what it owns is never used again.
    Forget,
}

/// Where the parts of a block lie in its frames.
struct BlockLayout {
    frames: u64,
    slots: usize,
    slots_at: usize,
    words_at: usize,
}

impl BlockLayout {
    /// Returns the layout with as many slots as the frames of the first one have room for.
    fn new<T>(words_per_slot: usize) -> Option<Self> {
        const { assert!(align_of::<Slot<T>>() <= PAGE_SIZE && align_of::<Block<T>>() <= PAGE_SIZE) };
        let with = |slots: usize| {
            let words = Layout::array::<AtomicU64>(slots.checked_mul(words_per_slot)?).ok()?;
            let (layout, slots_at) =
                Layout::new::<Block<T>>().extend(Layout::array::<Slot<T>>(slots).ok()?).ok()?;
            let (layout, words_at) = layout.extend(words).ok()?;
            let frames = layout.size().div_ceil(PAGE_SIZE) as u64;
            Some(Self { frames, slots, slots_at, words_at })
        };
        let frames = with(1)?.frames;
        (1..).map_while(with).take_while(|layout| layout.frames == frames).last()
    }
}

impl<T> Block<T> {
    fn slots(&self) -> &[Slot<T>] {
        // SAFETY: `RecordChain::extend` wrote `len` slots at this address before it published the
        // block. They stay until the block is removed, which no reference to the block outlives.
        unsafe { slice::from_raw_parts(self.slots.as_ptr(), self.len) }
    }

    fn words(&self, slot: usize) -> &[AtomicU64] {
        assert!(slot < self.len, "slot {slot} of {}", self.len);
        let first = self.words.as_ptr().wrapping_add(slot * self.words_per_slot);
        // SAFETY: `RecordChain::extend` wrote `words_per_slot` words for each of `len` slots before
        // it published the block. They stay until the block is removed, which no reference to the
        // block outlives.
        unsafe { slice::from_raw_parts(first, self.words_per_slot) }
    }

    fn entry(&self, slot: usize) -> Option<Entry<'_, T>> {
        let record = self.slots()[slot].record.get()?;
        Some(Entry { record, words: self.words(slot) })
    }

    /// Returns the records of the block.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_, T>> {
        (0..self.len).filter_map(|slot| self.entry(slot))
    }

    /// Claims a slot for a new record.
    pub fn claim(&self) -> Option<ClaimedSlot<'_, T>> {
        let claim =
            |slot: &Slot<T>| !slot.claimed.load(Relaxed) && !slot.claimed.swap(true, Acquire);
        let index = self.slots().iter().position(claim)?;
        Some(ClaimedSlot { block: self, index })
    }
}

impl<'c, T> ClaimedSlot<'c, T> {
    /// Puts a record into the slot. Another vCPU sees it when it is complete.
    pub fn fill(self, record: T) -> &'c T {
        let block = self.block;
        // Only the holder of the claim fills the slot, so this waits for no other vCPU.
        let record = block.slots()[self.index].record.call_once(|| record);
        forget(self);
        record
    }
}

impl<T> Drop for ClaimedSlot<'_, T> {
    fn drop(&mut self) {
        self.block.slots()[self.index].claimed.store(false, Release);
    }
}

/// Returns the block that a link of a chain names.
fn linked<T>(link: &AtomicPtr<Block<T>>) -> Option<&Block<T>> {
    // SAFETY: a link is null or names a block that `extend` had completed when it published the
    // link with `Release`. A block is removed only by `settle`, which has the chain for itself,
    // while the reference returned here borrows the chain.
    unsafe { link.load(Acquire).as_ref() }
}

impl<'a, P: Platform, T> RecordChain<'a, P, T> {
    /// Returns a chain without a block, for records with `words` words each.
    pub fn new(platform: &'a P, words: usize) -> Self {
        let (first, recent) = (AtomicPtr::new(null_mut()), AtomicPtr::new(null_mut()));
        Self { platform, first, recent, words, slots: PhantomData }
    }

    fn blocks(&self) -> impl Iterator<Item = &Block<T>> {
        successors(linked(&self.first), |block| linked(&block.next))
    }

    /// Returns every block once, beginning with the one in which the last search ended.
    pub fn blocks_from_recent(&self) -> impl Iterator<Item = &Block<T>> {
        let recent = linked(&self.recent);
        let to_the_end = successors(recent, |block| linked(&block.next));
        to_the_end.chain(
            self.blocks().take_while(move |block| !recent.is_some_and(|it| ptr::eq(it, *block))),
        )
    }

    /// Notes that a search ended in `block`, which is a block of this chain.
    pub fn ended_in(&self, block: &Block<T>) {
        let found = ptr::from_ref(block).cast_mut();
        if self.recent.load(Relaxed) != found {
            self.recent.store(found, Release);
        }
    }

    /// Returns every record.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_, T>> {
        self.blocks().flat_map(Block::entries)
    }

    /// Returns the number of frames that the chain has taken from the kernel.
    pub fn frames(&self) -> u64 {
        self.blocks().map(|block| block.run.frames()).sum()
    }

    /// Claims a slot for a new record. Takes frames from the kernel if every slot is in use.
    ///
    /// # Errors
    /// The number of frames that the kernel does not have.
    pub fn claim(&self) -> Result<ClaimedSlot<'_, T>, u64> {
        loop {
            if let Some(slot) = self.blocks().find_map(Block::claim) {
                return Ok(slot);
            }
            self.extend()?;
        }
    }

    /// Adds a block to the front of the chain.
    ///
    /// # Errors
    /// The number of frames that the kernel does not have.
    pub fn extend(&self) -> Result<(), u64> {
        let layout = BlockLayout::new::<T>(self.words).ok_or(u64::MAX)?;
        let run = self.platform.take(layout.frames, 1).ok_or(layout.frames)?;
        let base = NonNull::new(self.platform.memory().pointer(run.first()));
        let base = base.expect("the linear mapping does not map page 0");
        let block = base.cast::<Block<T>>().as_ptr();
        // SAFETY: the run has `layout.frames` frames, mapped side by side from `base` on, readable
        // and writable (`GuestMemory::pointer`). They belong to this chain alone until it gives
        // them back ([M1](crate::rules#M1)), and no Rust object lies in them (`Platform::take`).
        // `BlockLayout::new` keeps the head, the slots and the words apart, aligned and within.
        let next = unsafe {
            let slots = base.add(layout.slots_at).cast::<Slot<T>>();
            let words = base.add(layout.words_at).cast::<AtomicU64>();
            (0..layout.slots).for_each(|index| slots.add(index).write(Slot::new()));
            let all = layout.slots * self.words;
            (0..all).for_each(|index| words.add(index).write(AtomicU64::new(0)));
            block.write(Block {
                run,
                next: AtomicPtr::new(null_mut()),
                slots,
                len: layout.slots,
                words,
                words_per_slot: self.words,
            });
            &(*block).next
        };
        let mut first = self.first.load(Acquire);
        loop {
            next.store(first, Relaxed);
            match self.first.compare_exchange(first, block, AcqRel, Acquire) {
                Ok(_) => return Ok(()),
                Err(other) => first = other,
            }
        }
    }

    /// Asks `decide` about every record, and returns the frames of blocks without a record.
    pub fn settle(&mut self, mut decide: impl FnMut(Entry<'_, T>) -> Settlement) {
        self.recent.store(null_mut(), Relaxed);
        // If `decide` panics, the chain is empty and the blocks are leaked.
        let mut at = self.first.swap(null_mut(), Acquire);
        let mut kept = null_mut();
        // SAFETY: `at` is null or names a block of this chain (see `linked`). `&mut self` rules out
        // any other reference to it.
        while let Some(block) = unsafe { at.as_ref() } {
            let next = block.next.load(Acquire);
            let mut records = 0;
            for index in 0..block.len {
                let settlement = match block.entry(index) {
                    Some(entry) => decide(entry),
                    None => continue,
                };
                let forgotten = match settlement {
                    Settlement::Keep => {
                        records += 1;
                        continue;
                    }
                    Settlement::Drop => false,
                    Settlement::Forget => true,
                };
                // SAFETY: the slot was written by `extend`, and no reference to it exists: the entry
                // is gone, and `&mut self` rules out any other.
                let slot = unsafe { replace(block.slots.add(index).as_mut(), Slot::new()) };
                block.words(index).iter().for_each(|word| word.store(0, Relaxed));
                if forgotten {
                    forget(slot);
                }
            }
            if records > 0 {
                block.next.store(kept, Relaxed);
                kept = at;
            } else {
                // SAFETY: the block was written by `extend` and is in no chain any more, so the value
                // moves out of it once. Its slots have no record to drop.
                self.platform.give(unsafe { at.read() }.run);
            }
            at = next;
        }
        self.first.store(kept, Release);
    }
}

impl<T> Slot<T> {
    fn new() -> Self {
        Self { claimed: AtomicBool::new(false), record: Once::new() }
    }
}

impl<P: Platform, T> Drop for RecordChain<'_, P, T> {
    fn drop(&mut self) {
        self.settle(|_| Settlement::Drop);
    }
}
