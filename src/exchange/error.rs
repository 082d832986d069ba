//! Why an exchange or a refill failed.

use core::fmt;

use hypercall::XenErrno;

use super::part::Node;
use crate::addr::{AddressBits, Mfn, Order, Pfn};
use crate::paging::Holder;

/// What to do about a frame that is in use.
const RELEASE: &str = "Unmap it, or keep such frames out of the allocator";
/// Where to look after frames were lost.
const LOST: &str = "See xl dmesg; `Accounts::quarantined` counts them";

/// Why an exchange or a refill failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The run of a refill is not a power of two of frames, or is longer than 1 GiB. Nothing moved.
    BadSize {
        /// The number of frames in the run.
        frames: u64,
    },
    /// A part is empty, overlaps the part before it, or ends outside the run. Nothing moved.
    BadPart {
        /// The first frame of the part, counted from the first of the run.
        first: u64,
        /// The number of frames in the part.
        frames: u64,
        /// The number of frames in the run.
        run: u64,
    },
    /// A list that the caller lent is too short. Nothing moved.
    ListTooShort {
        /// The number of entries needed.
        needed: u64,
        /// The number of entries in the list.
        len: usize,
    },
    /// The kernel lent no memory for the lists of an exchange that the allocator needs. Nothing moved.
    NoListMemory {
        /// The number of words of 8 bytes needed.
        words: u64,
    },
    /// The P2M has no machine frame for a frame of the run. Nothing moved.
    NotPopulated {
        /// The frame.
        pfn: Pfn,
    },
    /// A part gives up an extent, but consecutive machine frames do not back it. Nothing moved.
    NotContiguous {
        /// The first frame whose machine frame does not follow that of the frame before it.
        pfn: Pfn,
        /// The order of the extent.
        order: Order,
    },
    /// The order is above what Xen permits this domain in one extent (`memop-max-order`).
    OrderNotPermitted {
        /// The order.
        order: Order,
    },
    /// Xen permits the order, but a policy (XSM) denies this domain the exchange.
    NotPermitted,
    /// This domain may not ask for memory of exactly that NUMA node, or there is no such node.
    NodeNotPermitted {
        /// The node.
        node: u8,
    },
    /// A frame is in use. Either a virtual area maps it, and then Xen was not asked. Or Xen refused
    /// it (`EINVAL`): something else maps it, or it is a page table, granted, shared, or not owned
    /// by this domain.
    FrameBusy {
        /// The frame.
        pfn: Pfn,
        /// The machine frame that backs it; `None` in a translated guest.
        mfn: Option<Mfn>,
        /// What references it, as far as the guest can tell.
        holder: Holder,
    },
    /// Xen refused frames of this stretch, and did not say which one it means.
    FrameRefused {
        /// The first frame of the stretch.
        first: Pfn,
        /// The number of frames in it.
        frames: u64,
    },
    /// Xen has no free extent of that order below the limit.
    NoMemory {
        /// The order.
        order: Order,
        /// The address limit.
        bits: AddressBits,
        /// The node that the memory must or should come from.
        node: Node,
    },
    /// Xen has no free memory below the limit, not even a single frame.
    NoMemoryBelow {
        /// The address limit.
        bits: AddressBits,
        /// The node that the memory must or should come from.
        node: Node,
    },
    /// Xen does not exchange memory of translated (PVH, HVM) guests.
    TranslatedGuest,
    /// Xen refused the call with an error that has no meaning of its own here. Nothing moved.
    Refused {
        /// Xen's answer.
        errno: XenErrno,
    },
    /// Xen refused to write the page-table entry of a frame. If that happened twice on the way back,
    /// the frame is quarantined.
    PageTable {
        /// The first such frame.
        pfn: Pfn,
        /// Xen's answer.
        errno: XenErrno,
    },
    /// Xen refused to change the record of a machine frame in its M2P. The frames in use keep their
    /// bytes.
    Record {
        /// The machine frame.
        mfn: Mfn,
        /// Xen's answer.
        errno: XenErrno,
    },
    /// Xen refused to flush the TLBs, so the frames could not be given up.
    Flush {
        /// Xen's answer.
        errno: XenErrno,
    },
    /// Xen failed, perhaps past its commit point: the old frames of a chunk may be gone, and Xen did
    /// not report the new ones. Frames that Xen's M2P confirms are recovered, old or new. The others
    /// are quarantined.
    Torn {
        /// Xen's answer, if it was an error.
        errno: Option<XenErrno>,
        /// The number of extents that Xen reported as exchanged.
        exchanged: u64,
    },
    /// Xen reported success with an extent that does not satisfy the request. Frames of the part that
    /// Xen's M2P confirms are recovered. The others are quarantined.
    BadExtent {
        /// The first frame that Xen reported.
        mfn: Mfn,
        /// The order that was asked for, which the extent must be aligned to.
        order: Order,
        /// The address limit that was asked for.
        bits: AddressBits,
    },
}

impl ExchangeError {
    /// Returns true if the same call can succeed later although the caller changes nothing.
    ///
    /// Memory of the kernel or of Xen can become free, and a frame that is in use can be released by its holder.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NoListMemory { .. }
            | Self::NoMemory { .. }
            | Self::NoMemoryBelow { .. }
            | Self::FrameRefused { .. } => true,
            Self::FrameBusy { holder, .. } => holder.is_transient(),
            Self::Refused { errno }
            | Self::PageTable { errno, .. }
            | Self::Record { errno, .. }
            | Self::Flush { errno } => {
                matches!(*errno, XenErrno::EAGAIN | XenErrno::EBUSY | XenErrno::ENOMEM)
            }
            _ => false,
        }
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadSize { frames } => write!(
                f,
                "a run of {frames} frames cannot be refilled: the number must be a power of two up \
                 to {}",
                Order::MAX.frames()
            ),
            Self::BadPart { first, frames, run } => write!(
                f,
                "a part of {frames} frames from frame {first} on is empty, overlaps the part before \
                 it, or ends outside the run of {run} frames"
            ),
            Self::ListTooShort { needed, len } => {
                write!(
                    f,
                    "a list has {len} entries of 8 bytes, but {needed} are needed: lend one for each \
                     frame of the run in `Lists::backing`, one for each extent in `Lists::extents`"
                )
            }
            Self::NoListMemory { words } => write!(
                f,
                "the kernel lent no memory for extent lists of {words} words of 8 bytes: free \
                 memory, or lend more in `Platform::lists`"
            ),
            Self::NotPopulated { pfn } => write!(
                f,
                "pfn {pfn} has no machine frame in the P2M: it is beyond the guest's memory, \
                 ballooned out, or quarantined. Hand out populated frames only"
            ),
            Self::NotContiguous { pfn, order } => write!(
                f,
                "the machine frame of pfn {pfn} does not follow the one before it, so no extent of \
                 order {order} backs the part: give up single frames instead"
            ),
            Self::OrderNotPermitted { order: Order::ZERO } => f.write_str(
                "Xen permits this domain no exchange: raise memop-max-order on Xen's command line",
            ),
            Self::OrderNotPermitted { order } => write!(
                f,
                "Xen does not permit this domain extents of order {order}: use a lower order, or \
                 raise memop-max-order on Xen's command line"
            ),
            Self::NotPermitted => f.write_str(
                "a policy of Xen (XSM) denies this domain the exchange: permit memory_exchange for \
                 its label, or boot Xen without the policy",
            ),
            Self::NodeNotPermitted { node } => write!(
                f,
                "Xen does not permit this domain memory of exactly node {node} (only the control \
                 domain may ask), or the machine has no such node: ask for memory near a node that \
                 exists, or for any node"
            ),
            Self::FrameBusy { pfn, mfn: Some(mfn), holder } => {
                write!(f, "frame busy: pfn {pfn} mfn {mfn} {holder}. {RELEASE}")
            }
            Self::FrameBusy { pfn, mfn: None, holder } => {
                write!(f, "frame busy: pfn {pfn} {holder}. {RELEASE}")
            }
            Self::FrameRefused { first, frames } => write!(
                f,
                "Xen refused the {frames} frames from pfn {first} on and did not say which one it \
                 means: still mapped elsewhere, a page table, granted, or not owned by this domain. Try \
                 again"
            ),
            Self::NoMemory { order, bits, node } => write!(
                f,
                "Xen has no free extent of order {order} below 2^{bits}{node}, or the toolstack has \
                 claimed what is free: ask for smaller extents or a higher limit, or free memory of \
                 other domains",
                node = AtNode(node)
            ),
            Self::NoMemoryBelow { bits, node } => write!(
                f,
                "Xen has no free memory below 2^{bits}{node}, not even a single frame: ask for a \
                 higher limit, or free memory of other domains",
                node = AtNode(node)
            ),
            Self::TranslatedGuest => f.write_str(
                "Xen does not exchange memory of translated (PVH, HVM) guests: refill instead, or \
                 boot the guest as PV",
            ),
            Self::Refused { errno } => {
                write!(f, "Xen refused the call: {errno}. Look for the cause in xl dmesg")
            }
            Self::PageTable { pfn, errno } => write!(
                f,
                "Xen refused to write the page-table entry of pfn {pfn}: {errno}. Check that the \
                 linear mapping names the frame's first-level entry, and that the P2M is true; xl \
                 dmesg may name the cause"
            ),
            Self::Record { mfn, errno } => write!(
                f,
                "Xen refused to change the record of mfn {mfn} in its M2P: {errno}. Check that the P2M \
                 is true; xl dmesg may name the cause"
            ),
            Self::Flush { errno } => write!(
                f,
                "Xen refused to flush the TLBs: {errno}. Check that the clock of flushes is made for \
                 this kind of guest (PV or translated)"
            ),
            Self::Torn { errno: Some(errno), exchanged } => write!(
                f,
                "Xen failed with {errno}, perhaps past its commit point, {exchanged} extents \
                 exchanged: frames that cannot be found again are quarantined. {LOST}"
            ),
            Self::Torn { errno: None, exchanged } => write!(
                f,
                "Xen reported success but only {exchanged} extents exchanged: frames that cannot be \
                 found again are quarantined. {LOST}"
            ),
            Self::BadExtent { mfn, order, bits } => write!(
                f,
                "Xen reported mfn {mfn}, which is not an extent of order {order} below 2^{bits}: \
                 frames that cannot be found again are quarantined. {LOST}"
            ),
        }
    }
}

impl core::error::Error for ExchangeError {}

/// Writes a node after the address limit of a request.
struct AtNode(Node);

impl fmt::Display for AtNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Node::Any => Ok(()),
            Node::Near(node) => write!(f, " (node {node} preferred)"),
            Node::Exactly(node) => write!(f, " on node {node}"),
        }
    }
}
