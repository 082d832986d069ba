//! Limits of a device that contradict each other.

use core::fmt;

/// Constraints that nothing can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The device reaches less than two pages, and Xen keeps the first.
    MaskTooNarrow {
        /// The mask.
        mask: u64,
    },
    /// The lowest address leaves no whole page below the mask.
    NothingBetween {
        /// The lowest address.
        lowest: u64,
        /// The mask.
        mask: u64,
    },
    /// The alignment is not a power of two.
    Alignment {
        /// The alignment.
        align: u64,
    },
    /// No address that the device reaches has this alignment.
    AlignmentAboveMask {
        /// The alignment.
        align: u64,
        /// The mask.
        mask: u64,
    },
    /// The alignment of mappings is not a power of two, or above a page.
    StreamingAlignment {
        /// The alignment.
        align: u64,
    },
    /// The boundary is not a power of two.
    Boundary {
        /// The boundary.
        boundary: u64,
    },
    /// A segment of no bytes.
    MaxSegment,
    /// The device takes no segment.
    MaxSegments,
    /// Node 255 stands for any node in Xen's interface.
    Node {
        /// The node.
        node: u8,
    },
}

impl ConstraintError {
    /// Returns false: the same call fails again, because the same limits contradict each other.
    pub const fn is_transient(&self) -> bool {
        false
    }
}

impl fmt::Display for ConstraintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MaskTooNarrow { mask } => write!(
                f,
                "mask {mask:#x} is below 0x1fff: a device must reach two pages, because Xen keeps the \
                 first"
            ),
            Self::NothingBetween { lowest, mask } => {
                write!(
                    f,
                    "no whole page lies between {lowest:#x} and mask {mask:#x}: correct the device's limits"
                )
            }
            Self::Alignment { align } => write!(f, "alignment {align:#x} must be a power of two"),
            Self::AlignmentAboveMask { align, mask } => {
                write!(
                    f,
                    "alignment {align:#x} is above mask {mask:#x}: reduce it, or correct the mask"
                )
            }
            Self::StreamingAlignment { align } => {
                write!(f, "streaming alignment {align:#x} must be a power of two, at most 0x1000")
            }
            Self::Boundary { boundary } => {
                write!(f, "boundary {boundary:#x} must be a power of two")
            }
            Self::MaxSegment => {
                f.write_str("a segment must have at least one byte: max_segment is 0")
            }
            Self::MaxSegments => {
                f.write_str("a device must take at least one segment: max_segments is 0")
            }
            Self::Node { node } => {
                write!(f, "node {node} means any node to Xen: use `Node::Any`")
            }
        }
    }
}

impl core::error::Error for ConstraintError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_failed_and_whether_it_can_pass() {
        extern crate std;
        use std::string::ToString;
        type Error = ConstraintError;
        let table = [
            (Error::MaskTooNarrow { mask: 0xfff }, "mask 0xfff is below 0x1fff"),
            (
                Error::NothingBetween { lowest: 0xf001, mask: 0xffff },
                "between 0xf001 and mask 0xffff",
            ),
            (Error::Alignment { align: 24 }, "alignment 0x18"),
            (
                Error::AlignmentAboveMask { align: 1 << 20, mask: 0xffff },
                "alignment 0x100000 is above mask 0xffff",
            ),
            (Error::StreamingAlignment { align: 0x2000 }, "streaming alignment 0x2000"),
            (Error::Boundary { boundary: 12 }, "boundary 0xc"),
            (Error::MaxSegment, "at least one byte"),
            (Error::MaxSegments, "at least one segment"),
            (Error::Node { node: 255 }, "node 255 means any node to Xen"),
        ];
        for (place, (error, words)) in table.into_iter().enumerate() {
            assert!(error.to_string().contains(words), "{error}");
            // A new variant does not compile until it has a place in the table.
            let (own, transient) = match error {
                Error::MaskTooNarrow { .. } => (0, false),
                Error::NothingBetween { .. } => (1, false),
                Error::Alignment { .. } => (2, false),
                Error::AlignmentAboveMask { .. } => (3, false),
                Error::StreamingAlignment { .. } => (4, false),
                Error::Boundary { .. } => (5, false),
                Error::MaxSegment => (6, false),
                Error::MaxSegments => (7, false),
                Error::Node { .. } => (8, false),
            };
            assert_eq!((own, transient), (place, error.is_transient()), "{error}");
        }
    }
}
