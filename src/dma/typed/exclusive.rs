//! Values in memory of which no device has the address yet.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::slice;

use bytemuck::Pod;

use super::coherent::Coherent;
use super::layout;
use crate::dma::{AllocError, Allocator, CoherentBuffer, Constraints};
use crate::platform::Platform;

/// A `T`, or values `[T]`, in memory of which no device has the address yet.
///
/// A driver fills them through references, which are faster and simpler than the cells of a
/// [`Coherent`]. This keeps [M5](crate::rules#M5): the box does not tell its address, so no device can
/// access the memory. [`share`](Self::share) consumes the box, and with it every reference. Only what it
/// returns has an address for the device. A [report](crate::dma::Device::report) names the address that the
/// device will see; a driver does not take it from there.
/// ```
/// use bytemuck::{Pod, Zeroable};
/// use xen_contig::dma::{AllocError, Allocator, Coherent, Constraints, Le};
/// use xen_contig::platform::Platform;
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Descriptor {
///     address: Le<u64>,
///     len: Le<u32>,
///     status: Le<u32>,
/// }
///
/// fn ring<'d, P: Platform>(
///     dma: &'d Allocator<P>,
///     device: &Constraints,
/// ) -> Result<Coherent<'d, P, [Descriptor]>, AllocError> {
///     let mut ring = dma.alloc_coherent_slice::<Descriptor>(16, device)?;
///     for descriptor in ring.iter_mut() {
///         descriptor.len = Le::new(4096);
///     }
///     Ok(ring.share())
/// }
/// ```
/// The box has no address for a device. A driver cannot use the box or a reference after `share`:
/// ```compile_fail,E0599
/// # use xen_contig::{dma::CoherentBox, platform::Platform};
/// fn early<P: Platform>(ring: &CoherentBox<'_, P, [u64]>) {
///     ring.dma_addr();
/// }
/// ```
/// ```compile_fail,E0382
/// # use xen_contig::{dma::CoherentBox, platform::Platform};
/// fn late<P: Platform>(mut ring: CoherentBox<'_, P, [u64]>) {
///     let shared = ring.share();
///     ring[0] = 1;
/// }
/// ```
/// ```compile_fail,E0505
/// # use xen_contig::{dma::CoherentBox, platform::Platform};
/// fn kept<P: Platform>(ring: CoherentBox<'_, P, [u64]>) -> u64 {
///     let first = &ring[0];
///     let shared = ring.share();
///     *first
/// }
/// ```
/// ```compile_fail,E0614
/// # use xen_contig::{dma::CoherentBox, platform::Platform};
/// fn shared<P: Platform>(ring: CoherentBox<'_, P, u64>) -> u64 {
///     *ring.share()
/// }
/// ```
/// A drop is that of a [`CoherentBuffer`].
pub struct CoherentBox<'d, P: Platform, T: ?Sized> {
    buffer: CoherentBuffer<'d, P>,
    _values: PhantomData<T>,
}

impl<P: Platform, T: ?Sized> fmt::Debug for CoherentBox<'_, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address is the one thing that the box does not tell.
        write!(f, "CoherentBox({} bytes)", self.buffer.len())
    }
}

impl<'d, P: Platform, T: ?Sized> CoherentBox<'d, P, T> {
    /// The values in `buffer`.
    ///
    /// # Safety
    /// No device has an address of the buffer, and its size is that of the values.
    pub(in crate::dma) const unsafe fn new(buffer: CoherentBuffer<'d, P>) -> Self {
        Self { buffer, _values: PhantomData }
    }

    /// Makes the memory one that a device may access.
    ///
    /// The result has the address for the device, and lends no references.
    pub fn share(self) -> Coherent<'d, P, T> {
        Coherent::new(self.buffer)
    }
}

impl<P: Platform, T: Pod> Deref for CoherentBox<'_, P, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the buffer has a `T`, which any bits are, at the start of a page. It is mapped and
        // its own ([M1](crate::rules#M1)), and no device accesses it, by `new`.
        unsafe { self.buffer.as_ptr().cast().as_ref() }
    }
}

impl<P: Platform, T: Pod> DerefMut for CoherentBox<'_, P, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the buffer has a `T`, which any bits are, at the start of a page. It is mapped and
        // its own ([M1](crate::rules#M1)), and no device accesses it, by `new`.
        unsafe { self.buffer.as_ptr().cast().as_mut() }
    }
}

impl<P: Platform, T: Pod> Deref for CoherentBox<'_, P, [T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let count = self.buffer.len() as usize / size_of::<T>();
        // SAFETY: the buffer has `count` values of type `T`, which any bits are, from the start of a page
        // on. It is mapped and its own ([M1](crate::rules#M1)), and no device accesses it, by `new`.
        unsafe { slice::from_raw_parts(self.buffer.as_ptr().cast().as_ptr(), count) }
    }
}

impl<P: Platform, T: Pod> DerefMut for CoherentBox<'_, P, [T]> {
    fn deref_mut(&mut self) -> &mut [T] {
        let count = self.buffer.len() as usize / size_of::<T>();
        // SAFETY: the buffer has `count` values of type `T`, which any bits are, from the start of a page
        // on. It is mapped and its own ([M1](crate::rules#M1)), and no device accesses it, by `new`.
        unsafe { slice::from_raw_parts_mut(self.buffer.as_ptr().cast().as_ptr(), count) }
    }
}

impl<P: Platform> Allocator<P> {
    /// Allocates a value for a device, and fills it with zeros.
    ///
    /// May sleep as [`alloc_coherent`](Self::alloc_coherent). A type without bytes, or with an alignment
    /// above a page, does not compile:
    /// ```compile_fail,E0080
    /// # use xen_contig::{dma::{AllocError, Allocator, Constraints}, platform::Platform};
    /// # use fake_xen::FakePlatform;
    /// fn nothing(dma: &Allocator<&FakePlatform>, device: &Constraints) {
    ///     let nothing = dma.alloc_coherent_box::<()>(device);
    /// }
    /// # fn main() { let _: fn(&'static Allocator<_>, &'static Constraints) = nothing; }
    /// ```
    ///
    /// # Errors
    /// As for [`alloc_coherent`](Self::alloc_coherent).
    pub fn alloc_coherent_box<T: Pod>(
        &self,
        constraints: &Constraints,
    ) -> Result<CoherentBox<'_, P, T>, AllocError> {
        let buffer = self.alloc_coherent(layout::size_of_value::<T>(), constraints)?;
        // SAFETY: the buffer is new, so no device has its address. It has the size of the value.
        Ok(unsafe { CoherentBox::new(buffer) })
    }

    /// Allocates `count` values for a device, and fills them with zeros.
    ///
    /// Otherwise as [`alloc_coherent_box`](Self::alloc_coherent_box).
    ///
    /// # Errors
    /// As for [`alloc_coherent`](Self::alloc_coherent). A size that no integer holds is
    /// [`AllocError::TooLarge`].
    pub fn alloc_coherent_slice<T: Pod>(
        &self,
        count: usize,
        constraints: &Constraints,
    ) -> Result<CoherentBox<'_, P, [T]>, AllocError> {
        let buffer = self.alloc_coherent(layout::size_of_values::<T>(count), constraints)?;
        // SAFETY: the buffer is new, so no device has its address. It has the size of the values.
        Ok(unsafe { CoherentBox::new(buffer) })
    }
}
