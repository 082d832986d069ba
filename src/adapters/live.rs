//! The slots, which own the memory of drivers that keep nothing but its addresses.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::driver_memory::DriverMemory;
use super::moved::{MovedBuffer, Purpose};
use crate::addr::{DmaAddr, PseudoPhysAddr};
use crate::dma::DeviceRange;
use crate::p2m::P2m;
use crate::platform::Platform;
use crate::sync::{AtomicU64, Mutex, const_fn, fence};

/// The two addresses by which a driver names memory when it frees it. Both must match.
///
/// A device address alone does not identify memory. After a save and restore other machine frames
/// back the guest, so an old address can equal a new one. The processor's address stays unique as
/// long as the memory is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    cpu: u64,
    dma: DmaAddr,
}

impl Key {
    /// Returns the key of memory with these addresses for driver and device.
    pub fn new(cpu: NonNull<u8>, dma: DmaAddr) -> Self {
        Self { cpu: cpu.addr().get() as u64, dma }
    }

    /// Returns the address for the device.
    pub const fn dma(&self) -> DmaAddr {
        self.dma
    }
}

/// The bits of a slot's word that hold its state. The bits above count how often the slot was filled.
///
/// So no two fills have the same word. A compare-and-swap from a word that was read succeeds only if
/// the slot still holds the same fill.
const STATE: u64 = 3;
/// The state of an empty slot. The states of a slot that holds memory are those of [`Purpose`].
const FREE: u64 = 0;
/// The state of a slot that a thread is filling or emptying.
const BUSY: u64 = 1;
/// One more fill, as an addition to the word.
const FILL: u64 = STATE + 1;

/// Returns the word with another state.
const fn with_state(word: u64, state: u64) -> u64 {
    word & !STATE | state
}

/// Returns the purpose of a slot's memory; `None` if the slot holds no memory.
fn purpose(word: u64) -> Option<Purpose> {
    [Purpose::Allocated, Purpose::Bounce]
        .into_iter()
        .find(|purpose| *purpose as u64 == word & STATE)
}

/// The record of one buffer of a driver.
///
/// The embedder makes one for each buffer that exists at a time, allocated and bounced together. For
/// example a `static` of `[const { LiveSlot::new() }; 256]`. Each takes about half a KiB.
///
/// No call waits for another. The thread that moves the word to busy accesses the slot alone, and other
/// threads skip a busy slot.
pub struct LiveSlot<P: Platform + 'static> {
    word: AtomicU64,
    /// The address for the driver.
    ///
    /// This field and the next three describe the memory while the word has a [`Purpose`]. They are
    /// written while the slot is busy. A reader that sees the same word before and after has read the
    /// values of one fill.
    cpu: AtomicU64,
    dma: AtomicU64,
    at: AtomicU64,
    len: AtomicU64,
    /// Locked only by the thread that made the slot busy, so nothing waits for it.
    memory: Mutex<Option<DriverMemory<P>>>,
}

impl<P: Platform> LiveSlot<P> {
    const_fn! {
        /// Returns a free slot.
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

    /// Makes the slot busy if its word is still `from`. Returns true if it was.
    fn enter(&self, from: u64) -> bool {
        let busy = with_state(from, BUSY);
        self.word.compare_exchange(from, busy, AcqRel, Relaxed).is_ok()
    }

    fn key(&self) -> Key {
        Key { cpu: self.cpu.load(Relaxed), dma: DmaAddr::new(self.dma.load(Relaxed)) }
    }

    fn device_range(&self) -> DeviceRange {
        DeviceRange {
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

/// A slot that was claimed for memory to come. When the claim is dropped, the slot is free again.
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

    /// Stores the memory, which the driver accesses at `cpu`, in the slot. Returns its key.
    pub fn keep(self, purpose: Purpose, cpu: NonNull<u8>, memory: DriverMemory<P>) -> Key {
        let (slot, range) = (self.slot, memory.device_range());
        let key = Key::new(cpu, range.dma);
        // Pairs with the fence in `moved`: a reader that sees one of the values below also sees the
        // busy word after its fence.
        fence(Release);
        slot.cpu.store(key.cpu, Relaxed);
        slot.dma.store(key.dma.get(), Relaxed);
        slot.at.store(range.at.get(), Relaxed);
        slot.len.store(range.len, Relaxed);
        let before = slot.memory.lock().replace(memory);
        debug_assert!(before.is_none(), "the claimed slot holds memory already");
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

/// Takes the memory with this purpose and key out of its slot.
///
/// Two slots have the same key only after a restore, if a driver did not free the memory of the first.
/// The memory of the second slot is at its device address and that of the first is not. So memory that
/// is in place is searched first.
pub fn take<P: Platform>(
    slots: &[LiveSlot<P>],
    wanted: Purpose,
    key: Key,
    p2m: &P2m<'_>,
) -> Option<DriverMemory<P>> {
    [true, false].into_iter().find_map(|in_place| {
        slots.iter().find_map(|slot| {
            let word = slot.word.load(Acquire);
            let entered = purpose(word) == Some(wanted)
                && slot.key() == key
                && (!in_place || slot.device_range().check_in_place(p2m).is_ok())
                && slot.enter(word);
            entered.then(|| slot.empty(word))?
        })
    })
}

impl<P: Platform> LiveSlot<P> {
    /// Empties the slot, which the caller made busy from `word`.
    fn empty(&self, word: u64) -> Option<DriverMemory<P>> {
        let memory = self.memory.lock().take();
        self.word.store(with_state(word, FREE), Release);
        memory
    }
}

/// Returns the buffer in a slot if other machine frames back it now.
///
/// Reads the slot without making it busy. A thread that frees the memory at the same time would skip a
/// busy slot, and not find its memory.
pub fn moved<P: Platform>(slot: &LiveSlot<P>, p2m: &P2m<'_>) -> Option<MovedBuffer> {
    loop {
        let word = slot.word.load(Acquire);
        let purpose = purpose(word)?;
        let (key, range) = (slot.key(), slot.device_range());
        let moved = range.check_in_place(p2m).err();
        fence(Acquire);
        if slot.word.load(Relaxed) == word {
            return moved.map(|moved| MovedBuffer {
                dma: key.dma(),
                len: range.len,
                purpose,
                moved,
            });
        }
        // Another thread emptied the slot, and perhaps filled it again, since the word was read.
    }
}

/// Returns how many slots are not free.
pub fn count<P: Platform>(slots: &[LiveSlot<P>]) -> usize {
    slots.iter().filter(|slot| !slot.is_free()).count()
}
