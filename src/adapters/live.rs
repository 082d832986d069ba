//! What is lent to a driver that remembers nothing but addresses.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::lent::Memory;
use super::moved::{MovedBuffer, Purpose};
use crate::addr::{DmaAddr, PseudoPhysAddr};
use crate::dma::Told;
use crate::p2m::P2m;
use crate::platform::Platform;
use crate::sync::{AtomicU64, Mutex, const_fn, fence};

/// How a driver names memory when it gives it back. Both addresses must match.
///
/// A device address alone does not identify memory: after a save and restore an old address can equal
/// a new one, because other machine frames back the guest. An address of the processor stays unique as
/// long as the memory there is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    cpu: u64,
    dma: DmaAddr,
}

impl Key {
    /// Memory that the driver knows at `cpu` and the device at `dma`.
    pub fn new(cpu: NonNull<u8>, dma: DmaAddr) -> Self {
        Self { cpu: cpu.addr().get() as u64, dma }
    }

    /// The address that the driver has for the device.
    pub const fn dma(&self) -> DmaAddr {
        self.dma
    }
}

/// The word of a slot: its state in the low two bits, above them how often the slot was filled. So no
/// two fills have the same word, and a compare-and-swap from a word that was read succeeds only if the
/// slot still holds what it held then.
const STATE: u64 = 3;
/// Nothing is in the slot. The states of a slot that holds memory are those of [`Purpose`].
const FREE: u64 = 0;
/// Someone is filling or emptying the slot.
const BUSY: u64 = 1;
/// One fill more.
const FILL: u64 = STATE + 1;

/// The word with another state.
const fn with_state(word: u64, state: u64) -> u64 {
    word & !STATE | state
}

/// What a word says the memory was lent for; `None` if the slot holds none.
fn purpose(word: u64) -> Option<Purpose> {
    [Purpose::Allocated, Purpose::Bounce]
        .into_iter()
        .find(|purpose| *purpose as u64 == word & STATE)
}

/// Room to remember one buffer that a driver has.
///
/// The embedder makes as many as there can be buffers at a time, allocated and bounced together: a
/// `static` of `[const { LiveSlot::new() }; 256]`, say. Each takes about half a KiB.
///
/// No call waits for another: whoever moves the word to busy is alone with the slot, and others pass by
/// a slot that is busy.
pub struct LiveSlot<P: Platform + 'static> {
    word: AtomicU64,
    /// What is lent, meaningful while the word says that something is. They are written while the slot
    /// is busy, and a reader who sees the same word before and after has read one fill.
    cpu: AtomicU64,
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
                word: AtomicU64::new(FREE),
                cpu: AtomicU64::new(0),
                dma: AtomicU64::new(0),
                at: AtomicU64::new(0),
                len: AtomicU64::new(0),
                memory: Mutex::new(None),
            }
        }
    }

    fn is_free(&self) -> bool {
        self.word.load(Relaxed) & STATE == FREE
    }

    /// Makes a slot busy that still has the word `from`.
    fn enter(&self, from: u64) -> bool {
        let busy = with_state(from, BUSY);
        self.word.compare_exchange(from, busy, AcqRel, Relaxed).is_ok()
    }

    fn key(&self) -> Key {
        Key { cpu: self.cpu.load(Relaxed), dma: DmaAddr::new(self.dma.load(Relaxed)) }
    }

    fn told(&self) -> Told {
        Told {
            at: PseudoPhysAddr::new(self.at.load(Relaxed)),
            dma: DmaAddr::new(self.dma.load(Relaxed)),
            len: self.len.load(Relaxed),
        }
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
    /// The word of the slot before it was claimed.
    free: u64,
}

impl<P: Platform> Claim<'_, P> {
    /// Claims a free slot.
    pub fn any(slots: &[LiveSlot<P>]) -> Option<Claim<'_, P>> {
        slots.iter().find_map(|slot| {
            let free = slot.word.load(Relaxed);
            (free & STATE == FREE && slot.enter(free)).then(|| Claim { slot, free })
        })
    }

    /// Remembers the memory, which the driver knows at `cpu`. Returns the key to it.
    pub fn keep(self, purpose: Purpose, cpu: NonNull<u8>, memory: Memory<P>) -> Key {
        let (slot, told) = (self.slot, memory.told());
        let key = Key::new(cpu, told.dma);
        // A reader who sees one of the values below sees the busy word, too, behind its own fence.
        fence(Release);
        slot.cpu.store(key.cpu, Relaxed);
        slot.dma.store(key.dma.get(), Relaxed);
        slot.at.store(told.at.get(), Relaxed);
        slot.len.store(told.len, Relaxed);
        let before = slot.memory.lock().replace(memory);
        debug_assert!(before.is_none(), "a slot that is claimed is empty");
        slot.word.store(with_state(self.free.wrapping_add(FILL), purpose as u64), Release);
        core::mem::forget(self);
        key
    }
}

impl<P: Platform> Drop for Claim<'_, P> {
    fn drop(&mut self) {
        self.slot.word.store(self.free, Release);
    }
}

/// Takes back what was lent for a purpose by this key.
///
/// Two slots can have one key only after a restore: a driver never gave back the memory of the first.
/// The second is where the device was told, the first is not, so memory that is in place comes first.
pub fn take<P: Platform>(
    slots: &[LiveSlot<P>],
    lent_for: Purpose,
    key: Key,
    p2m: &P2m<'_>,
) -> Option<Memory<P>> {
    [true, false].into_iter().find_map(|in_place| {
        slots.iter().find_map(|slot| {
            let word = slot.word.load(Acquire);
            let is_it = purpose(word) == Some(lent_for)
                && slot.key() == key
                && (!in_place || slot.told().check_in_place(p2m).is_ok())
                && slot.enter(word);
            is_it.then(|| slot.empty(word))?
        })
    })
}

impl<P: Platform> LiveSlot<P> {
    /// Empties the slot, which the caller made busy from `word`.
    fn empty(&self, word: u64) -> Option<Memory<P>> {
        let memory = self.memory.lock().take();
        self.word.store(with_state(word, FREE), Release);
        memory
    }
}

/// What a slot holds, if its machine frames are not what they were. Does not enter the slot, for
/// whoever wants to take its memory at the same time passes by one that is busy.
pub fn moved<P: Platform>(slot: &LiveSlot<P>, p2m: &P2m<'_>) -> Option<MovedBuffer> {
    loop {
        let word = slot.word.load(Acquire);
        let purpose = purpose(word)?;
        let (key, told) = (slot.key(), slot.told());
        let moved = told.check_in_place(p2m).err();
        fence(Acquire);
        if slot.word.load(Relaxed) == word {
            return moved.map(|moved| MovedBuffer {
                dma: key.dma(),
                len: told.len,
                purpose,
                moved,
            });
        }
        // It was emptied, and perhaps filled anew, since it was looked at.
    }
}

/// How many slots are not free.
pub fn count<P: Platform>(slots: &[LiveSlot<P>]) -> usize {
    slots.iter().filter(|slot| !slot.is_free()).count()
}
