//! What is lent to a driver that remembers nothing but a device address.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::MovedBuffer;
use super::lent::Memory;
use crate::addr::{DmaAddr, PseudoPhysAddr};
use crate::dma::Told;
use crate::p2m::P2m;
use crate::platform::Platform;
use crate::sync::{AtomicU64, Mutex, const_fn, fence};

/// What memory was lent for; only the same purpose takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The driver asked for it.
    Allocated = 2,
    /// It stands in for memory of the driver's.
    Bounce = 3,
}

/// A slot in one word: free, busy, or for what it was lent (the bits from [`PURPOSE`] on) and at what
/// address (those below). In one, so that whoever takes it back by its address can't enter the slot
/// when it has come to hold something else, and is not in the way of whom that belongs to.
const FREE: u64 = 0;
/// Someone is filling or emptying the slot.
const BUSY: u64 = 1;
/// No address has so many bits: a machine address has 52 at most.
const PURPOSE: u32 = 62;

/// The word of what is lent; `None` where there can be no such address.
fn lent(purpose: Purpose, dma: DmaAddr) -> Option<u64> {
    (dma.get() >> PURPOSE == 0).then_some((purpose as u64) << PURPOSE | dma.get())
}

/// What a word says is lent.
fn parse(word: u64) -> Option<(Purpose, DmaAddr)> {
    let purposes = [Purpose::Allocated, Purpose::Bounce];
    let purpose = purposes.into_iter().find(|purpose| *purpose as u64 == word >> PURPOSE)?;
    Some((purpose, DmaAddr::new(word & ((1 << PURPOSE) - 1))))
}

/// Room to remember one buffer that a driver has.
///
/// The embedder makes as many as there can be buffers at a time, allocated and bounced together: a
/// `static` of `[const { LiveSlot::new() }; 256]`, say. Each takes about half a KiB.
///
/// Nobody waits for anybody: whoever moves the word to busy is alone with the slot, and a slot that
/// someone else is busy with is passed by.
pub struct LiveSlot<P: Platform + 'static> {
    word: AtomicU64,
    /// How often something was put into it: who reads the word and the next two without entering the
    /// slot finds out by this whether they belong together.
    fills: AtomicU64,
    /// Where and how long what is lent is, meaningful while the word says that something is.
    at: AtomicU64,
    len: AtomicU64,
    /// Held by whoever made the slot busy, so it is always free to be locked.
    memory: Mutex<Option<Memory<P>>>,
}

impl<P: Platform> LiveSlot<P> {
    const_fn! {
        /// A free slot.
        pub const fn new() -> Self {
            Self {
                word: AtomicU64::new(FREE),
                fills: AtomicU64::new(0),
                at: AtomicU64::new(0),
                len: AtomicU64::new(0),
                memory: Mutex::new(None),
            }
        }
    }

    fn is_free(&self) -> bool {
        self.word.load(Relaxed) == FREE
    }

    fn enter(&self, from: u64) -> bool {
        self.word.compare_exchange(from, BUSY, AcqRel, Relaxed).is_ok()
    }
}

impl<P: Platform> Default for LiveSlot<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// A slot that is claimed before there is anything to put into it; dropped, it is free again.
pub struct Claim<'s, P: Platform + 'static> {
    slot: &'s LiveSlot<P>,
}

impl<P: Platform> Claim<'_, P> {
    /// Claims a free slot.
    pub fn any(slots: &[LiveSlot<P>]) -> Option<Claim<'_, P>> {
        slots.iter().find(|slot| slot.is_free() && slot.enter(FREE)).map(|slot| Claim { slot })
    }

    /// Remembers the memory.
    pub fn keep(self, purpose: Purpose, memory: Memory<P>) {
        let told = memory.told();
        let word = lent(purpose, told.dma).expect("a machine address has 52 bits");
        // Whoever sees the new count sees that what was there before is gone.
        self.slot.fills.fetch_add(1, Release);
        // Whoever sees one of the figures below sees the count, too.
        fence(Release);
        self.slot.at.store(told.at.get(), Relaxed);
        self.slot.len.store(told.len, Relaxed);
        let before = self.slot.memory.lock().replace(memory);
        debug_assert!(before.is_none(), "a slot that is claimed is empty");
        self.slot.word.store(word, Release);
        core::mem::forget(self);
    }
}

impl<P: Platform> Drop for Claim<'_, P> {
    fn drop(&mut self) {
        self.slot.word.store(FREE, Release);
    }
}

/// Takes back what was lent for a purpose at an address.
pub fn take<P: Platform>(
    slots: &[LiveSlot<P>],
    purpose: Purpose,
    dma: DmaAddr,
) -> Option<Memory<P>> {
    let word = lent(purpose, dma)?;
    let holds = |slot: &&LiveSlot<P>| slot.word.load(Relaxed) == word && slot.enter(word);
    let slot = slots.iter().find(holds)?;
    let memory = slot.memory.lock().take();
    slot.word.store(FREE, Release);
    memory
}

/// What a slot holds, if its machine frames are not what they were. Does not enter the slot, for
/// whoever wants to take its memory at the same time passes by one that is busy.
pub fn moved<P: Platform>(slot: &LiveSlot<P>, p2m: &P2m<'_>) -> Option<MovedBuffer> {
    loop {
        let fills = slot.fills.load(Acquire);
        let word = slot.word.load(Acquire);
        let (purpose, dma) = parse(word)?;
        let (at, len) = (PseudoPhysAddr::new(slot.at.load(Relaxed)), slot.len.load(Relaxed));
        let moved = Told { at, dma, len }.check_in_place(p2m).err();
        fence(Acquire);
        if slot.word.load(Relaxed) == word && slot.fills.load(Relaxed) == fills {
            return moved.map(|moved| MovedBuffer { dma, len, purpose, moved });
        }
        // It was emptied, and perhaps filled anew, since it was looked at.
    }
}

/// How many slots are not free.
pub fn count<P: Platform>(slots: &[LiveSlot<P>]) -> usize {
    slots.iter().filter(|slot| !slot.is_free()).count()
}
