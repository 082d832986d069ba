//! What is lent to a driver that remembers nothing but a device address.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::memory::Memory;
use crate::addr::DmaAddr;
use crate::platform::Platform;
use crate::sync::{AtomicU8, AtomicU64, Mutex, const_fn};

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
    /// Meaningful while the state is a purpose.
    dma: AtomicU64,
    /// Held by whoever made the slot busy, so it is always free to be locked.
    memory: Mutex<Option<Memory<P>>>,
}

impl<P: Platform> LiveSlot<P> {
    const_fn! {
        /// A free slot.
        pub const fn new() -> Self {
            Self { state: AtomicU8::new(FREE), dma: AtomicU64::new(0), memory: Mutex::new(None) }
        }
    }

    fn is_free(&self) -> bool {
        self.state.load(Relaxed) == FREE
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
        self.slot.dma.store(memory.dma_addr().get(), Relaxed);
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

/// How many slots are not free.
pub fn count<P: Platform>(slots: &[LiveSlot<P>]) -> usize {
    slots.iter().filter(|slot| !slot.is_free()).count()
}
