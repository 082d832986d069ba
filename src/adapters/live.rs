//! What is lent to a driver that remembers nothing but a device address.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::MovedBuffer;
use super::memory::Memory;
use crate::addr::{DmaAddr, PseudoPhysAddr};
use crate::dma::Told;
use crate::p2m::P2m;
use crate::platform::Platform;
use crate::sync::{AtomicU8, AtomicU64, Mutex, const_fn, fence};

/// What memory was lent for; only the same purpose takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The driver asked for it.
    Allocated = 2,
    /// It stands in for memory of the driver's.
    Bounce = 3,
}

const FREE: u8 = 0;
/// Someone is filling or emptying the slot.
const BUSY: u8 = 1;

/// Room to remember one buffer that a driver has.
///
/// The embedder makes as many as there can be buffers at a time, allocated and bounced together: a
/// `static` of `[const { LiveSlot::new() }; 256]`, say. Each takes about half a KiB.
///
/// Nobody waits for anybody: whoever moves the state to busy is alone with the slot, and a slot that
/// someone else is busy with is passed by.
pub struct LiveSlot<P: Platform + 'static> {
    state: AtomicU8,
    /// How often something was put into it: who reads the next three without entering the slot
    /// finds out by this whether they belong together.
    fills: AtomicU64,
    /// What the device was told, meaningful while the state is a purpose.
    dma: AtomicU64,
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
                state: AtomicU8::new(FREE),
                fills: AtomicU64::new(0),
                dma: AtomicU64::new(0),
                at: AtomicU64::new(0),
                len: AtomicU64::new(0),
                memory: Mutex::new(None),
            }
        }
    }

    fn is_free(&self) -> bool {
        self.state.load(Relaxed) == FREE
    }

    fn purpose(&self) -> Option<Purpose> {
        let state = self.state.load(Acquire);
        [Purpose::Allocated, Purpose::Bounce].into_iter().find(|purpose| *purpose as u8 == state)
    }

    fn told(&self) -> Told {
        let number = |figure: &AtomicU64| figure.load(Relaxed);
        let (at, dma) = (PseudoPhysAddr::new(number(&self.at)), DmaAddr::new(number(&self.dma)));
        Told { at, dma, len: number(&self.len) }
    }

    fn enter(&self, from: u8) -> bool {
        self.state.compare_exchange(from, BUSY, AcqRel, Relaxed).is_ok()
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
        self.slot.fills.fetch_add(1, Relaxed);
        // Whoever sees one of the figures below sees the count, too.
        fence(Release);
        self.slot.dma.store(told.dma.get(), Relaxed);
        self.slot.at.store(told.at.get(), Relaxed);
        self.slot.len.store(told.len, Relaxed);
        let before = self.slot.memory.lock().replace(memory);
        debug_assert!(before.is_none(), "a slot that is claimed is empty");
        self.slot.state.store(purpose as u8, Release);
        core::mem::forget(self);
    }
}

impl<P: Platform> Drop for Claim<'_, P> {
    fn drop(&mut self) {
        self.slot.state.store(FREE, Release);
    }
}

/// Takes back what was lent for a purpose at an address.
pub fn take<P: Platform>(
    slots: &[LiveSlot<P>],
    purpose: Purpose,
    dma: DmaAddr,
) -> Option<Memory<P>> {
    let holds = |slot: &LiveSlot<P>| {
        slot.state.load(Acquire) == purpose as u8 && slot.dma.load(Relaxed) == dma.get()
    };
    for slot in slots.iter().filter(|slot| holds(slot)) {
        if !slot.enter(purpose as u8) {
            continue;
        }
        if slot.dma.load(Relaxed) == dma.get() {
            let memory = slot.memory.lock().take();
            slot.state.store(FREE, Release);
            return memory;
        }
        // It was emptied and filled anew since it was looked at.
        slot.state.store(purpose as u8, Release);
    }
    None
}

/// What a slot holds, if its machine frames are not what they were. Does not enter the slot, for
/// whoever wants to take its memory at the same time passes by one that is busy.
pub fn moved<P: Platform>(slot: &LiveSlot<P>, p2m: &P2m<'_>) -> Option<MovedBuffer> {
    loop {
        let fills = slot.fills.load(Acquire);
        let purpose = slot.purpose()?;
        let told = slot.told();
        let moved = told.check_in_place(p2m).err();
        fence(Acquire);
        if slot.purpose() == Some(purpose) && slot.fills.load(Relaxed) == fills {
            let Told { dma, len, .. } = told;
            return moved.map(|moved| MovedBuffer { dma, len, purpose, moved });
        }
        // It was emptied, and perhaps filled anew, since it was looked at.
    }
}

/// How many slots are not free.
pub fn count<P: Platform>(slots: &[LiveSlot<P>]) -> usize {
    slots.iter().filter(|slot| !slot.is_free()).count()
}
