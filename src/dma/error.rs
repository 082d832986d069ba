//! Why there is no buffer, with the evidence inside.

use core::fmt;

use super::{ConstraintError, Constraints};
use crate::addr::{AddressBits, Order, PAGE_SIZE};
use crate::exchange::{ExchangeError, Node};

/// What helps against a segment limit below a page.
const POOL: &str = "cut smaller objects out of a pool";
/// What helps against any other.
const SEGMENTS: &str = "allow more segments";

/// What to do about a buffer that is longer than one segment may be.
const fn remedy(longest: u64) -> &'static str {
    if longest < PAGE_SIZE as u64 { POOL } else { SEGMENTS }
}

/// Why there is no buffer. Nothing was lost, except where the error says quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// No bytes were asked for.
    ZeroSize,
    /// The size is above the largest extent of any Xen.
    TooLarge {
        /// Bytes asked for.
        size: u64,
        /// The most bytes of a buffer.
        max: u64,
    },
    /// The constraints contradict each other.
    Constraints(ConstraintError),
    /// One extent is needed, and Xen does not permit this domain one of that order.
    OrderNotPermitted {
        /// The order needed.
        order: Order,
        /// The highest order that Xen permits.
        limit: Order,
    },
    /// One segment was requested, and the device takes none so long.
    SegmentTooLong {
        /// Bytes asked for.
        size: u64,
        /// The most bytes in a segment.
        max_segment: u64,
    },
    /// One segment was requested, and it crosses the boundary at any address.
    CrossesBoundary {
        /// Bytes asked for.
        size: u64,
        /// The boundary.
        boundary: u64,
    },
    /// The segments that the device takes, or that Xen permits, are shorter than their own alignment,
    /// or than a page.
    SegmentBelowAlignment {
        /// Bytes of the longest segment.
        segment: u64,
        /// The alignment.
        align: u64,
        /// The highest order that Xen permits, where that is why they are so short and not the
        /// device.
        limit: Option<Order>,
    },
    /// More segments are needed than the device takes, wherever the memory lies.
    TooManySegments {
        /// Segments needed at least.
        needed: u64,
        /// Segments that it takes.
        allowed: usize,
        /// Bytes of the longest segment.
        segment: u64,
    },
    /// The guest has no free frames in a row.
    NoGuestMemory {
        /// How many are needed.
        frames: u64,
        /// How many frames the transactions of other vCPUs hold at the moment.
        in_transactions: u64,
    },
    /// The guest has no memory for the extent lists.
    NoListMemory {
        /// Words needed.
        words: u64,
    },
    /// The reserve has no block that fits, and the caller must not sleep.
    MustNotSleep,
    /// Xen handed out memory, but none of it lay where the device reaches it, although an eighth of the
    /// guest's free memory was exchanged.
    OutOfReach {
        /// The lowest address allowed.
        lowest: u64,
        /// The highest one.
        mask: u64,
    },
    /// The buffer is larger than what lies between the lowest address and the mask.
    LargerThanReach {
        /// Bytes asked for.
        size: u64,
        /// What the buffer's address must be a multiple of. If the device takes one segment, that is
        /// at least the smallest power of two of pages that holds the buffer.
        align: u64,
        /// The lowest address allowed.
        lowest: u64,
        /// The highest one.
        mask: u64,
    },
    /// A translated guest has no free frames in a row where the device reaches them.
    NoFramesInReach {
        /// How many are needed.
        frames: u64,
        /// What the address of the first must be a multiple of.
        align: u64,
        /// The lowest address allowed.
        lowest: u64,
        /// The highest one.
        mask: u64,
    },
    /// Xen has no such memory on exactly that NUMA node, or the machine has no such node.
    NoMemoryOnNode {
        /// The node.
        node: u8,
        /// The order asked for.
        order: Order,
        /// The address limit.
        bits: AddressBits,
    },
    /// Xen hides from a translated guest on which NUMA node its memory lies.
    NodeUnknown {
        /// The node of which memory was asked for exactly.
        node: u8,
    },
    /// Memory in use should be made contiguous, and the guest is translated: the addresses that devices
    /// see there are the guest's own.
    MemoryInUseStays,
    /// Xen refused the exchange.
    Exchange(ExchangeError),
    /// Frames of the guest's could not be brought back after a refusal: they are quarantined.
    Lost {
        /// How many.
        frames: u64,
        /// What went wrong.
        error: ExchangeError,
    },
    /// The domain has more frames than it may have, so Xen would not replace what a refill returns.
    AboveMaximum {
        /// The number of frames that the domain has.
        current: u64,
        /// The most frames that it may have.
        maximum: u64,
    },
    /// Xen permits no exchange at all.
    NoExchange(ExchangeError),
    /// All records of the device are in use, and the caller must not sleep.
    RecordsFull {
        /// How many records.
        records: u64,
    },
    /// The kernel has no free frames for the records of the device.
    NoRecordMemory {
        /// How many frames in a row are needed.
        frames: u64,
    },
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroSize => f.write_str("a buffer must have at least one byte"),
            Self::TooLarge { size, max } => {
                write!(
                    f,
                    "{size} bytes are more than {max}, the most of any buffer: allocate several"
                )
            }
            Self::Constraints(error) => error.fmt(f),
            Self::OrderNotPermitted { order, limit } => write!(
                f,
                "one extent of order {order} is needed, Xen permits this domain order {limit}: allow \
                 more segments, or raise Xen's memop-max-order"
            ),
            Self::SegmentTooLong { size, max_segment } => write!(
                f,
                "{size} bytes are more than one segment of {max_segment}: {}",
                remedy(max_segment)
            ),
            Self::CrossesBoundary { size, boundary } => write!(
                f,
                "{size} bytes cross a multiple of {boundary:#x} wherever they lie: {}",
                remedy(boundary)
            ),
            Self::SegmentBelowAlignment { segment, align, limit: None } => write!(
                f,
                "segments of {segment:#x} bytes cannot each be aligned to {align:#x} and stay side by \
                 side for the processor: reduce the alignment, or allow longer segments"
            ),
            Self::SegmentBelowAlignment { segment, align, limit: Some(limit) } => write!(
                f,
                "segments of {segment:#x} bytes, the longest that Xen permits this domain (order \
                 {limit}), cannot each be aligned to {align:#x} and stay side by side for the \
                 processor: raise Xen's memop-max-order"
            ),
            Self::TooManySegments { needed, allowed, segment } => write!(
                f,
                "{needed} segments of up to {segment:#x} bytes are needed, {allowed} allowed: allow \
                 more, or allocate several buffers"
            ),
            Self::NoGuestMemory { frames, in_transactions: 0 } => {
                write!(f, "the guest has no {}: free memory", FreeFrames(frames))
            }
            Self::NoGuestMemory { frames, in_transactions } => write!(
                f,
                "the guest has no {}, and {in_transactions} frames are being exchanged at the moment: \
                 try again",
                FreeFrames(frames)
            ),
            Self::NoListMemory { words } => write!(
                f,
                "the kernel lent no memory for extent lists of {words} words of 8 bytes: free \
                 memory, or lend more in `Platform::lists`"
            ),
            Self::MustNotSleep => f.write_str(
                "the reserve has no block that fits, and the caller must not sleep: allocate and drop a \
                 buffer beforehand where sleeping is allowed, or use a pool",
            ),
            Self::OutOfReach { lowest, mask } => write!(
                f,
                "of the memory that Xen handed out, none lies between {lowest:#x} and {mask:#x}: allow \
                 more addresses, or try again later"
            ),
            Self::LargerThanReach { size, align, lowest, mask } => write!(
                f,
                "no {size} bytes from a multiple of {align:#x} on lie between {lowest:#x} and \
                 {mask:#x}: allocate a smaller buffer, or correct the device's limits"
            ),
            Self::NoFramesInReach { frames, align, lowest, mask } => write!(
                f,
                "the guest has no {} from a multiple of {align:#x} on between {lowest:#x} and \
                 {mask:#x}, and a translated guest cannot exchange others: free memory there, or \
                 allocate at boot",
                FreeFrames(frames)
            ),
            Self::NoMemoryOnNode { node, order, bits } => write!(
                f,
                "Xen has no free extent of order {order} below 2^{bits} on node {node}, or the \
                 machine has no such node: ask for a node nearby"
            ),
            Self::NodeUnknown { node } => write!(
                f,
                "Xen hides from a translated guest which memory lies on node {node}: use `Node::Near` \
                 or `Node::Any`"
            ),
            Self::MemoryInUseStays => f.write_str(
                "the memory is not contiguous where the device reaches it, and memory in use of a \
                 translated guest (PVH) keeps the addresses that devices see: allocate a buffer and copy, \
                 or boot the guest as PV",
            ),
            Self::Exchange(error) => error.fmt(f),
            Self::Lost { frames, error } => write!(
                f,
                "{error}; {frames} frames of the guest could not be brought back and are quarantined"
            ),
            Self::AboveMaximum { current, maximum } => write!(
                f,
                "the domain has {current} frames and may have {maximum}, so Xen would not replace those \
                 of a refill: raise the maximum with `xl mem-set`"
            ),
            Self::NoExchange(why) => why.fmt(f),
            Self::RecordsFull { records } => write!(
                f,
                "all {records} records of the device are in use, and the caller must not sleep: allocate \
                 once where sleeping is allowed, or use a pool"
            ),
            Self::NoRecordMemory { frames } => write!(
                f,
                "the kernel has no {} for records of the device: free memory of the kernel",
                FreeFrames(frames)
            ),
        }
    }
}

impl core::error::Error for AllocError {}

/// Writes how many free frames are missing.
pub(super) struct FreeFrames(pub u64);

impl fmt::Display for FreeFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("free frame"),
            frames => write!(f, "{frames} free frames in a row"),
        }
    }
}

impl AllocError {
    /// Returns true if the same call can succeed later although its caller changes nothing.
    ///
    /// Memory of the guest or of Xen can become free, and the holder of a frame can release it. Whether
    /// the guest or the node can ever have enough is not known, so a transient error may last.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NoGuestMemory { .. }
            | Self::NoListMemory { .. }
            | Self::MustNotSleep
            | Self::OutOfReach { .. }
            | Self::NoFramesInReach { .. }
            | Self::NoMemoryOnNode { .. }
            | Self::AboveMaximum { .. }
            | Self::RecordsFull { .. }
            | Self::NoRecordMemory { .. } => true,
            Self::Exchange(error) | Self::Lost { error, .. } => error.is_transient(),
            Self::ZeroSize
            | Self::TooLarge { .. }
            | Self::Constraints(_)
            | Self::OrderNotPermitted { .. }
            | Self::SegmentTooLong { .. }
            | Self::CrossesBoundary { .. }
            | Self::SegmentBelowAlignment { .. }
            | Self::TooManySegments { .. }
            | Self::LargerThanReach { .. }
            | Self::NodeUnknown { .. }
            | Self::MemoryInUseStays
            | Self::NoExchange(_) => false,
        }
    }

    /// A translated guest has no such frames where the device takes them.
    pub(super) const fn no_frames(frames: u64, limits: &Constraints) -> Self {
        let (align, lowest, mask) = (limits.align(), limits.lowest(), limits.mask());
        Self::NoFramesInReach { frames, align, lowest, mask }
    }

    /// Xen handed out no memory that the device reaches.
    pub(super) const fn out_of_reach(limits: &Constraints) -> Self {
        Self::OutOfReach { lowest: limits.lowest(), mask: limits.mask() }
    }

    /// Returns true if shorter extents may be available where these are not.
    pub(super) const fn may_pass_with_smaller_extents(&self) -> bool {
        matches!(
            self,
            Self::Exchange(
                ExchangeError::NoMemory { .. }
                    | ExchangeError::NoMemoryBelow { .. }
                    | ExchangeError::OrderNotPermitted { .. }
            ) | Self::NoMemoryOnNode { .. }
                | Self::NoGuestMemory { .. }
                | Self::NoListMemory { .. }
        )
    }

    /// Returns true if memory that the guest has may serve where Xen's does not.
    pub(super) const fn may_pass_with_other_memory(&self) -> bool {
        self.may_pass_with_smaller_extents()
            || matches!(
                self,
                Self::OutOfReach { .. }
                    | Self::NoFramesInReach { .. }
                    | Self::OrderNotPermitted { .. }
                    | Self::NoExchange(_)
                    | Self::Exchange(_)
            )
    }

    /// Returns true if the guest lacks frames to exchange, or for the lists of an exchange.
    pub(super) const fn is_for_want_of_guest_memory(&self) -> bool {
        matches!(self, Self::NoGuestMemory { .. } | Self::NoListMemory { .. })
    }

    /// What Xen refused an exchange with for memory of a node.
    pub(super) const fn refused(error: ExchangeError, node: Node) -> Self {
        let Node::Exactly(node) = node else { return Self::Exchange(error) };
        match error {
            ExchangeError::NoMemory { order, bits, .. } => {
                Self::NoMemoryOnNode { node, order, bits }
            }
            ExchangeError::NoMemoryBelow { bits, .. } => {
                Self::NoMemoryOnNode { node, order: Order::ZERO, bits }
            }
            error => Self::Exchange(error),
        }
    }

    /// Returns the error of an exchange or a refill after which `frames` frames are quarantined. Some
    /// errors say that themselves.
    pub(super) const fn of(error: ExchangeError, frames: u64) -> Self {
        match error {
            ExchangeError::Torn { .. } | ExchangeError::BadExtent { .. } => Self::Exchange(error),
            error if frames > 0 => Self::Lost { frames, error },
            error => Self::Exchange(error),
        }
    }
}

impl From<ConstraintError> for AllocError {
    fn from(error: ConstraintError) -> Self {
        Self::Constraints(error)
    }
}

impl From<ExchangeError> for AllocError {
    fn from(error: ExchangeError) -> Self {
        Self::Exchange(error)
    }
}

#[cfg(test)]
mod tests;
