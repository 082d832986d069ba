//! A pool of objects that are cut from coherent buffers.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::bits::{ObjectBits, in_use};
use super::config::ChunkPlan;
use super::{
    MovedChunk, PoolConfig, PoolError, PoolErrorKind, PoolObject, PoolStatistics, Zeroing,
};
use crate::addr::PseudoPhysAddr;
use crate::dma::moved::DeviceRange;
use crate::dma::records::{Entry, RecordChain, Settlement};
use crate::dma::{CoherentBuffer, Device};
use crate::platform::Platform;
use crate::sync::{AtomicBool, AtomicU64};

/// DMA objects of one size, for drivers and their interrupt handlers.
///
/// [`alloc`](Self::alloc) adds memory to the pool when every object is in use.
/// [`alloc_atomic`](Self::alloc_atomic) never does: an interrupt handler may call it. Memory stays
/// in the pool until the pool is [trimmed](Self::trim) or dropped.
///
/// ```
/// use xen_contig::dma::{Device, Pool, PoolConfig, PoolError, PoolObject};
/// use xen_contig::platform::Platform;
///
/// /// At boot: 64 packets, and later up to 512.
/// fn boot<'d, P: Platform>(nic: &'d Device<'_, P>) -> Result<Pool<'d, P>, PoolError> {
///     let config = PoolConfig::builder("packets", 2048).reserve(64).limit(512).build()?;
///     Pool::new(nic, config)
/// }
///
/// /// In the interrupt handler: a packet for the device, and whether a thread must refill.
/// fn next<'p, P: Platform>(packets: &'p Pool<'_, P>) -> (Option<PoolObject<'p, P>>, bool) {
///     (packets.alloc_atomic().ok(), packets.is_low())
/// }
///
/// /// In a thread.
/// fn outside<P: Platform>(packets: &Pool<'_, P>) -> Result<u64, PoolError> {
///     packets.refill()
/// }
/// ```
///
/// # Sleep and interrupts
/// The pool has no lock, so no call waits for another caller.
///
/// | call | may sleep | interrupt handler |
/// |---|---|---|
/// | [`alloc_atomic`](Self::alloc_atomic), the drop of a [`PoolObject`] | no | yes |
/// | [`is_low`](Self::is_low) | no | yes |
/// | [`statistics`](Self::statistics), [`moved_chunks`](Self::moved_chunks), [`check_in_place`](Self::check_in_place) | no | yes; they visit every chunk |
/// | the methods of a [`PoolObject`] | no | yes |
/// | [`alloc`](Self::alloc), [`refill`](Self::refill), [`new`](Self::new) with a reserve | as [`alloc_coherent`](Device::alloc_coherent) | no |
/// | [`trim`](Self::trim), the drop of a pool | as the drop of a [`CoherentBuffer`] | no |
///
/// # Memory
/// A pool asks its device for *chunks*, coherent buffers of one segment, and cuts them into objects.
/// The chunks are live buffers of the device, with the name of the pool as their tag. Objects lie
/// within the device's limits: between its lowest address and its mask, and across no boundary.
///
/// Which objects are in use is recorded in frames of the kernel ([`Platform::take`]), never in a
/// chunk: a device that writes past its object can spoil other objects, but not the records.
/// The number of chunks has no limit but that of the configuration.
///
/// # Save and restore, or migration
/// Afterwards other machine frames back the chunks of a PV guest
/// ([C75](crate::conformance#C75)). Once the P2M is up to date again,
/// [`check_in_place`](Self::check_in_place) finds the chunks that moved, and the pool hands out no
/// object of them. An allocation also checks the object that it is about to hand out. For an object
/// in use, call [`PoolObject::check_in_place`], drop the object if it moved, and allocate another.
/// [`trim`](Self::trim) releases the chunks that moved.
///
/// # Lifetimes
/// A pool cannot outlive its device, and an object cannot outlive its pool:
///
/// ```compile_fail,E0505
/// use xen_contig::dma::{Pool, PoolError};
/// use xen_contig::platform::Platform;
///
/// fn keep<P: Platform>(pool: Pool<'_, P>) -> Result<(), PoolError> {
///     let object = pool.alloc()?;
///     drop(pool);
///     object.len();
///     Ok(())
/// }
/// ```
pub struct Pool<'a, P: Platform> {
    device: &'a Device<'a, P>,
    config: PoolConfig,
    plan: ChunkPlan,
    /// The chunks. Beside each are the bits of its objects.
    chunks: RecordChain<'a, P, Chunk<'a, P>>,
    /// Objects of all chunks, and of those that are being allocated.
    admitted: AtomicU64,
    /// Free objects that no caller is about to take. Those of chunks that moved count too.
    available: AtomicU64,
    /// Set when a chunk was found to have moved.
    any_moved: AtomicBool,
}

/// A buffer that objects are cut from.
struct Chunk<'a, P: Platform> {
    buffer: CoherentBuffer<'a, P>,
    objects: u64,
    /// Set when other machine frames were found to back it. Its objects are not handed out then.
    moved: AtomicBool,
}

type ChunkEntry<'p, 'a, P> = Entry<'p, Chunk<'a, P>>;

impl<P: Platform> Chunk<'_, P> {
    /// Returns the address that the device received for `len` bytes at `offset`.
    fn reported(&self, offset: u64, len: u64) -> DeviceRange {
        let first = PseudoPhysAddr::of(self.buffer.frames().first());
        let addresses = (first.checked_add(offset), self.buffer.dma_addr().checked_add(offset));
        let (Some(at), Some(dma)) = addresses else {
            unreachable!("an object lies in its chunk, and a chunk in the address space");
        };
        DeviceRange { at, dma, len }
    }

    fn has_moved(&self) -> bool {
        self.moved.load(Acquire)
    }
}

impl<'a, P: Platform> Pool<'a, P> {
    /// Makes a pool of a device and allocates its reserve. May sleep if the configuration has a
    /// reserve.
    ///
    /// # Errors
    /// * [`PoolErrorKind::CrossesBoundary`], [`PoolErrorKind::SegmentTooLong`] or
    ///   [`PoolErrorKind::Constraints`]: the objects contradict the device's limits.
    /// * As for [`refill`](Self::refill). The memory that was allocated before is released.
    pub fn new(device: &'a Device<'_, P>, config: PoolConfig) -> Result<Self, PoolError> {
        let plan = config.plan(device.limits());
        let plan = plan.map_err(|kind| PoolError::new(config.name(), kind))?;
        let words = ObjectBits::words(plan.geometry.objects());
        let chunks = RecordChain::new(device.allocator().platform(), words);
        let (admitted, available) = (AtomicU64::new(0), AtomicU64::new(0));
        let any_moved = AtomicBool::new(false);
        let pool = Self { device, config, plan, chunks, admitted, available, any_moved };
        pool.refill()?;
        Ok(pool)
    }

    /// Allocates an object, and a chunk if every object is in use. May sleep.
    ///
    /// # Errors
    /// * [`PoolErrorKind::Exhausted`]: the limit is reached. Another caller may be about to add the
    ///   last chunk below it;
    /// * [`PoolErrorKind::Alloc`] or [`PoolErrorKind::RecordMemory`]: there is no memory.
    pub fn alloc(&self) -> Result<PoolObject<'_, P>, PoolError> {
        loop {
            if let Some(object) = self.take() {
                return Ok(object);
            }
            // Other callers may take every object that this adds. Then the pool grows again.
            self.grow().map_err(|kind| self.error(kind))?;
        }
    }

    /// Allocates an object that the pool has already. An interrupt handler may call it.
    ///
    /// It makes no hypercall, takes no lock and calls no method of the kernel's frame allocator. The
    /// search is bounded by the number of chunks. It is repeated only if another caller took the
    /// object that it had found, so the callers together always make progress.
    ///
    /// # Errors
    /// [`PoolErrorKind::Exhausted`]: every object is in use.
    pub fn alloc_atomic(&self) -> Result<PoolObject<'_, P>, PoolError> {
        self.take().ok_or_else(|| self.error(self.exhausted()))
    }

    /// Returns true if fewer objects are available than the reserve has.
    pub fn is_low(&self) -> bool {
        let available = match self.any_moved.load(Relaxed) {
            false => self.available.load(Relaxed),
            true => self.statistics().available,
        };
        available < self.config.reserve()
    }

    /// Adds objects until the reserve is available, and returns how many. May sleep.
    ///
    /// Several callers at a time may add more than the reserve.
    ///
    /// # Errors
    /// As for [`alloc`](Self::alloc), with the number of objects that were added before.
    pub fn refill(&self) -> Result<u64, PoolError> {
        let mut total = 0;
        while self.is_low() {
            total += self.grow().map_err(|mut kind| {
                if let PoolErrorKind::Alloc { added, .. }
                | PoolErrorKind::RecordMemory { added, .. } = &mut kind
                {
                    *added = total;
                }
                self.error(kind)
            })?;
        }
        Ok(total)
    }

    /// Releases every chunk without an object in use, and returns how many objects they had.
    ///
    /// The reserve is released too. A chunk with an object that was forgotten stays: a device may
    /// still have its address.
    pub fn trim(&mut self) -> u64 {
        let (mut trimmed, mut moved) = (0, false);
        self.chunks.settle(|entry| match in_use(entry.words) {
            0 => {
                trimmed += entry.record.objects;
                Settlement::Drop
            }
            _ => {
                moved |= entry.record.has_moved();
                Settlement::Keep
            }
        });
        self.admitted.fetch_sub(trimmed, Relaxed);
        self.available.fetch_sub(trimmed, Relaxed);
        self.any_moved.store(moved, Relaxed);
        trimmed
    }

    /// Returns the configuration.
    pub const fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Returns how many objects and frames the pool has. Visits every chunk.
    pub fn statistics(&self) -> PoolStatistics {
        let mut statistics = PoolStatistics {
            pool: self.config.name(),
            object_size: self.config.size(),
            objects: 0,
            in_use: 0,
            available: 0,
            moved: 0,
            limit: self.config.limit(),
            chunks: 0,
            chunk_frames: 0,
            record_frames: self.chunks.frames(),
        };
        for entry in self.chunks.entries() {
            let (objects, in_use) = (entry.record.objects, in_use(entry.words));
            statistics.objects += objects;
            statistics.in_use += in_use;
            match entry.record.has_moved() {
                true => statistics.moved += objects,
                false => statistics.available += objects - in_use,
            }
            statistics.chunks += 1;
            statistics.chunk_frames += entry.record.buffer.frames().frames();
        }
        statistics
    }

    /// Returns the chunks that other machine frames back now ([C75](crate::conformance#C75)).
    ///
    /// Compares them with the P2M and changes nothing.
    pub fn moved_chunks(&self) -> impl Iterator<Item = MovedChunk> {
        self.chunks.entries().filter_map(|entry| self.compare(&entry))
    }

    /// Checks that every chunk is at the address that devices received.
    ///
    /// For a kernel that was saved and restored or migrated, once its P2M is up to date again. The
    /// pool hands out no object of a chunk that moved.
    ///
    /// # Errors
    /// [`PoolErrorKind::Moved`]: what moved. Drop the objects of these chunks, then
    /// [`trim`](Self::trim) the pool.
    pub fn check_in_place(&self) -> Result<(), PoolError> {
        let (mut chunks, mut in_use, mut first) = (0, 0, None);
        for entry in self.chunks.entries() {
            let Some(moved) = self.compare(&entry) else { continue };
            self.mark_moved(entry.record);
            chunks += 1;
            in_use += moved.in_use;
            first = first.or(Some(moved));
        }
        let moved = first.map(|first| PoolErrorKind::Moved { chunks, in_use, first });
        moved.map_or(Ok(()), |kind| Err(self.error(kind)))
    }

    fn mark_moved(&self, chunk: &Chunk<'a, P>) {
        // In this order: a caller, or a handler on this vCPU, that skips the chunk must find the other
        // flag set, or it would search again without end.
        self.any_moved.store(true, Relaxed);
        chunk.moved.store(true, Release);
    }

    /// Compares where a chunk is with the address that devices received.
    fn compare(&self, entry: &ChunkEntry<'_, 'a, P>) -> Option<MovedChunk> {
        let reported = entry.record.reported(0, self.config.chunk());
        let moved = reported.check_in_place(self.device.allocator().platform().p2m()).err()?;
        Some(MovedChunk { objects: entry.record.objects, in_use: in_use(entry.words), moved })
    }

    const fn error(&self, kind: PoolErrorKind) -> PoolError {
        PoolError::new(self.config.name(), kind)
    }

    fn limit(&self) -> u64 {
        self.config.limit().unwrap_or(u64::MAX)
    }

    fn exhausted(&self) -> PoolErrorKind {
        let PoolStatistics { objects, in_use, moved, .. } = self.statistics();
        PoolErrorKind::Exhausted { objects, in_use, moved, limit: self.limit() }
    }

    /// Takes an object that did not move, and zeroes it if the configuration says so.
    fn take(&self) -> Option<PoolObject<'_, P>> {
        loop {
            let (mut object, chunk) = self.take_any()?;
            if object.check_in_place().is_err() {
                // The pool was not checked since a restore. With the old address the device would
                // write to memory of another domain.
                self.mark_moved(chunk);
                continue;
            }
            if self.config.zeroing() == Zeroing::Zeroed {
                object.zero();
            }
            return Some(object);
        }
    }

    /// Takes an object of a chunk that is not known to have moved.
    ///
    /// The count comes first: a caller that has decremented it is entitled to one free object, which
    /// no other caller can take from it. So a search that finds none was overtaken by callers that
    /// took and dropped objects meanwhile, and is repeated.
    fn take_any(&self) -> Option<(PoolObject<'_, P>, &Chunk<'a, P>)> {
        self.available.fetch_update(Acquire, Relaxed, |count| count.checked_sub(1)).ok()?;
        loop {
            let found = self.search();
            if found.is_some() {
                return found;
            }
            if self.any_moved.load(Relaxed) {
                // The free objects may all be in chunks that moved.
                self.available.fetch_add(1, Release);
                return None;
            }
            // Acquire: the next search sees every object that was dropped before.
            self.available.fetch_add(0, Acquire);
        }
    }

    fn search(&self) -> Option<(PoolObject<'_, P>, &Chunk<'a, P>)> {
        let geometry = &self.plan.geometry;
        for block in self.chunks.blocks_from_recent() {
            for Entry { record: chunk, words } in block.entries() {
                let bits = ObjectBits::new(words, chunk.objects, &self.available);
                let Some(index) = (!chunk.has_moved()).then(|| bits.take()).flatten() else {
                    continue;
                };
                self.chunks.ended_in(block);
                let reported = chunk.reported(geometry.offset(index), geometry.size());
                return Some((
                    PoolObject::new(self.device.allocator(), bits, index, reported),
                    chunk,
                ));
            }
        }
        None
    }

    /// Adds a chunk and returns the number of its objects.
    fn grow(&self) -> Result<u64, PoolErrorKind> {
        let objects = self.admit()?;
        let added = self.add_chunk(objects);
        if added.is_err() {
            self.admitted.fetch_sub(objects, Relaxed);
        }
        added.map(|()| objects)
    }

    /// Returns how many objects another chunk may have, and counts them.
    fn admit(&self) -> Result<u64, PoolErrorKind> {
        let mut admitted = self.admitted.load(Relaxed);
        loop {
            let more = self.limit().saturating_sub(admitted).min(self.plan.geometry.objects());
            if more == 0 {
                return Err(self.exhausted());
            }
            match self.admitted.compare_exchange(admitted, admitted + more, Relaxed, Relaxed) {
                Ok(_) => return Ok(more),
                Err(other) => admitted = other,
            }
        }
    }

    fn add_chunk(&self, objects: u64) -> Result<(), PoolErrorKind> {
        let claim = self.chunks.claim();
        let slot = claim.map_err(|frames| PoolErrorKind::RecordMemory { added: 0, frames })?;
        let (bytes, tag) = (self.config.chunk(), self.config.name());
        let buffer = self.device.alloc_chunk(bytes, &self.plan.constraints, tag);
        let buffer = buffer.map_err(|error| PoolErrorKind::Alloc { added: 0, error })?;
        slot.fill(Chunk { buffer, objects, moved: AtomicBool::new(false) });
        // Release: a caller that decrements the count sees the chunk.
        self.available.fetch_add(objects, Release);
        Ok(())
    }
}

impl<P: Platform> Drop for Pool<'_, P> {
    fn drop(&mut self) {
        self.chunks.settle(|entry| match in_use(entry.words) {
            0 => Settlement::Drop,
            // No object is borrowed now, but the device may have the address of a forgotten one. The
            // chunk stays a live buffer of the device, which reports it when it ends.
            _ => Settlement::Forget,
        });
    }
}

impl<P: Platform> fmt::Debug for Pool<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.statistics(), f)
    }
}

impl<P: Platform> fmt::Display for Pool<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.statistics().fmt(f)
    }
}
