//! The records of a device's live buffers.
//!
//! A record is reused. Its word says what the record holds, and counts how often it was filled.

use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::{fmt, slice, str};

use crate::addr::{DmaAddr, PAGE_SIZE, PseudoPhysAddr};
use crate::dma::AllocError;
use crate::dma::constraints::Sleep;
use crate::dma::moved::DeviceRange;
use crate::dma::records::{Block, RecordChain, Settlement};
use crate::dma::reserve::Origin;
use crate::platform::Platform;
use crate::sync::{AtomicPtr, AtomicU64, fence};

/// How the driver holds a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BufferKind {
    /// As a [`CoherentBuffer`](crate::dma::CoherentBuffer).
    Coherent = 2,
    /// By its two addresses alone.
    Raw = 3,
    /// Not at all: it replaces memory of the driver that the device cannot access in place.
    Bounce = 4,
}

/// A live buffer of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveBuffer {
    /// What the driver said it is for; empty if it said nothing.
    pub tag: &'static str,
    /// How the driver holds it.
    pub kind: BufferKind,
    /// Bytes, as asked for.
    pub len: u64,
    /// The address of its first byte for the device.
    ///
    /// It is for bug reports. The driver of a [`CoherentBox`](crate::dma::CoherentBox) gives it to the device
    /// only after [`share`](crate::dma::CoherentBox::share).
    pub dma: DmaAddr,
}

impl fmt::Display for LiveBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, len, dma, .. } = self;
        let tag = if tag.is_empty() { "untagged" } else { tag };
        write!(f, "{tag}: {len} bytes at {dma}")
    }
}

/// What a record holds.
#[derive(Clone, Copy)]
pub(in crate::dma) struct LiveEntry {
    pub tag: &'static str,
    pub kind: BufferKind,
    /// The memory from its first byte on. If it is several pieces, only the first page is at this device
    /// address and the following ones.
    pub range: DeviceRange,
    /// The address by which the driver names the memory, or 0.
    pub cpu: u64,
    /// Where the memory is from if it is one piece. The reserve has the records of several.
    pub origin: Option<Origin>,
}

impl LiveEntry {
    pub const fn buffer(&self) -> LiveBuffer {
        let DeviceRange { dma, len, .. } = self.range;
        LiveBuffer { tag: self.tag, kind: self.kind, len, dma }
    }

    /// Returns the number of frames of the memory. A bounce buffer need not begin at a page.
    pub const fn frames(&self) -> u64 {
        let DeviceRange { at, len, .. } = self.range;
        (at.offset() as u64 + len).div_ceil(PAGE_SIZE as u64)
    }
}

/// The bits of a record's word that hold its state. The bits above count how often the record was filled.
///
/// So no two fills have the same word. A compare-and-swap from a word that was read succeeds only if the
/// record still holds the same fill.
const STATE: u64 = 7;
/// The state of a free record. The states of a record that holds a buffer are those of [`BufferKind`].
const FREE: u64 = 0;
/// The state of a record that a thread is filling or emptying.
const BUSY: u64 = 1;
/// One more fill, as an addition to the word.
const FILL: u64 = STATE + 1;

/// Returns the word with another state.
const fn with_state(word: u64, state: u64) -> u64 {
    word & !STATE | state
}

/// Returns the kind of buffer that a record holds; `None` if it holds none.
fn kind_of(word: u64) -> Option<BufferKind> {
    [BufferKind::Coherent, BufferKind::Raw, BufferKind::Bounce]
        .into_iter()
        .find(|kind| *kind as u64 == word & STATE)
}

/// The record of one buffer.
///
/// No call waits for another. The thread that moved the word to busy writes the fields; other threads skip
/// a busy record. A reader that sees the same word before and after has read the values of one fill.
pub(in crate::dma) struct LiveRecord {
    word: AtomicU64,
    tag: AtomicPtr<u8>,
    tag_len: AtomicU64,
    at: AtomicU64,
    dma: AtomicU64,
    len: AtomicU64,
    cpu: AtomicU64,
    origin: AtomicU64,
}

impl LiveRecord {
    fn busy() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            word: AtomicU64::new(BUSY),
            tag: AtomicPtr::new(null_mut()),
            tag_len: zero(),
            at: zero(),
            dma: zero(),
            len: zero(),
            cpu: zero(),
            origin: zero(),
        }
    }

    /// Makes the record busy if its word is still `from`. Returns true if it was.
    fn enter(&self, from: u64) -> bool {
        let busy = with_state(from, BUSY);
        self.word.compare_exchange(from, busy, AcqRel, Relaxed).is_ok()
    }

    /// Writes the fields of a record that the caller made busy, and ends that.
    fn fill(&self, entry: &LiveEntry) {
        // Pairs with the fence in `visit`: a reader that sees one of the values below also sees the busy
        // word after its fence.
        fence(Release);
        self.tag.store(entry.tag.as_ptr().cast_mut(), Relaxed);
        self.tag_len.store(entry.tag.len() as u64, Relaxed);
        self.at.store(entry.range.at.get(), Relaxed);
        self.dma.store(entry.range.dma.get(), Relaxed);
        self.len.store(entry.range.len, Relaxed);
        self.cpu.store(entry.cpu, Relaxed);
        let origin = match entry.origin {
            None => 0,
            Some(Origin::Adopted) => 1,
            Some(Origin::Exchanged) => 2,
        };
        self.origin.store(origin, Relaxed);
        let word = self.word.load(Relaxed).wrapping_add(FILL);
        self.word.store(with_state(word, entry.kind as u64), Release);
    }

    /// Makes a record free that the caller made busy.
    fn free(&self) {
        let word = self.word.load(Relaxed);
        self.word.store(with_state(word, FREE), Release);
    }

    /// Calls `f` with what the record holds, and returns its answer and the word. Returns `None` if the
    /// record holds nothing.
    ///
    /// Calls `f` again if the record changed meanwhile, so the answer is true of one fill.
    fn visit<R>(&self, f: impl Fn(&LiveEntry) -> R) -> Option<(R, u64)> {
        loop {
            let word = self.word.load(Acquire);
            let kind = kind_of(word)?;
            let (tag, tag_len) = (self.tag.load(Relaxed), self.tag_len.load(Relaxed));
            let range = DeviceRange {
                at: PseudoPhysAddr::new(self.at.load(Relaxed)),
                dma: DmaAddr::new(self.dma.load(Relaxed)),
                len: self.len.load(Relaxed),
            };
            let cpu = self.cpu.load(Relaxed);
            let origin = match self.origin.load(Relaxed) {
                0 => None,
                1 => Some(Origin::Adopted),
                _ => Some(Origin::Exchanged),
            };
            if !self.still(word) {
                continue;
            }
            // SAFETY: the word was the same before and after the two loads, so they have the pointer and
            // the length that one `fill` stored: those of a `&'static str`.
            let tag =
                unsafe { str::from_utf8_unchecked(slice::from_raw_parts(tag, tag_len as usize)) };
            let result = f(&LiveEntry { tag, kind, range, cpu, origin });
            if self.still(word) {
                return Some((result, word));
            }
        }
    }

    fn still(&self, word: u64) -> bool {
        fence(Acquire);
        self.word.load(Relaxed) == word
    }
}

/// The records of all live buffers of a device, in frames of the kernel.
pub(in crate::dma) struct LiveRecords<'a, P: Platform> {
    chain: RecordChain<'a, P, LiveRecord>,
}

impl<'a, P: Platform> LiveRecords<'a, P> {
    /// Returns the records of a device without a buffer. Takes a frame for the first of them, so that a
    /// caller that must not sleep finds one.
    pub fn new(platform: &'a P) -> Result<Self, AllocError> {
        let chain = RecordChain::new(platform, 0);
        chain.extend().map_err(|frames| AllocError::NoRecordMemory { frames })?;
        Ok(Self { chain })
    }

    /// Claims a record. Takes a frame for more if all are in use and the caller may sleep.
    pub fn claim(&self, sleep: Sleep) -> Result<LiveClaim<'_, P>, AllocError> {
        loop {
            let record = self.chain.blocks_from_recent().find_map(|block| self.claim_in(block));
            if let Some(record) = record {
                return Ok(LiveClaim { records: self, record });
            }
            if sleep == Sleep::MustNot {
                let records = self.chain.entries().count() as u64;
                return Err(AllocError::RecordsFull { records });
            }
            self.chain.extend().map_err(|frames| AllocError::NoRecordMemory { frames })?;
        }
    }

    fn claim_in<'c>(&'c self, block: &'c Block<LiveRecord>) -> Option<&'c LiveRecord> {
        let reused = block.entries().map(|entry| entry.record).find(|record| {
            let word = record.word.load(Relaxed);
            word & STATE == FREE && record.enter(word)
        });
        let record = reused.or_else(|| Some(block.claim()?.fill(LiveRecord::busy())))?;
        self.chain.ended_in(block);
        Some(record)
    }

    /// Returns the number of frames that the records lie in.
    pub fn frames(&self) -> u64 {
        self.chain.frames()
    }

    /// Makes all records free.
    pub fn forget_all(&mut self) {
        self.chain.settle(|_| Settlement::Drop);
    }

    /// Calls `f` with each live buffer, and iterates over the answers.
    pub fn visit<R>(&self, f: impl Fn(&LiveEntry) -> R) -> impl Iterator<Item = R> {
        self.chain.entries().filter_map(move |entry| Some(entry.record.visit(&f)?.0))
    }

    /// Takes the first buffer with this kind and these addresses that `wanted` accepts out of its record.
    pub fn take(
        &self,
        (kind, dma, cpu): (BufferKind, DmaAddr, u64),
        wanted: impl Fn(&LiveEntry) -> bool,
    ) -> Option<LiveEntry> {
        let is_named =
            |entry: &LiveEntry| (entry.kind, entry.range.dma, entry.cpu) == (kind, dma, cpu);
        let wanted = |entry: &LiveEntry| is_named(entry) && wanted(entry);
        self.chain.entries().find_map(|entry| {
            let record = entry.record;
            // Most records are of other buffers. What is read here may be of two fills; `visit` reads again.
            if record.cpu.load(Relaxed) != cpu {
                return None;
            }
            let (found, word) = record.visit(|entry| wanted(entry).then_some(*entry))?;
            let taken = found.filter(|_| record.enter(word))?;
            record.free();
            Some(taken)
        })
    }
}

/// A record that was claimed for a buffer to come. When the claim is dropped, the record is free again.
pub(in crate::dma) struct LiveClaim<'d, P: Platform> {
    records: &'d LiveRecords<'d, P>,
    record: &'d LiveRecord,
}

impl<'d, P: Platform> LiveClaim<'d, P> {
    /// Records a buffer, until the guard is dropped.
    pub fn keep(self, entry: &LiveEntry) -> LiveGuard<'d, P> {
        self.record.fill(entry);
        let guard = LiveGuard { records: self.records, record: self.record };
        core::mem::forget(self);
        guard
    }
}

impl<P: Platform> Drop for LiveClaim<'_, P> {
    fn drop(&mut self) {
        self.record.free();
    }
}

/// The record of a live buffer. When the guard is dropped, the record is free.
///
/// Its holder alone changes the record, until [`release`](Self::release) gives that up.
pub(in crate::dma) struct LiveGuard<'d, P: Platform> {
    records: &'d LiveRecords<'d, P>,
    record: &'d LiveRecord,
}

impl<'d, P: Platform> LiveGuard<'d, P> {
    fn enter(&self) {
        let word = self.record.word.load(Relaxed);
        let entered = self.record.enter(word);
        debug_assert!(entered, "another thread changed the record of a buffer");
    }

    /// Claims another record of the same device, for a part of the buffer. Takes a frame if all are in use.
    pub fn claim_another(&self) -> Result<LiveClaim<'d, P>, AllocError> {
        self.records.claim(Sleep::May)
    }

    /// Returns what is recorded.
    pub fn entry(&self) -> LiveEntry {
        let Some((entry, _)) = self.record.visit(|entry| *entry) else {
            unreachable!("the record of a live buffer holds it");
        };
        entry
    }

    /// Records something else in place.
    pub fn change(&self, entry: &LiveEntry) {
        self.enter();
        self.record.fill(entry);
    }

    /// Leaves the record until it is [taken](LiveRecords::take).
    pub fn forget(self) {
        core::mem::forget(self);
    }

    /// Records something else in place, which remains until it is [taken](LiveRecords::take).
    pub fn release(self, entry: &LiveEntry) {
        self.change(entry);
        self.forget();
    }
}

impl<P: Platform> Drop for LiveGuard<'_, P> {
    fn drop(&mut self) {
        self.enter();
        self.record.free();
    }
}
