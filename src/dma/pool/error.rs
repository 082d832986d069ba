//! Why there is no pool or no object.

use core::fmt;

use super::MovedChunk;
use crate::dma::error::FreeFrames;
use crate::dma::{AllocError, ConstraintError};

/// Why there is no pool or no object, or why a device can no longer use objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolError {
    pool: &'static str,
    kind: PoolErrorKind,
}

/// What failed, with the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolErrorKind {
    /// Objects must have at least one byte.
    ZeroSize,
    /// An object or a chunk is larger than any coherent buffer.
    TooLarge {
        /// Bytes of the object or of the chunk.
        size: u64,
        /// The most bytes of a buffer.
        max: u64,
    },
    /// The alignment is not a power of two, or too large.
    Alignment {
        /// The alignment.
        align: u64,
        /// The largest alignment.
        max: u64,
    },
    /// An object crosses the device's boundary at any address.
    CrossesBoundary {
        /// Bytes of an object.
        size: u64,
        /// The boundary.
        boundary: u64,
    },
    /// An object is longer than one segment of the device.
    SegmentTooLong {
        /// Bytes of an object.
        size: u64,
        /// The most bytes in a segment.
        max_segment: u64,
    },
    /// The reserve has more objects than the limit allows.
    ReserveAboveLimit {
        /// Objects in reserve.
        reserve: u64,
        /// The most objects.
        limit: u64,
    },
    /// The device's constraints contradict the alignment of the objects.
    Constraints(ConstraintError),
    /// Every object is in use, and the call does not add any, or the limit is reached.
    ///
    /// The figures are read one after the other. While other vCPUs allocate and drop objects, they
    /// need not belong to one moment.
    Exhausted {
        /// Objects of the pool.
        objects: u64,
        /// Objects in use.
        in_use: u64,
        /// Objects in chunks that moved ([C75](crate::conformance#C75)), in use or not. They count
        /// until the pool is trimmed.
        moved: u64,
        /// The most objects that the pool may have. If it is above `objects`, a refill helps.
        limit: u64,
    },
    /// The allocator has no memory for another chunk.
    Alloc {
        /// Objects that the same refill added before.
        added: u64,
        /// The allocator's error.
        error: AllocError,
    },
    /// The kernel has no free frames for the records of another chunk.
    RecordMemory {
        /// Objects that the same refill added before.
        added: u64,
        /// Frames in a row that are needed.
        frames: u64,
    },
    /// Other machine frames back some chunks since a restore or a migration.
    ///
    /// The pool hands out no object of them.
    Moved {
        /// How many chunks.
        chunks: u64,
        /// Objects of these chunks that are in use. Devices may have their addresses.
        in_use: u64,
        /// The first of the chunks.
        first: MovedChunk,
    },
}

impl PoolError {
    pub(super) const fn new(pool: &'static str, kind: PoolErrorKind) -> Self {
        Self { pool, kind }
    }

    /// Returns the name of the pool.
    pub const fn pool(&self) -> &'static str {
        self.pool
    }

    /// Returns what failed.
    pub const fn kind(&self) -> PoolErrorKind {
        self.kind
    }

    /// Returns true if the same call can succeed later although its caller changes nothing.
    ///
    /// Objects can be dropped, and the allocator and the kernel can have memory again.
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            PoolErrorKind::Exhausted { .. } | PoolErrorKind::RecordMemory { .. } => true,
            PoolErrorKind::Alloc { error, .. } => error.is_transient(),
            _ => false,
        }
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}: {}", self.pool, self.kind)
    }
}

impl core::error::Error for PoolError {}

impl fmt::Display for PoolErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroSize => f.write_str("an object must have at least one byte"),
            Self::TooLarge { size, max } => {
                write!(
                    f,
                    "{size} bytes are more than a buffer can have, at most {max} bytes: make objects or \
                     chunks smaller"
                )
            }
            Self::Alignment { align, max } => {
                write!(f, "alignment {align:#x} must be a power of two of at most {max:#x}")
            }
            Self::CrossesBoundary { size, boundary } => {
                write!(
                    f,
                    "objects of {size} bytes cross the boundary {boundary:#x}: reduce the size, or \
                     correct the boundary"
                )
            }
            Self::SegmentTooLong { size, max_segment } => {
                write!(
                    f,
                    "objects of {size} bytes are longer than a segment of {max_segment} bytes: reduce \
                     the size, or correct the longest segment"
                )
            }
            Self::ReserveAboveLimit { reserve, limit } => {
                write!(
                    f,
                    "a reserve of {reserve} objects is above the limit of {limit}: reduce the reserve, \
                     or raise the limit"
                )
            }
            Self::Constraints(error) => error.fmt(f),
            Self::Exhausted { objects, in_use, moved, limit } => {
                write!(f, "no object is available, {in_use} of {objects} are in use: ")?;
                match moved {
                    _ if objects < limit => {
                        f.write_str("refill the pool where the caller may sleep")
                    }
                    0 => write!(f, "raise the limit of {limit}"),
                    _ => write!(f, "{moved} have moved: drop those in use and trim the pool"),
                }
            }
            Self::Alloc { added, error } => {
                write!(f, "no memory for another chunk after {added} objects were added: {error}")
            }
            Self::RecordMemory { added, frames } => write!(
                f,
                "no {} for records after {added} objects were added: free memory of the kernel",
                FreeFrames(frames)
            ),
            Self::Moved { chunks, in_use, first } => write!(
                f,
                "{chunks} chunks have moved, {in_use} of their objects are in use: drop those and \
                 trim the pool; the first is {first}"
            ),
        }
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
        type Kind = PoolErrorKind;
        let moved = Moved { offset: 9, device_address: DmaAddr::new(0x5000), found: None };
        let first = MovedChunk { objects: 8, in_use: 2, moved };
        let (size, max, limit) = (9, 8, 8);
        let exhausted = |moved, limit| Kind::Exhausted { objects: 8, in_use: 7, moved, limit };
        let bad = ConstraintError::MaskTooNarrow { mask: 0xfff };
        let table = [
            (Kind::ZeroSize, false, "at least one byte"),
            (
                Kind::TooLarge { size, max },
                false,
                "9 bytes are more than a buffer can have, at most 8 bytes",
            ),
            (Kind::Alignment { align: 24, max }, false, "alignment 0x18"),
            (
                Kind::CrossesBoundary { size, boundary: 8 },
                false,
                "9 bytes cross the boundary 0x8: reduce",
            ),
            (
                Kind::SegmentTooLong { size, max_segment: 8 },
                false,
                "longer than a segment of 8 bytes: reduce",
            ),
            (
                Kind::ReserveAboveLimit { reserve: 9, limit },
                false,
                "9 objects is above the limit of 8: reduce",
            ),
            (Kind::Constraints(bad), false, "mask 0xfff"),
            (exhausted(0, 8), true, "7 of 8 are in use: raise the limit of 8"),
            (exhausted(0, 9), true, "refill the pool"),
            (exhausted(4, 8), true, "4 have moved: drop those in use"),
            (Kind::Alloc { added: 7, error: AllocError::MustNotSleep }, true, "after 7 objects"),
            (Kind::Alloc { added: 0, error: AllocError::ZeroSize }, false, "no memory for another"),
            (Kind::RecordMemory { added: 7, frames: 3 }, true, "no 3 free frames in a row"),
            (Kind::Moved { chunks: 1, in_use: 2, first }, false, "2 of 8 objects in use: the byte"),
        ];
        for (kind, transient, words) in table {
            let error = PoolError::new("packets", kind);
            let text = error.to_string();
            assert!(text.starts_with("pool packets: ") && text.contains(words), "{text}");
            assert_eq!(error.is_transient(), transient, "{text}");
            // A new variant does not compile until it is named here: add it to the table too.
            match kind {
                Kind::ZeroSize
                | Kind::TooLarge { .. }
                | Kind::Alignment { .. }
                | Kind::CrossesBoundary { .. }
                | Kind::SegmentTooLong { .. }
                | Kind::ReserveAboveLimit { .. }
                | Kind::Constraints(_)
                | Kind::Exhausted { .. }
                | Kind::Alloc { .. }
                | Kind::RecordMemory { .. }
                | Kind::Moved { .. } => {}
            }
        }
    }
}
