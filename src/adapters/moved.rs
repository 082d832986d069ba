//! What the save and restore, or the migration, of the domain does to memory of drivers
//! ([C75](crate::conformance#C75)).

use core::fmt;

use crate::addr::DmaAddr;
use crate::dma::Moved;

/// What memory was lent for; only the same purpose takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The driver asked for it.
    Allocated = 2,
    /// It stands in for memory of the driver's.
    Bounce = 3,
}

/// A buffer of a driver's whose machine frames are not what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedBuffer {
    /// The address by which the driver knows it.
    pub dma: DmaAddr,
    /// How many bytes; of a bounce buffer out of a pool, as many as its objects have.
    pub len: u64,
    /// What the driver has it for.
    pub purpose: Purpose,
    /// The first byte that the device would not find.
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
