//! Typed memory of a device.

use bytemuck::Pod;

use super::exclusive::CoherentBox;
use super::layout;
use crate::dma::{AllocError, Device, Request};
use crate::platform::Platform;

impl<P: Platform> Device<'_, P> {
    /// Allocates a zeroed value within the limits of the device and of the request.
    ///
    /// The type decides the size: that of the request is ignored. A tag alone is a request, too. Sleeps
    /// and makes hypercalls as [`alloc_coherent`](Self::alloc_coherent) does.
    ///
    /// # Errors
    /// As for [`alloc_coherent`](Self::alloc_coherent).
    pub fn alloc_coherent_box<T: Pod>(
        &self,
        request: impl Into<Request>,
    ) -> Result<CoherentBox<'_, P, T>, AllocError> {
        let request = request.into().with_size(layout::size_of_value::<T>());
        // SAFETY: the buffer is new, so no device has its address. It has the size of the value.
        Ok(unsafe { CoherentBox::new(self.alloc_coherent(request)?) })
    }

    /// Allocates `count` zeroed values within the limits of the device and of the request.
    ///
    /// Otherwise as [`alloc_coherent_box`](Self::alloc_coherent_box):
    /// ```
    /// use xen_contig::dma::{AllocError, CoherentBox, Device, Le, Request};
    /// use xen_contig::platform::Platform;
    ///
    /// type Indexes<'d, P> = CoherentBox<'d, P, [Le<u16>]>;
    ///
    /// fn indexes<'d, P: Platform>(nic: &'d Device<'_, P>) -> Result<Indexes<'d, P>, AllocError> {
    ///     nic.alloc_coherent_slice(256, Request::tagged("available").max_segments(1))
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`alloc_coherent`](Self::alloc_coherent). A size that no integer holds is
    /// [`AllocError::TooLarge`].
    pub fn alloc_coherent_slice<T: Pod>(
        &self,
        count: usize,
        request: impl Into<Request>,
    ) -> Result<CoherentBox<'_, P, [T]>, AllocError> {
        let request = request.into().with_size(layout::size_of_values::<T>(count));
        // SAFETY: the buffer is new, so no device has its address. It has the size of the values.
        Ok(unsafe { CoherentBox::new(self.alloc_coherent(request)?) })
    }
}
