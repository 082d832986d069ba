//! An object of a pool.

use core::fmt;
use core::ptr::NonNull;

use super::bits::ObjectBits;
use crate::addr::DmaAddr;
use crate::dma::moved::DeviceRange;
use crate::dma::span::BufferSpan;
use crate::dma::{Allocator, BufferError};
use crate::paging::GuestMemory;
use crate::platform::Platform;
use crate::word::Word;

/// An object of a pool: contiguous for the processor and for the device.
///
/// The device may write at any time, so the memory is never a Rust reference
/// ([M5](crate::rules#M5)). Stop the device, then drop the object: that returns it to its pool with
/// two atomic operations and no lock. Forgetting an object is safe: its memory stays in use, and
/// [`PoolStatistics`](super::PoolStatistics) counts it. No method sleeps, and each may be called in
/// an interrupt handler.
pub struct PoolObject<'p, P: Platform> {
    allocator: &'p Allocator<P>,
    bits: ObjectBits<'p>,
    index: u64,
    reported: DeviceRange,
}

impl<P: Platform> fmt::Debug for PoolObject<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolObject({} bytes at {})", self.len(), self.dma_addr())
    }
}

impl<'p, P: Platform> PoolObject<'p, P> {
    /// Returns the object number `index` of `bits`, whose bit the caller has set.
    ///
    /// It lies in frames that the pool keeps while that bit is set.
    pub(super) const fn new(
        allocator: &'p Allocator<P>,
        bits: ObjectBits<'p>,
        index: u64,
        reported: DeviceRange,
    ) -> Self {
        Self { allocator, bits, index, reported }
    }

    /// Returns the number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "an object has at least one byte")]
    pub const fn len(&self) -> u64 {
        self.reported.len
    }

    /// Returns the address of the first byte for the processor, valid while the object lives.
    ///
    /// The device may write at any time, so access the memory volatile and make no reference to it
    /// ([M5](crate::rules#M5)).
    ///
    /// # Panics
    /// If the embedder maps guest memory at address 0.
    pub fn as_ptr(&self) -> NonNull<u8> {
        let page = self.allocator.platform().memory().pointer(self.reported.at.frame());
        NonNull::new(page.wrapping_add(self.reported.at.offset()))
            .expect("the linear mapping does not map page 0")
    }

    /// Returns the address of the first byte for a device register.
    pub const fn dma_addr(&self) -> DmaAddr {
        self.reported.dma
    }

    /// Returns the address of the byte at `offset` for a device register.
    ///
    /// Returns `None` if the object does not have that byte.
    pub fn dma_addr_at(&self, offset: u64) -> Option<DmaAddr> {
        self.reported.dma_addr_at(offset)
    }

    /// Checks that the object is still at the address that the device received.
    ///
    /// For a kernel that was saved and restored or migrated, once its P2M is up to date again.
    ///
    /// # Errors
    /// [`BufferError::Moved`]: the first byte that moved. Drop the object and allocate another.
    pub fn check_in_place(&self) -> Result<(), BufferError> {
        self.reported.check_in_place(self.allocator.platform().p2m()).map_err(BufferError::Moved)
    }

    fn span(&self) -> BufferSpan {
        // SAFETY: the object lies in mapped frames of a buffer that the pool owns, and no other
        // object has these bytes while its bit is set, which is until the drop
        // ([M1](crate::rules#M1)).
        unsafe { BufferSpan::new(self.reported.at, self.reported.len) }
    }

    /// Reads a word once.
    ///
    /// # Errors
    /// If the word is not within the object, or its address is not a multiple of its size.
    pub fn load<T: Word>(&self, offset: u64) -> Result<T, BufferError> {
        self.span().load(self.allocator.platform().memory(), offset)
    }

    /// Writes a word once.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn store<T: Word>(&mut self, offset: u64, value: T) -> Result<(), BufferError> {
        self.span().store(self.allocator.platform().memory(), offset, value)
    }

    /// Copies bytes from the object.
    ///
    /// # Errors
    /// If the object does not have all of them. Then none is copied.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BufferError> {
        self.span().read(self.allocator.platform().memory(), offset, into)
    }

    /// Copies bytes to the object.
    ///
    /// # Errors
    /// If the object has no room for all of them. Then none is copied.
    pub fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), BufferError> {
        self.span().write(self.allocator.platform().memory(), offset, from)
    }

    /// Fills the object with zeros.
    pub fn zero(&mut self) {
        self.span().zero(self.allocator.platform().memory());
    }
}

impl<P: Platform> Drop for PoolObject<'_, P> {
    fn drop(&mut self) {
        self.bits.give(self.index);
    }
}
