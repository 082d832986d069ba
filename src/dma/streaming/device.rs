//! The methods of a device that map memory.

use core::ptr::NonNull;

use super::{Direction, MapError, Mapper, Mapping};
use crate::dma::Device;
use crate::platform::Platform;

impl<P: Platform> Device<'_, P> {
    /// Returns what maps memory for this device. By it a mapping takes bounce memory from a pool, or has
    /// narrower limits.
    pub fn mapper(&self) -> Mapper<'_, P> {
        Mapper::new(self.allocator(), *self.limits(), &self.counters)
    }

    /// Maps `bytes` for the device until the mapping is dropped.
    ///
    /// The bytes may be any memory of the guest. What the device can access where it lies is mapped in
    /// place. The rest is bounced: [`Mapping`] has the details. In place, no hypercall is made and no lock
    /// is taken. Bounce memory is allocated as by [`Allocator::alloc_coherent`], with the limits of the
    /// device, so the call may make hypercalls unless the limits say [`Sleep::MustNot`]. It takes time in
    /// proportion to the number of pages and to the bounced bytes.
    ///
    /// # Safety
    /// Until the mapping is dropped, from any thread that has it:
    /// * the bytes are valid for reads and, unless the direction is [`Direction::ToDevice`], for writes;
    /// * the processor accesses them only between [`sync_for_cpu`] and [`sync_for_device`], and no Rust
    ///   reference to them exists otherwise ([M5](crate::rules#M5));
    /// * if they lie in the linear mapping, their frames stay as they are: the kernel gives none of them to
    ///   Xen and moves none ([M1](crate::rules#M1)).
    ///
    /// The device has stopped when the mapping is dropped.
    ///
    /// # Errors
    /// No byte is mapped.
    /// * [`MapError::Empty`], [`MapError::PastAddressSpace`], [`MapError::LargerThanGuest`]: the bytes are
    ///   impossible.
    /// * [`MapError::NotBacked`]: a page of the linear mapping has no machine frame.
    /// * [`MapError::TooLong`]: the device takes the bytes neither in place nor in a bounce buffer.
    /// * [`MapError::NoBounceMemory`]: there is no memory for a bounce buffer.
    ///
    /// [`Allocator::alloc_coherent`]: crate::dma::Allocator::alloc_coherent
    /// [`Sleep::MustNot`]: crate::dma::Sleep::MustNot
    /// [`sync_for_cpu`]: Mapping::sync_for_cpu
    /// [`sync_for_device`]: Mapping::sync_for_device
    pub unsafe fn map(
        &self,
        bytes: NonNull<[u8]>,
        direction: Direction,
    ) -> Result<Mapping<'_, P>, MapError> {
        // SAFETY: this function has the same contract.
        unsafe { self.mapper().map(bytes, direction) }
    }

    /// Maps several ranges of bytes as one mapping, first to last. Ranges that are contiguous for the device
    /// share a segment, and a range without a byte is ignored.
    ///
    /// Everything else is as for [`map`](Self::map).
    ///
    /// # Safety
    /// As for [`map`](Self::map), for each range. If the device writes, no two ranges overlap.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub unsafe fn map_list<'m>(
        &'m self,
        list: &'m [NonNull<[u8]>],
        direction: Direction,
    ) -> Result<Mapping<'m, P>, MapError> {
        // SAFETY: this function has the same contract.
        unsafe { self.mapper().map_list(list, direction) }
    }

    /// Returns the most bytes that [`map`](Self::map) can map wherever they lie, as far as limits tell: the
    /// device's, and the order limit of Xen for a bounce buffer.
    ///
    /// More can be mapped if the device can access it in place. A few hundred steps of arithmetic; does not
    /// sleep.
    pub fn max_mapping(&self) -> u64 {
        self.mapper().max_mapping()
    }

    /// Returns true if [`map`](Self::map) would bounce any of these bytes. Accesses none of them.
    ///
    /// Reads the P2M, makes no hypercall and does not sleep. An interrupt handler may call it.
    ///
    /// # Errors
    /// As for [`map`](Self::map), but for bounce memory.
    pub fn needs_bounce(&self, bytes: NonNull<[u8]>) -> Result<bool, MapError> {
        self.mapper().needs_bounce(bytes)
    }
}
