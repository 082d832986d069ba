//! Buffers of drivers that other machine frames back now.
//!
//! A save and restore, or a migration, of the domain can move them ([C75](crate::conformance#C75)).

use core::fmt;

use crate::addr::DmaAddr;
use crate::dma::Moved;

/// What a driver uses a buffer for. A buffer is freed for the same purpose only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The driver allocated the buffer.
    Allocated = 2,
    /// The buffer replaces memory of the driver that the device cannot access in place.
    Bounce = 3,
}

/// A buffer of a driver that other machine frames back now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedBuffer {
    /// The device address that the driver has for it.
    pub dma: DmaAddr,
    /// Its length in bytes. For a bounce buffer from a pool this is the size of the pool's objects.
    pub len: u64,
    /// What the driver uses it for.
    pub purpose: Purpose,
    /// The first byte that is not at its device address.
    pub moved: Moved,
}

impl fmt::Display for MovedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dma, len, purpose, moved } = self;
        let purpose = match purpose {
            Purpose::Allocated => "allocated",
            Purpose::Bounce => "a bounce buffer",
        };
        write!(f, "{len} bytes at {dma}, {purpose}: {moved}")
    }
}
