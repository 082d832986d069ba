//! An object out of a pool.

use core::fmt;
use core::ptr::NonNull;

use super::taken::Taken;
use crate::addr::DmaAddr;
use crate::dma::moved::Told;
use crate::dma::span::BufferSpan;
use crate::dma::{Allocator, BufferError};
use crate::paging::{GuestMemory, Width};
use crate::platform::Platform;

/// An object out of a pool: contiguous for the processor and for the device.
///
/// As with a [`CoherentBuffer`](crate::dma::CoherentBuffer), the device may write at any time, so
/// the memory is never a reference ([M5](crate::rules#M5)). Dropping the object gives it back to
/// its pool, with one atomic operation and without a hypercall: stop the device first. Forgetting
/// it leaks it and is safe: a pool never gives up memory that an object was left in.
pub struct PoolObject<'p, P: Platform> {
    allocator: &'p Allocator<P>,
    taken: &'p Taken,
    index: u64,
    told: Told,
}

impl<P: Platform> fmt::Debug for PoolObject<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolObject({} bytes at {})", self.len(), self.dma_addr())
    }
}

impl<'p, P: Platform> PoolObject<'p, P> {
    /// The object that `index` names in `taken`, whose bit the caller has set. It lies within frames
    /// that the pool holds for as long as that bit is set.
    pub(super) const fn new(
        allocator: &'p Allocator<P>,
        (taken, index): (&'p Taken, u64),
        told: Told,
    ) -> Self {
        Self { allocator, taken, index, told }
    }

    /// How many bytes.
    #[expect(clippy::len_without_is_empty, reason = "no object is empty")]
    pub const fn len(&self) -> u64 {
        self.told.len
    }

    /// The first byte, for the processor. Valid as long as the object lives; the device may write
    /// at any time, so access it volatile and make no reference of it ([M5](crate::rules#M5)).
    ///
    /// # Panics
    /// If the embedder maps guest memory at address 0.
    pub fn as_ptr(&self) -> NonNull<u8> {
        let page = self.allocator.platform().memory().pointer(self.told.at.frame());
        NonNull::new(page.wrapping_add(self.told.at.offset()))
            .expect("the linear mapping does not map page 0")
    }

    /// What goes into a device register for the first byte.
    pub const fn dma_addr(&self) -> DmaAddr {
        self.told.dma
    }

    /// What goes into a device register for the byte at `offset`; `None` behind the end.
    pub fn dma_addr_at(&self, offset: u64) -> Option<DmaAddr> {
        self.told.dma_addr_at(offset)
    }

    /// Checks that the object is still where the device was told. For a kernel that was saved and
    /// restored or migrated, once its P2M is up to date again.
    ///
    /// # Errors
    /// [`BufferError::Moved`]: the first byte that is not. Drop the object then and take another.
    pub fn check_in_place(&self) -> Result<(), BufferError> {
        self.told.check_in_place(self.allocator.platform().p2m()).map_err(BufferError::Moved)
    }

    /// What the device was told.
    #[cfg(any(feature = "virtio-drivers", feature = "dma-api"))]
    pub(crate) const fn told(&self) -> Told {
        self.told
    }

    fn span(&self) -> BufferSpan {
        // SAFETY: the object lies in a buffer that the pool holds, and is its holder's until it is
        // dropped ([M1](crate::rules#M1)).
        unsafe { BufferSpan::new(self.told.at, self.told.len) }
    }

    /// Reads a word, once.
    ///
    /// # Errors
    /// If it is not within the object or its address is no multiple of its width.
    pub fn load(&self, offset: u64, width: Width) -> Result<u64, BufferError> {
        self.span().load(self.allocator.platform().memory(), offset, width)
    }

    /// Writes a word, once. What does not fit its width is cut off.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn store(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BufferError> {
        self.span().store(self.allocator.platform().memory(), offset, width, value)
    }

    /// Copies bytes out of the object.
    ///
    /// # Errors
    /// If they are not all within it; none was copied then.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BufferError> {
        self.span().read(self.allocator.platform().memory(), offset, into)
    }

    /// Copies bytes into the object.
    ///
    /// # Errors
    /// If they do not all fit; none was copied then.
    pub fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), BufferError> {
        self.span().write(self.allocator.platform().memory(), offset, from)
    }

    /// Fills the object with zeros.
    pub fn zero(&mut self) {
        let mut offset = 0;
        while offset < self.len() {
            // The widest that is within the object and aligned here. A byte always is.
            let widths = [Width::Quad, Width::Double, Width::Word, Width::Byte];
            let stored = widths.into_iter().find(|width| self.store(offset, *width, 0).is_ok());
            offset += stored.map_or(1, |width| width.bytes() as u64);
        }
    }
}

impl<P: Platform> Drop for PoolObject<'_, P> {
    fn drop(&mut self) {
        self.taken.give(self.index);
    }
}
