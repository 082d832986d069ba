//! Values in memory that a device may access at any time.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;

use bytemuck::Pod;

use super::cell::DmaCell;
use super::layout;
use crate::addr::DmaAddr;
use crate::dma::{BufferError, CoherentBuffer, Segment};
use crate::platform::Platform;

/// A `T`, or values `[T]`, in memory that a device may access at any time.
///
/// A driver gets it by [`alloc_coherent_slice`](crate::dma::Device::alloc_coherent_slice) or
/// [`alloc_coherent_box`](crate::dma::Device::alloc_coherent_box) and
/// [`share`](crate::dma::CoherentBox::share), or makes it of a buffer by
/// [`into_typed`](CoherentBuffer::into_typed). It lends no Rust reference to the values
/// ([M5](crate::rules#M5)). Each value is a [`DmaCell`]: [`cell`](Self::cell) returns that of a `T`,
/// [`at`](Self::at) and [`cells`](Self::cells) those of a `[T]`.
///
/// A type is a [`Pod`] if a device may write any bits to it and if it has no padding, whose bytes a copy
/// would lose. So none of these is:
/// ```compile_fail,E0277
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Descriptor {
///     address: u64,
///     done: bool, // A device can write 2.
///     _rest: [u8; 7],
/// }
/// ```
/// ```compile_fail,E0277
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Descriptor {
///     next: &'static u32, // A device can write any address.
/// }
/// ```
/// ```compile_fail,E0080
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Descriptor {
///     address: u64,
///     len: u32, // 4 bytes of padding follow.
/// }
/// ```
/// A drop returns the memory to the reserve: stop the device first. An interrupt handler may call the methods
/// that it may call of a [`CoherentBuffer`]. As with [`Cell`], the value can move to another thread, and
/// two threads cannot use it at once:
/// ```
/// # use xen_contig::dma::Coherent;
/// fn moves(_: impl Send) {}
/// # type Kernel = &'static fake_xen::FakePlatform;
/// fn ring(ring: Coherent<'static, Kernel, [u32]>) {
///     moves(ring);
/// }
/// ```
/// ```compile_fail,E0277
/// # use xen_contig::dma::Coherent;
/// fn is_used_at_once(_: impl Sync) {}
/// # type Kernel = &'static fake_xen::FakePlatform;
/// fn ring(ring: Coherent<'static, Kernel, [u32]>) {
///     is_used_at_once(ring);
/// }
/// ```
pub struct Coherent<'d, P: Platform, T: ?Sized> {
    buffer: CoherentBuffer<'d, P>,
    _values: PhantomData<Cell<T>>,
}

impl<P: Platform, T: ?Sized> fmt::Debug for Coherent<'_, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coherent({} bytes at {})", self.buffer.len(), self.dma_addr())
    }
}

impl<'d, P: Platform, T: ?Sized> Coherent<'d, P, T> {
    /// Returns the values in `buffer`, which has exactly their size.
    pub(super) const fn new(buffer: CoherentBuffer<'d, P>) -> Self {
        Self { buffer, _values: PhantomData }
    }

    /// Returns what goes into a device register for the first byte.
    pub const fn dma_addr(&self) -> DmaAddr {
        self.buffer.dma_addr()
    }

    /// Iterates over what the device sees, first to last. See [`CoherentBuffer::segments`].
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.buffer.segments()
    }

    /// Checks that every page still has the address that the device received. See
    /// [`CoherentBuffer::check_in_place`].
    ///
    /// # Errors
    /// [`BufferError::Moved`]: the first page that is not.
    pub fn check_in_place(&self) -> Result<(), BufferError> {
        self.buffer.check_in_place()
    }

    /// Returns the cell of the value at `offset`.
    ///
    /// # Errors
    /// If it is not within the memory.
    fn cell_at<V: Pod>(&self, offset: u64) -> Result<DmaCell<'_, P::Memory, V>, BufferError> {
        let at = self.buffer.span().place(offset, size_of::<V>() as u64, align_of::<V>() as u64)?;
        // SAFETY: `place` returns an aligned address of a value within the buffer. Its frames are
        // mapped and its own ([M1](crate::rules#M1)), and the cell's lifetime borrows it. Only this
        // thread accesses it: neither `Coherent` nor the cell is `Sync`.
        Ok(unsafe { DmaCell::new(self.buffer.memory(), at) })
    }
}

impl<P: Platform, T: Pod> Coherent<'_, P, T> {
    /// Returns the cell of the value.
    pub fn cell(&self) -> DmaCell<'_, P::Memory, T> {
        match self.cell_at(0) {
            Ok(cell) => cell,
            Err(_) => unreachable!("the buffer has the size of the value"),
        }
    }
}

impl<P: Platform, T: Pod> Coherent<'_, P, [T]> {
    /// Returns the number of values.
    #[expect(clippy::len_without_is_empty, reason = "no buffer is empty")]
    pub const fn len(&self) -> usize {
        self.buffer.len() as usize / size_of::<T>()
    }

    /// Returns the cell of the value with a number, from 0 on.
    ///
    /// # Errors
    /// [`BufferError::NoElement`] if there is none with this number.
    pub fn at(&self, index: usize) -> Result<DmaCell<'_, P::Memory, T>, BufferError> {
        let no_element = BufferError::NoElement { index, count: self.len() };
        let offset = self.offset(index).ok_or(no_element)?;
        self.cell_at(offset).map_err(|_| no_element)
    }

    /// Iterates over the cells, first to last.
    pub fn cells(&self) -> impl Iterator<Item = DmaCell<'_, P::Memory, T>> {
        (0..self.len()).filter_map(|index| self.at(index).ok())
    }

    /// Returns what goes into a device register for the first byte of a value; `None` past the last.
    ///
    /// A value can lie in two segments, if the device takes several.
    pub fn dma_addr_at(&self, index: usize) -> Option<DmaAddr> {
        self.buffer.dma_addr_at(self.offset(index)?)
    }

    fn offset(&self, index: usize) -> Option<u64> {
        (index as u64).checked_mul(size_of::<T>() as u64)
    }
}

impl<'d, P: Platform> CoherentBuffer<'d, P> {
    /// Makes the memory a value of type `T`, whose bytes it has already.
    ///
    /// A type without bytes, or with an alignment above a page, does not compile. The value is shared,
    /// because a device may have the address of the buffer already. A value that is exclusive at first
    /// is made by [`alloc_coherent_box`](crate::dma::Allocator::alloc_coherent_box).
    ///
    /// # Errors
    /// [`BufferError::WrongSize`] if the buffer does not have the size of the value. The buffer is
    /// released.
    pub fn into_typed<T: Pod>(self) -> Result<Coherent<'d, P, T>, BufferError> {
        let (len, size) = (self.len(), layout::size_of_value::<T>());
        if len != size {
            Err(BufferError::WrongSize { len, size })
        } else {
            Ok(Coherent::new(self))
        }
    }

    /// Makes the memory as many values of type `T` as it has room for.
    ///
    /// Otherwise as [`into_typed`](Self::into_typed).
    ///
    /// # Errors
    /// [`BufferError::WrongSize`] if bytes would remain. The buffer is released.
    pub fn into_typed_slice<T: Pod>(self) -> Result<Coherent<'d, P, [T]>, BufferError> {
        let (len, size) = (self.len(), layout::size_of_value::<T>());
        match len.is_multiple_of(size) {
            true => Ok(Coherent::new(self)),
            false => Err(BufferError::WrongSize { len, size }),
        }
    }
}
