//! What a driver has.

use core::ptr::NonNull;

use crate::dma::{CoherentBuffer, PoolObject, Told};
use crate::platform::Platform;

/// What a driver has, or what stands in for what it has.
pub enum Memory<P: Platform + 'static> {
    /// Of the allocator.
    Buffer(CoherentBuffer<'static, P>),
    /// Of the pool.
    Object(PoolObject<'static, P>),
}

impl<P: Platform> Memory<P> {
    /// What the device was told. A buffer has one segment: drivers have one address for it.
    pub fn told(&self) -> Told {
        match self {
            Self::Buffer(buffer) => buffer.told_first(),
            Self::Object(object) => object.told(),
        }
    }

    pub fn as_ptr(&self) -> NonNull<u8> {
        match self {
            Self::Buffer(buffer) => buffer.as_ptr(),
            Self::Object(object) => object.as_ptr(),
        }
    }

    /// Copies bytes out of its beginning.
    #[cfg(feature = "virtio-drivers")]
    pub fn read(&self, into: &mut [u8]) {
        let read = match self {
            Self::Buffer(buffer) => buffer.read(0, into),
            Self::Object(object) => object.read(0, into),
        };
        // Made for as many bytes; were it not so, the driver would keep what it had.
        debug_assert_eq!(read, Ok(()));
    }

    /// Copies bytes to its beginning.
    #[cfg(feature = "virtio-drivers")]
    pub fn write(&mut self, from: &[u8]) {
        let written = match self {
            Self::Buffer(buffer) => buffer.write(0, from),
            Self::Object(object) => object.write(0, from),
        };
        debug_assert_eq!(written, Ok(()));
    }
}
