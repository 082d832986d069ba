//! What went wrong, with the evidence.

use core::fmt;

use hypercall::XenErrno;

use super::Left;
use crate::addr::{AddressBits, Mfn, Order, Pfn};
use crate::paging::{Holder, PteError};

/// Why an exchange did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeError {
    /// The run is no power of two of frames, or more than 1 GiB. Nothing moved.
    BadSize {
        /// How many frames it has.
        frames: u64,
    },
    /// The list that the caller lent has no room for an entry per frame. Nothing moved.
    ListTooShort {
        /// Entries needed.
        needed: u64,
        /// Entries there.
        len: usize,
    },
    /// The P2M has no machine frame for a frame of the run. Nothing moved.
    NotPopulated {
        /// The frame.
        pfn: Pfn,
    },
    /// Above what Xen lets this domain have in one extent (`memop-max-order`).
    OrderNotPermitted {
        /// The order asked for.
        order: Order,
    },
    /// Xen permits the order, but a policy (XSM) denies the exchange to this domain.
    NotPermitted,
    /// Memory of exactly that NUMA node is not for this domain, or there is no such node.
    NodeNotPermitted {
        /// The node.
        node: u8,
    },
    /// Something has hold of this frame: a virtual area that is in use, and then Xen was not even
    /// asked; or Xen does not take it (`EINVAL`), because something else maps it, or it is a page
    /// table, granted, shared, or not ours.
    FrameBusy {
        /// The frame.
        pfn: Pfn,
        /// What lies beneath it; `None` in a translated guest, which is not told.
        mfn: Option<Mfn>,
        /// Who has hold of it, as far as the guest can tell.
        holder: Holder,
    },
    /// Xen does not take one of these frames, and which one could not be found out.
    FrameRefused {
        /// First frame of the chunk that it was in.
        first: Pfn,
        /// How many frames that has.
        frames: u64,
    },
    /// Xen has no free extent of that order below the limit.
    NoMemory {
        /// The order asked for.
        order: Order,
        /// The address limit.
        bits: AddressBits,
    },
    /// Xen has no free memory below the limit at all, not even a single frame.
    NoMemoryBelow {
        /// The address limit.
        bits: AddressBits,
    },
    /// The exchange is not for translated (PVH, HVM) guests.
    TranslatedGuest,
    /// Any other refusal; nothing moved.
    Refused {
        /// What Xen answered.
        errno: XenErrno,
    },
    /// Xen refused a page-table write.
    PageTable(PteError),
    /// Xen refused to flush the TLBs, so that the frames could not be given up.
    Flush {
        /// What Xen answered.
        errno: XenErrno,
    },
    /// Xen failed behind its commit point: the old frames of a chunk are gone, and which the new ones
    /// are was not said. What comes back of the run all the same has beneath it what Xen's M2P says.
    Torn {
        /// What Xen answered, if it was an error.
        errno: Option<XenErrno>,
        /// Extents that it reported as exchanged.
        exchanged: u64,
    },
    /// Xen reported success with an extent that can't be what was asked for.
    BadExtent {
        /// The first frame that it named.
        mfn: Mfn,
        /// The order asked for, to which the extent must be aligned.
        order: Order,
        /// The address limit asked for.
        bits: AddressBits,
    },
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadSize { frames } => {
                write!(
                    f,
                    "a run of {frames} frames is no power of two up to {}",
                    Order::MAX.frames()
                )
            }
            Self::ListTooShort { needed, len } => {
                write!(f, "the extent list holds {len} entries, the run needs {needed}")
            }
            Self::NotPopulated { pfn } => write!(f, "pfn {pfn} has no machine frame"),
            Self::OrderNotPermitted { order } => write!(
                f,
                "order {order} is above what Xen permits this domain (see Xen's memop-max-order)"
            ),
            Self::NotPermitted => f.write_str("a policy of Xen's denies this domain the exchange"),
            Self::NodeNotPermitted { node } => write!(
                f,
                "memory of exactly node {node} is not for this domain (only the control domain may \
                 ask), or there is no such node"
            ),
            Self::FrameBusy { pfn, mfn: Some(mfn), holder } => {
                write!(f, "frame busy: pfn {pfn} mfn {mfn} {holder}")
            }
            Self::FrameBusy { pfn, mfn: None, holder } => {
                write!(f, "frame busy: pfn {pfn} {holder}")
            }
            Self::FrameRefused { first, frames } => write!(
                f,
                "Xen refused a frame of the {frames} from pfn {first} on (EINVAL): \
                 still mapped elsewhere, a page table, granted, or not this domain's"
            ),
            Self::NoMemory { order, bits } => write!(
                f,
                "Xen has no free extent of order {order} below 2^{bits} \
                 (or the toolstack has claimed what is free)"
            ),
            Self::NoMemoryBelow { bits } => {
                write!(f, "Xen has no free memory below 2^{bits}, not even a single frame")
            }
            Self::TranslatedGuest => {
                f.write_str("Xen does not exchange memory for translated (PVH, HVM) guests")
            }
            Self::Refused { errno } => write!(f, "Xen refused the exchange: {errno}"),
            Self::PageTable(error) => error.fmt(f),
            Self::Flush { errno } => write!(f, "Xen refused to flush the TLBs: {errno}"),
            Self::Torn { errno: Some(errno), exchanged } => write!(
                f,
                "Xen failed with {errno} behind the commit point, {exchanged} extents exchanged: \
                 frames that can't be found again are quarantined"
            ),
            Self::Torn { errno: None, exchanged } => write!(
                f,
                "Xen reported success but only {exchanged} extents exchanged: \
                 the frames are quarantined"
            ),
            Self::BadExtent { mfn, order, bits } => write!(
                f,
                "Xen answered mfn {mfn}, which is no extent of order {order} below 2^{bits}: \
                 the frames are quarantined"
            ),
        }
    }
}

impl core::error::Error for ExchangeError {}

/// An exchange that did not happen, and what became of the frames.
#[derive(Debug, PartialEq, Eq)]
pub struct ExchangeFailure {
    /// Why.
    pub error: ExchangeError,
    /// The run, mapped with the frames that it had. After [`ExchangeError::Torn`] with whatever is
    /// beneath it, zeroed, and without the frames of which nobody knows that: they are quarantined
    /// (M6).
    pub left: Left,
}

impl fmt::Display for ExchangeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl core::error::Error for ExchangeFailure {}
