//! Memory that drivers hold by its addresses alone.

use core::fmt;
use core::ptr::NonNull;

use super::{BufferKind, Device};
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::dma::{AllocError, ConstraintError, Constraints, Request};
use crate::platform::Platform;

/// A driver frees memory that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLent {
    /// The device address that the driver named.
    pub dma: DmaAddr,
    /// The processor's address that the driver named.
    pub cpu: NonNull<u8>,
}

impl fmt::Display for NotLent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no buffer at {} with the pointer {:p} is allocated: the driver freed it already, or names \
             wrong addresses",
            self.dma, self.cpu
        )
    }
}

impl core::error::Error for NotLent {}

/// Returns the limits for memory that is named by one device address other than 0.
pub(super) fn as_one_segment(limits: &Constraints) -> Result<Constraints, ConstraintError> {
    let one = Constraints::builder().lowest(PAGE_SIZE as u64).max_segments(1).build()?;
    limits.narrowed_by(&one)
}

impl<P: Platform> Device<'_, P> {
    /// Allocates a zeroed buffer that the driver names by its two addresses: for the device and for the
    /// processor. It lives until [`free_raw`](Self::free_raw).
    ///
    /// For driver crates that have an interface of their own, and for C. The buffer is one segment of whole
    /// pages, and its device address is never 0. Access it volatile and make no reference to it
    /// ([M5](crate::rules#M5)). Sleeps and makes hypercalls as
    /// [`alloc_coherent`](Self::alloc_coherent) does, and has the same errors.
    pub fn alloc_raw(
        &self,
        request: impl Into<Request>,
    ) -> Result<(DmaAddr, NonNull<u8>), AllocError> {
        let request = request.into();
        let buffer = self.counted(|| {
            let limits = as_one_segment(&request.limits()?)?;
            self.serve(&request.within(&limits))
        })?;
        Ok(buffer.into_raw())
    }

    /// Frees the memory that [`alloc_raw`](Self::alloc_raw) returned with these addresses.
    ///
    /// Stop the device first. Makes no hypercall and takes the lock of the reserve alone.
    ///
    /// A device address alone does not identify memory. After a save and restore other machine frames back
    /// the guest, so an old address can equal a new one ([C75](crate::conformance#C75)). The processor's
    /// address stays unique as long as the memory is in use.
    ///
    /// # Errors
    /// [`NotLent`]: the two addresses are not those of one live buffer. Then nothing is freed.
    pub fn free_raw(&self, dma: DmaAddr, cpu: NonNull<u8>) -> Result<(), NotLent> {
        let entry = self.take_named(BufferKind::Raw, dma, cpu).ok_or(NotLent { dma, cpu })?;
        self.allocator().release_recorded(&entry);
        Ok(())
    }
}
