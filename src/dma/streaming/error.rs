//! Why memory was not mapped.

use core::fmt;

use crate::addr::{DmaAddr, Pfn};
use crate::dma::{AllocError, FailureCause};

/// Why memory was not mapped for a device, or why a mapping can no longer be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// There is no byte to map.
    Empty,
    /// A range goes on past the end of the address space.
    PastAddressSpace {
        /// The address of its first byte for the processor.
        address: u64,
        /// The bytes of the range.
        bytes: u64,
    },
    /// The bytes are more than the guest's memory.
    LargerThanGuest {
        /// The bytes to map, at most `u64::MAX`.
        bytes: u64,
        /// The bytes of the guest's memory.
        guest: u64,
    },
    /// No machine frame backs a page: it is in a transaction, or the guest returned it to Xen.
    NotBacked {
        /// The first byte of the page, from the start of the mapping.
        offset: u64,
        /// The guest frame.
        pfn: Pfn,
    },
    /// The device takes the memory neither where it lies nor in a bounce buffer.
    TooLong {
        /// The bytes to map.
        bytes: u64,
        /// The most bytes that can be mapped wherever they lie
        /// ([`max_mapping`](crate::dma::Device::max_mapping)).
        max: u64,
        /// The limit that a bounce buffer would exceed.
        limit: AllocError,
    },
    /// There is no memory for a bounce buffer.
    NoBounceMemory {
        /// The bytes of the bounce buffer.
        bytes: u64,
        /// Why there is none.
        error: AllocError,
    },
    /// Other machine frames back the memory since the domain was saved and restored, or migrated.
    Moved {
        /// The address that the device received for the first byte of the bounce buffer, if it moved.
        /// `None` if memory moved that the device accesses in place.
        bounce: Option<DmaAddr>,
    },
}

impl MapError {
    /// Returns true if the same call can succeed later although its caller changes nothing.
    ///
    /// Other drivers can release memory. A page that is in a transaction is soon backed again.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NotBacked { .. } => true,
            Self::NoBounceMemory { error, .. } => error.is_transient(),
            Self::Empty
            | Self::PastAddressSpace { .. }
            | Self::LargerThanGuest { .. }
            | Self::TooLong { .. }
            | Self::Moved { .. } => false,
        }
    }

    /// Returns the cause by which a device counts the error.
    pub(super) const fn cause(&self) -> FailureCause {
        match self {
            Self::NoBounceMemory { error, .. } | Self::TooLong { limit: error, .. } => {
                FailureCause::of(error)
            }
            Self::Moved { .. } => FailureCause::Moved,
            Self::Empty
            | Self::PastAddressSpace { .. }
            | Self::LargerThanGuest { .. }
            | Self::NotBacked { .. } => FailureCause::Request,
        }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("a mapping must have at least one byte"),
            Self::PastAddressSpace { address, bytes } => write!(
                f,
                "{bytes} bytes from {address:#x} on end past the last address: correct the length"
            ),
            Self::LargerThanGuest { bytes, guest } => write!(
                f,
                "{bytes} bytes are more than the {guest} bytes of the guest: correct the lengths, or map \
                 in parts"
            ),
            Self::NotBacked { offset, pfn } => write!(
                f,
                "no machine frame backs guest frame {pfn}, which has the byte at offset {offset} of the \
                 mapping: map memory that the guest has"
            ),
            Self::TooLong { bytes, max, limit } => write!(
                f,
                "{bytes} bytes cannot be mapped where they lie, and a bounce buffer is not possible: \
                 {limit}; map at most {max} bytes at a time"
            ),
            Self::NoBounceMemory { bytes, error } => {
                write!(f, "no bounce buffer of {bytes} bytes: {error}")
            }
            Self::Moved { bounce: Some(dma) } => write!(
                f,
                "the bounce buffer that the device has at {dma} moved: stop the device, drop the mapping \
                 and map again"
            ),
            Self::Moved { bounce: None } => f.write_str(
                "memory that the device accesses in place moved: stop the device, drop the mapping and map \
                 again",
            ),
        }
    }
}

impl core::error::Error for MapError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn every_error_says_what_failed_and_whether_it_can_pass() {
        let limit = AllocError::SegmentTooLong { size: 4097, max_segment: 4096 };
        let error = AllocError::MustNotSleep;
        let pfn = Pfn::new(7);
        let table = [
            (MapError::Empty, false, "at least one byte"),
            (
                MapError::PastAddressSpace { address: 0x1000, bytes: u64::MAX },
                false,
                "from 0x1000 on end past the last address",
            ),
            (
                MapError::LargerThanGuest { bytes: 9, guest: 8 },
                false,
                "9 bytes are more than the 8 bytes of the guest",
            ),
            (MapError::NotBacked { offset: 100, pfn }, true, "offset 100 of the mapping"),
            (
                MapError::TooLong { bytes: 4097, max: 4096, limit },
                false,
                "map at most 4096 bytes at a time",
            ),
            (MapError::NoBounceMemory { bytes: 4096, error }, true, "bounce buffer of 4096 bytes"),
            (MapError::Moved { bounce: None }, false, "accesses in place moved"),
            (MapError::Moved { bounce: Some(DmaAddr::new(0x5000)) }, false, "has at 0x5000 moved"),
        ];
        for (error, transient, words) in table {
            assert!(error.to_string().contains(words), "{error}");
            // A new variant does not compile until it is here.
            match error {
                MapError::Empty
                | MapError::PastAddressSpace { .. }
                | MapError::LargerThanGuest { .. }
                | MapError::NotBacked { .. }
                | MapError::TooLong { .. }
                | MapError::NoBounceMemory { .. }
                | MapError::Moved { .. } => {}
            }
            assert_eq!(error.is_transient(), transient, "{error}");
        }
    }
}
