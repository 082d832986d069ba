//! Why there is no object or no pool, with the evidence inside.

use core::fmt;

use super::MovedChunk;
use crate::dma::{AllocError, ConstraintError};

/// Why there is no object or no pool, or why objects cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// Objects of no bytes.
    ZeroSize,
    /// An object larger than any coherent buffer.
    TooLarge {
        /// Bytes of an object, or of a chunk.
        size: u64,
        /// Bytes that there can be.
        max: u64,
    },
    /// The alignment is not a power of two.
    Alignment {
        /// The alignment.
        align: u64,
    },
    /// The boundary is not a power of two.
    Boundary {
        /// The boundary.
        boundary: u64,
    },
    /// An object crosses the boundary wherever it lies.
    CrossesBoundary {
        /// Bytes of an object.
        size: u64,
        /// The boundary.
        boundary: u64,
    },
    /// The device takes no segment as long as an object.
    SegmentTooLong {
        /// Bytes of an object.
        size: u64,
        /// The most bytes in a segment.
        max_segment: u64,
    },
    /// A chunk that is not made of whole pages.
    Chunk {
        /// Bytes of a chunk.
        chunk: u64,
    },
    /// A chunk that has no room for one object.
    ChunkTooSmall {
        /// Bytes of a chunk.
        chunk: u64,
        /// Bytes of an object.
        size: u64,
    },
    /// More objects in a chunk than a pool keeps books of.
    TooManyObjects {
        /// Objects in a chunk.
        objects: u64,
        /// The most that there can be.
        max: u64,
    },
    /// A pool of no objects.
    ZeroLimit,
    /// More objects than the pool's type has room for.
    LimitAboveRoom {
        /// Objects wanted.
        limit: u64,
        /// Objects in as many chunks as the pool can have.
        room: u64,
    },
    /// More objects in reserve than there may be at all.
    ReserveAboveLimit {
        /// Objects in reserve.
        reserve: u64,
        /// The most objects.
        limit: u64,
    },
    /// The device's constraints contradict each other or those of a chunk.
    Constraints(ConstraintError),
    /// Every object is taken.
    ///
    /// The figures were read one after the other. While others take and give back, they need not be of
    /// one moment.
    Exhausted {
        /// Objects that the pool can hand out.
        capacity: u64,
        /// How many of them are taken.
        in_use: u64,
        /// Objects in chunks that moved ([C75](crate::conformance#C75)). They are not handed out any
        /// more, but count until the pool is trimmed.
        moved: u64,
        /// The most objects that the pool can have. If it is above all these, a refill helps.
        limit: u64,
    },
    /// The pool can have more objects, but the allocator has no memory for them.
    Alloc {
        /// Objects that the same refill had added before.
        added: u64,
        /// The allocator's error.
        error: AllocError,
    },
    /// Other machine frames back some chunks: the domain was saved and restored, or migrated. The pool
    /// hands out nothing of them any more.
    Moved {
        /// How many chunks.
        chunks: usize,
        /// How many of their objects are taken. Devices may know their addresses.
        taken: u64,
        /// The first of the chunks.
        first: MovedChunk,
    },
}

impl PoolError {
    /// Returns true if the same call can succeed later although its caller changes nothing.
    ///
    /// Objects can be given back, and the allocator can have memory again.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Exhausted { .. } => true,
            Self::Alloc { error, .. } => error.is_transient(),
            _ => false,
        }
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroSize => f.write_str("an object must have at least one byte"),
            Self::TooLarge { size, max } => write!(f, "{size} bytes are more than {max}"),
            Self::Alignment { align } => write!(f, "alignment {align:#x} is not a power of two"),
            Self::Boundary { boundary } => {
                write!(f, "boundary {boundary:#x} is not a power of two")
            }
            Self::CrossesBoundary { size, boundary } => {
                write!(f, "{size} bytes cross a multiple of {boundary:#x} wherever they lie")
            }
            Self::SegmentTooLong { size, max_segment } => {
                write!(f, "objects of {size} bytes are more than one segment of {max_segment}")
            }
            Self::Chunk { chunk } => {
                write!(f, "chunks of {chunk} bytes are not a multiple of the page size")
            }
            Self::ChunkTooSmall { chunk, size } => {
                write!(f, "chunks of {chunk} bytes have no room for an object of {size}")
            }
            Self::TooManyObjects { objects, max } => {
                write!(f, "{objects} objects in a chunk are more than {max}: take smaller chunks")
            }
            Self::ZeroLimit => f.write_str("a pool must be allowed at least one object"),
            Self::LimitAboveRoom { limit, room } => write!(
                f,
                "the pool has room for {room} objects, {limit} are wanted: give its type more \
                 chunks, or take larger ones"
            ),
            Self::ReserveAboveLimit { reserve, limit } => {
                write!(f, "{reserve} objects in reserve are more than the limit of {limit}")
            }
            Self::Constraints(error) => error.fmt(f),
            Self::Exhausted { capacity, in_use, moved, limit } => {
                write!(f, "{in_use} of the pool's {capacity} objects are taken, and ")?;
                match capacity.saturating_add(moved) < limit {
                    true => {
                        write!(f, "it may have {limit}: refill it where the caller can sleep")
                    }
                    false if moved > 0 => write!(
                        f,
                        "{moved} more have moved: drop what is taken of them, then trim the pool"
                    ),
                    false => f.write_str("it may have no more: raise its limit"),
                }
            }
            Self::Alloc { added: 0, error } => write!(f, "the pool cannot grow: {error}"),
            Self::Alloc { added, error } => {
                write!(f, "{added} objects were added, then the pool could not grow: {error}")
            }
            Self::Moved { chunks, taken, first } => write!(
                f,
                "{chunks} chunks of the pool have moved, {taken} of their objects are taken: drop \
                 those, then trim the pool; the first is {first}"
            ),
        }
    }
}

impl core::error::Error for PoolError {}

impl From<ConstraintError> for PoolError {
    fn from(error: ConstraintError) -> Self {
        Self::Constraints(error)
    }
}

impl From<AllocError> for PoolError {
    fn from(error: AllocError) -> Self {
        Self::Alloc { added: 0, error }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::addr::DmaAddr;
    use crate::dma::Moved;

    #[test]
    fn every_error_says_what_failed_and_whether_it_can_pass() {
        type Error = PoolError;
        let told = DmaAddr::new(0x5000);
        let moved = Moved { offset: 9, told, found: None };
        let first = MovedChunk { chunk: 3, objects: 8, taken: 2, moved };
        let (size, max) = (9, 8);
        let exhausted = |moved, limit| Error::Exhausted { capacity: 8, in_use: 8, moved, limit };
        let alloc = |added| Error::Alloc { added, error: AllocError::MustNotSleep };
        let never = Error::Alloc { added: 0, error: AllocError::ZeroSize };
        let bad = ConstraintError::MaskTooNarrow { mask: 0xfff };
        let table = [
            (0, Error::ZeroSize, false, "at least one byte"),
            (1, Error::TooLarge { size, max }, false, "9 bytes are more than 8"),
            (2, Error::Alignment { align: 24 }, false, "alignment 0x18"),
            (3, Error::Boundary { boundary: 24 }, false, "boundary 0x18"),
            (
                4,
                Error::CrossesBoundary { size, boundary: 8 },
                false,
                "9 bytes cross a multiple of 0x8",
            ),
            (
                5,
                Error::SegmentTooLong { size, max_segment: 8 },
                false,
                "9 bytes are more than one segment of 8",
            ),
            (6, Error::Chunk { chunk: 4097 }, false, "chunks of 4097"),
            (
                7,
                Error::ChunkTooSmall { chunk: 8, size },
                false,
                "8 bytes have no room for an object of 9",
            ),
            (
                8,
                Error::TooManyObjects { objects: 9, max },
                false,
                "9 objects in a chunk are more than 8",
            ),
            (9, Error::ZeroLimit, false, "at least one object"),
            (
                10,
                Error::LimitAboveRoom { limit: 9, room: 8 },
                false,
                "room for 8 objects, 9 are wanted",
            ),
            (
                11,
                Error::ReserveAboveLimit { reserve: 9, limit: 8 },
                false,
                "9 objects in reserve are more than the limit of 8",
            ),
            (12, Error::Constraints(bad), false, "mask 0xfff"),
            (
                13,
                exhausted(0, 8),
                true,
                "8 of the pool's 8 objects are taken, and it may have no more",
            ),
            (13, exhausted(0, 9), true, "it may have 9: refill"),
            (13, exhausted(u64::MAX, 9), true, "have moved: drop what is taken"),
            (14, alloc(0), true, "the pool cannot grow"),
            (14, alloc(7), true, "7 objects were added"),
            (14, never, false, "cannot grow"),
            (15, Error::Moved { chunks: 1, taken: 2, first }, false, "the first is chunk 3, of"),
        ];
        let mut next = 0;
        for (place, error, transient, words) in table {
            let text = error.to_string();
            assert!(text.contains(words), "{text}");
            assert_eq!(error.is_transient(), transient, "{text}");
            // A new variant does not compile until it has a place in the table.
            let own = match error {
                Error::ZeroSize => 0,
                Error::TooLarge { .. } => 1,
                Error::Alignment { .. } => 2,
                Error::Boundary { .. } => 3,
                Error::CrossesBoundary { .. } => 4,
                Error::SegmentTooLong { .. } => 5,
                Error::Chunk { .. } => 6,
                Error::ChunkTooSmall { .. } => 7,
                Error::TooManyObjects { .. } => 8,
                Error::ZeroLimit => 9,
                Error::LimitAboveRoom { .. } => 10,
                Error::ReserveAboveLimit { .. } => 11,
                Error::Constraints(_) => 12,
                Error::Exhausted { .. } => 13,
                Error::Alloc { .. } => 14,
                Error::Moved { .. } => 15,
            };
            assert_eq!(own, place, "{text}");
            assert!(place <= next, "every variant is in the table");
            next = place + 1;
        }
        assert_eq!(next, 16);
    }
}
