//! A pool that asks the allocator for more when it runs out.

use core::fmt;

use super::chunks::Chunks;
use super::{MovedChunk, PoolConfig, PoolError, PoolObject};
use crate::dma::Allocator;
use crate::platform::Platform;

/// Small DMA objects; when all are taken, the allocator is asked for another chunk of them, up to
/// `CHUNKS` chunks.
///
/// Chunks stay in the pool until it is dropped or [trimmed](Self::trim).
///
/// ```
/// use xen_contig::dma::{Allocator, Pool, PoolConfig, PoolError};
/// use xen_contig::paging::Width;
/// use xen_contig::platform::Platform;
///
/// /// Rings a bell by a descriptor.
/// fn ring<P: Platform>(allocator: &Allocator<P>) -> Result<(), PoolError> {
///     let config = PoolConfig::builder(16).align(16).boundary(4096).build()?;
///     let pool = Pool::<_, 8>::new(allocator, &config)?;
///     let mut descriptor = pool.alloc()?;
///     descriptor.store(0, Width::Quad, 0x1234).expect("within 16 bytes");
///     let _register = descriptor.dma_addr().get();
///     Ok(())
/// }
/// ```
///
/// A pool outlives its objects:
///
/// ```compile_fail,E0505
/// use xen_contig::dma::{Pool, PoolError};
/// use xen_contig::platform::Platform;
///
/// fn keep<P: Platform>(pool: Pool<'_, P, 8>) -> Result<(), PoolError> {
///     let object = pool.alloc()?;
///     drop(pool);
///     object.len();
///     Ok(())
/// }
/// ```
pub struct Pool<'a, P: Platform, const CHUNKS: usize> {
    chunks: Chunks<'a, P, CHUNKS>,
}

impl<P: Platform, const CHUNKS: usize> fmt::Debug for Pool<'_, P, CHUNKS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chunks.describe("Pool", f)
    }
}

impl<'a, P: Platform, const CHUNKS: usize> Pool<'a, P, CHUNKS> {
    /// An empty pool. Asks the allocator for nothing yet.
    ///
    /// # Errors
    /// If the configuration wants more objects than `CHUNKS` chunks have.
    pub fn new(allocator: &'a Allocator<P>, config: &PoolConfig) -> Result<Self, PoolError> {
        Ok(Self { chunks: Chunks::new(allocator, config)? })
    }

    /// An object. May make hypercalls, unless the constraints say that nobody may sleep.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`] at the limit, also while the last chunk below it is just being
    /// filled by another caller; [`PoolError::Alloc`] where the allocator has no memory.
    pub fn alloc(&self) -> Result<PoolObject<'_, P>, PoolError> {
        loop {
            if let Some(object) = self.chunks.take() {
                return Ok(object);
            }
            // Others may take all that this adds: then again, until there may be no more.
            self.chunks.grow()?;
        }
    }

    /// What the objects are.
    pub const fn config(&self) -> &PoolConfig {
        self.chunks.config()
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
    /// objects that was.
    pub fn trim(&mut self) -> u64 {
        self.chunks.trim()
    }
}
