//! A pool for where nothing may sleep.

use core::fmt;

use super::chunks::Chunks;
use super::{MovedChunk, PoolConfig, PoolError, PoolObject};
use crate::dma::Allocator;
use crate::platform::Platform;

/// Small DMA objects for where nothing may sleep and no hypercall may be made: sized at boot,
/// refilled outside.
///
/// # Why an interrupt handler may use it
/// * [`alloc`](Self::alloc) and the drop of an object ask neither Xen nor the allocator nor the
///   embedder's frame allocator. They read the P2M, and touch the pool's own books and, to zero
///   an object, its own bytes.
/// * The books are bits, and every change of them is one atomic operation. There is no lock and no
///   state "in between", so whoever is interrupted holds nothing that the handler could wait for,
///   on this vCPU or on another. A lock, even one that is only ever tried, would make a handler
///   fail whenever it interrupts its holder; a spin lock would hang the vCPU.
/// * [`refill`](Self::refill) holds nothing either while it asks for memory. A chunk becomes
///   visible with one atomic store when it is complete; before that, nobody looks at it.
/// * The work is bounded by the number of chunks. A try is repeated only when another vCPU or a
///   handler took that very object first, so all of them together always get on (lock-free).
///
/// # Use
/// ```
/// use xen_contig::dma::{Allocator, AtomicPool, PoolConfig, PoolError, PoolObject};
/// use xen_contig::platform::Platform;
///
/// type Packets<'a, P> = AtomicPool<'a, P, 16>;
///
/// /// At boot: 64 packets, and later up to 512.
/// fn boot<P: Platform>(allocator: &Allocator<P>) -> Result<Packets<'_, P>, PoolError> {
///     let config = PoolConfig::builder(2048).chunk(1 << 16).reserve(64).limit(512).build()?;
///     AtomicPool::new(allocator, &config)
/// }
///
/// /// In the interrupt handler: a packet for the device, and whether someone should refill.
/// fn next<'p, P: Platform>(packets: &'p Packets<'_, P>) -> (Option<PoolObject<'p, P>>, bool) {
///     (packets.alloc().ok(), packets.is_low())
/// }
///
/// /// In a thread.
/// fn outside<P: Platform>(packets: &Packets<'_, P>) -> Result<u64, PoolError> {
///     packets.refill()
/// }
/// ```
///
/// A pool outlives its objects:
///
/// ```compile_fail,E0505
/// use xen_contig::dma::{AtomicPool, PoolError};
/// use xen_contig::platform::Platform;
///
/// fn keep<P: Platform>(pool: AtomicPool<'_, P, 8>) -> Result<(), PoolError> {
///     let object = pool.alloc()?;
///     drop(pool);
///     object.len();
///     Ok(())
/// }
/// ```
pub struct AtomicPool<'a, P: Platform, const CHUNKS: usize> {
    chunks: Chunks<'a, P, CHUNKS>,
    reserve: u64,
}

impl<P: Platform, const CHUNKS: usize> fmt::Debug for AtomicPool<'_, P, CHUNKS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chunks.describe("AtomicPool", f)
    }
}

impl<'a, P: Platform, const CHUNKS: usize> AtomicPool<'a, P, CHUNKS> {
    /// A pool with its reserve filled. The caller may sleep.
    ///
    /// # Errors
    /// If the configuration wants more objects than `CHUNKS` chunks have, or the allocator has no
    /// memory for the reserve; what it gave before goes back.
    pub fn new(allocator: &'a Allocator<P>, config: &PoolConfig) -> Result<Self, PoolError> {
        let chunks: Chunks<'a, P, CHUNKS> = Chunks::new(allocator, config)?;
        let reserve = config.reserve(chunks.limit())?;
        let pool = Self { chunks, reserve };
        pool.refill()?;
        Ok(pool)
    }

    /// An object. Makes no hypercall, waits for nobody, and may be called by an interrupt handler.
    ///
    /// # Errors
    /// Every object is taken.
    pub fn alloc(&self) -> Result<PoolObject<'_, P>, PoolError> {
        self.chunks.take().ok_or_else(|| self.chunks.exhausted())
    }

    /// Whether fewer objects are free than the reserve. May be called by an interrupt handler.
    pub fn is_low(&self) -> bool {
        let (capacity, in_use) = self.chunks.usage();
        capacity - in_use < self.reserve
    }

    /// Adds objects until the reserve is free again, or there may be no more. Answers how many.
    /// The caller may sleep. Several at a time do no harm, but may add more than is needed.
    ///
    /// # Errors
    /// Why the reserve could not be had, and how many objects were added before:
    /// [`PoolError::Exhausted`] at the limit, also while the last chunk below it is just being
    /// filled by another caller; [`PoolError::Alloc`] where the allocator has no memory.
    pub fn refill(&self) -> Result<u64, PoolError> {
        let mut added = 0;
        while self.is_low() {
            added += self.chunks.grow().map_err(|error| match error {
                PoolError::Alloc { error, .. } => PoolError::Alloc { added, error },
                error => error,
            })?;
        }
        Ok(added)
    }

    /// What the objects are.
    pub const fn config(&self) -> &PoolConfig {
        self.chunks.config()
    }

    /// How many objects are to be free after a refill.
    pub const fn reserve(&self) -> u64 {
        self.reserve
    }

    /// How many objects there are now that can be handed out.
    pub fn capacity(&self) -> u64 {
        self.chunks.capacity()
    }

    /// How many of them are taken.
    pub fn in_use(&self) -> u64 {
        self.chunks.in_use()
    }

    /// How many there may be.
    pub const fn limit(&self) -> u64 {
        self.chunks.limit()
    }

    /// The chunks whose machine frames are not what they were ([C75](crate::conformance#C75)).
    /// Looks, and changes nothing.
    pub fn moved_chunks(&self) -> impl Iterator<Item = MovedChunk> {
        self.chunks.moved()
    }

    /// Checks that every chunk is still where devices were told. For a kernel that was saved and
    /// restored or migrated, once its P2M is up to date again. Of what moved nothing is handed out
    /// any more, and it counts no more in [`capacity`](Self::capacity) and
    /// [`in_use`](Self::in_use).
    ///
    /// # Errors
    /// [`PoolError::Moved`]: how much moved, and the first of it. Drop the objects that are in it, then
    /// [`trim`](Self::trim).
    pub fn check_in_place(&self) -> Result<(), PoolError> {
        self.chunks.check_in_place()
    }

    /// Gives every chunk back to the allocator that no forgotten object lies in. Answers how many
    /// objects that was. The caller may sleep.
    pub fn trim(&mut self) -> u64 {
        self.chunks.trim()
    }
}
