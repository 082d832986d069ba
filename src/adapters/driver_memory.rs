//! The memory that a driver references by addresses alone.

use core::ptr::NonNull;

use crate::dma::{CoherentBuffer, DeviceRange, PoolObject};
use crate::platform::Platform;

/// Memory that a driver allocated, or a bounce buffer for the driver's own memory.
pub enum DriverMemory<P: Platform + 'static> {
    /// A buffer of the allocator.
    Buffer(CoherentBuffer<'static, P>),
    /// An object of the bounce pool.
    Object(PoolObject<'static, P>),
}

impl<P: Platform> DriverMemory<P> {
    /// Returns the device address that the driver has, and the memory at it.
    ///
    /// A buffer has one segment, because drivers have one address for it.
    pub fn device_range(&self) -> DeviceRange {
        match self {
            Self::Buffer(buffer) => buffer.device_range(),
            Self::Object(object) => object.device_range(),
        }
    }

    pub fn as_ptr(&self) -> NonNull<u8> {
        match self {
            Self::Buffer(buffer) => buffer.as_ptr(),
            Self::Object(object) => object.as_ptr(),
        }
    }

    /// Copies the first bytes of the memory into `into`.
    #[cfg(feature = "virtio-drivers")]
    pub fn read(&self, into: &mut [u8]) {
        let read = match self {
            Self::Buffer(buffer) => buffer.read(0, into),
            Self::Object(object) => object.read(0, into),
        };
        // The bounce buffer is at least as long as the driver's, so this cannot fail. If it did, the
        // driver's buffer would stay unchanged.
        debug_assert_eq!(read, Ok(()));
    }

    /// Copies `from` to the start of the memory.
    #[cfg(feature = "virtio-drivers")]
    pub fn write(&mut self, from: &[u8]) {
        let written = match self {
            Self::Buffer(buffer) => buffer.write(0, from),
            Self::Object(object) => object.write(0, from),
        };
        debug_assert_eq!(written, Ok(()));
    }
}
