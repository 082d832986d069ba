//! What can go wrong with memory that a driver has.

use core::fmt;

use super::Moved;

/// Why memory was not accessed or not split, or why a device cannot use it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BufferError {
    /// The access is not within the memory.
    OutOfBounds {
        /// The first byte of the access, from the start of the memory.
        offset: u64,
        /// Bytes of the access.
        bytes: u64,
        /// Bytes of the memory.
        len: u64,
    },
    /// The address of the access is not a multiple of its width.
    Misaligned {
        /// The first byte of the access, from the start of the memory.
        offset: u64,
        /// The width of the access, in bytes.
        width: u64,
    },
    /// A buffer can only be split at a page boundary within it.
    NoPageBoundary {
        /// Where it was to be split, in bytes.
        at: u64,
        /// Bytes of the buffer.
        len: u64,
    },
    /// The memory has no value with this number.
    NoElement {
        /// The number, from 0 on.
        index: usize,
        /// The number of values.
        count: usize,
    },
    /// The values would not fill the buffer exactly.
    WrongSize {
        /// Bytes of the buffer.
        len: u64,
        /// Bytes of a value.
        size: u64,
    },
    /// The kernel has no free frame for the record of the other part.
    NoRecordMemory,
    /// Other machine frames back the memory since the domain was saved and restored, or migrated.
    Moved(Moved),
}

impl BufferError {
    /// Returns true if the same call can succeed later although its caller changes nothing: the kernel can
    /// have a free frame again.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::NoRecordMemory)
    }
}

impl fmt::Display for BufferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { offset, bytes, len } => {
                write!(
                    f,
                    "{bytes} bytes at offset {offset} are not within the {len} bytes of memory"
                )
            }
            Self::Misaligned { offset, width } => write!(
                f,
                "the byte at offset {offset} has an address that is not a multiple of {width}: use \
                 narrower accesses"
            ),
            Self::NoPageBoundary { at, len } => write!(
                f,
                "a buffer of {len} bytes cannot be split at {at}: choose a multiple of 4096 within it"
            ),
            Self::NoElement { index, count } => write!(
                f,
                "there is no value number {index}: the memory has {count}, numbered from 0"
            ),
            Self::WrongSize { len, size } => write!(
                f,
                "values of {size} bytes do not fill a buffer of {len} bytes exactly: allocate a \
                 multiple of {size}, or exactly {size} for one value"
            ),
            Self::NoRecordMemory => f.write_str(
                "the kernel has no free frame for the record of the other part: free memory of the kernel",
            ),
            Self::Moved(moved) => moved.fmt(f),
        }
    }
}

impl core::error::Error for BufferError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::addr::DmaAddr;

    #[test]
    fn every_error_says_what_failed_and_whether_it_can_pass() {
        let device_address = DmaAddr::new(0x5000);
        let moved = |found| BufferError::Moved(Moved { offset: 9, device_address, found });
        let table = [
            (BufferError::OutOfBounds { offset: 8, bytes: 4, len: 10 }, "4 bytes at offset 8"),
            (
                BufferError::Misaligned { offset: 3, width: 2 },
                "offset 3 has an address that is not a multiple of 2",
            ),
            (
                BufferError::NoPageBoundary { at: 5, len: 10 },
                "a buffer of 10 bytes cannot be split at 5",
            ),
            (
                BufferError::NoElement { index: 16, count: 16 },
                "no value number 16: the memory has 16, numbered from 0",
            ),
            (
                BufferError::WrongSize { len: 100, size: 16 },
                "values of 16 bytes do not fill a buffer of 100 bytes",
            ),
            (BufferError::NoRecordMemory, "no free frame for the record"),
            (moved(None), "offset 9 was at 0x5000 for the device and is nowhere"),
            (moved(Some(DmaAddr::new(0x7000))), "is at 0x7000: allocate anew"),
        ];
        for (error, words) in table {
            assert!(error.to_string().contains(words), "{error}");
            let transient = match error {
                BufferError::OutOfBounds { .. }
                | BufferError::Misaligned { .. }
                | BufferError::NoPageBoundary { .. }
                | BufferError::NoElement { .. }
                | BufferError::WrongSize { .. }
                | BufferError::Moved(_) => false,
                BufferError::NoRecordMemory => true,
            };
            assert_eq!(error.is_transient(), transient, "{error}");
        }
    }
}
