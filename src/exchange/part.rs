//! A part: the frames of a run that one hypercall exchanges.

use hypercall::ops::MemFlags;

use crate::addr::{AddressBits, Order};

/// Where the new frames must lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Every byte lies below `2^bits`.
    pub bits: AddressBits,
    /// The NUMA node.
    pub node: Node,
}

/// The NUMA node that memory must or should come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Node {
    /// Any node.
    #[default]
    Any,
    /// This node if possible. Xen may use other nodes, and ignores the hint of a domU
    /// ([C13](crate::conformance#C13)).
    Near(u8),
    /// This node only. Xen permits it to the control domain alone ([C12](crate::conformance#C12)).
    Exactly(u8),
}

impl Placement {
    /// Returns the placement "anywhere below `2^bits`".
    pub const fn below(bits: AddressBits) -> Self {
        Self { bits, node: Node::Any }
    }

    /// No limit.
    pub const ANYWHERE: Self = Self::below(AddressBits::UNLIMITED);

    /// Returns true if the placement limits the address.
    pub(super) const fn is_limited(self) -> bool {
        self.bits.get() < AddressBits::UNLIMITED.get()
    }

    pub(super) const fn mem_flags(self) -> MemFlags {
        let flags = MemFlags::address_bits(self.bits);
        match self.node {
            Node::Any => flags,
            Node::Near(node) => flags.near_node(node),
            Node::Exactly(node) => flags.exactly_node(node),
        }
    }
}

/// A part of a run: the frames that one `XENMEM_exchange` call exchanges, and for what.
///
/// Xen works in chunks. A chunk is the larger of an in-extent and an out-extent: Xen exchanges it as
/// a whole or leaves it alone.
///
/// The constructors accept all numbers. [`Exchanger::exchange`](super::Exchanger::exchange) refuses a
/// part that does not fit its run, before anything moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first frame, counted from the first of the run.
    first: u64,
    frames: u64,
    input: Order,
    output: Order,
    placement: Placement,
}

impl Part {
    /// Returns a part that gives up single frames for `extents` extents of `order`.
    ///
    /// Here and in the other constructors, `first` is the first frame of the part, counted from the first
    /// of the run.
    pub const fn gather(first: u64, extents: u64, order: Order, placement: Placement) -> Self {
        // A product that saturates is longer than any run, so the exchange refuses the part.
        let frames = extents.saturating_mul(order.frames());
        Self { first, frames, input: Order::ZERO, output: order, placement }
    }

    /// Returns a part that gives up one extent of `order` for single frames.
    ///
    /// Consecutive machine frames must back it. The exchange refuses it otherwise
    /// ([`NotContiguous`](super::ExchangeError::NotContiguous)).
    pub const fn scatter(first: u64, order: Order) -> Self {
        let placement = Placement::ANYWHERE;
        Self { first, frames: order.frames(), input: order, output: Order::ZERO, placement }
    }

    /// Returns a part that gives up single frames for other single frames.
    pub const fn replace(first: u64, frames: u64) -> Self {
        let placement = Placement::ANYWHERE;
        Self { first, frames, input: Order::ZERO, output: Order::ZERO, placement }
    }

    /// Returns a part that gives up `extents` extents of `order` for other extents of that order.
    ///
    /// With [`Placement::ANYWHERE`] it returns scarce memory to Xen and fragments neither the host nor
    /// the guest. Consecutive machine frames must back each extent, as for [`scatter`](Self::scatter).
    pub const fn swap(first: u64, extents: u64, order: Order, placement: Placement) -> Self {
        // As in `gather`.
        let frames = extents.saturating_mul(order.frames());
        Self { first, frames, input: order, output: order, placement }
    }

    /// Returns the first frame, counted from the first of the run.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Returns the number of frames.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns the order of the extents that are given up.
    pub const fn input(&self) -> Order {
        self.input
    }

    /// Returns the order of the extents that Xen returns.
    pub const fn output(&self) -> Order {
        self.output
    }

    /// Returns where the extents that Xen returns must lie.
    pub const fn placement(&self) -> Placement {
        self.placement
    }

    /// Returns the higher of both orders. It is the order of a chunk, and Xen's limit applies to it.
    pub(super) const fn order(&self) -> Order {
        if self.input.get() > self.output.get() { self.input } else { self.output }
    }

    /// Returns the number of extents that are given up.
    pub(super) const fn in_extents(&self) -> u64 {
        self.frames >> self.input.get()
    }

    /// Returns the number of entries that the out-list needs.
    pub(super) const fn out_extents(&self) -> u64 {
        self.frames >> self.output.get()
    }

    /// Returns the frame after the last one, or `None` if there is no such number.
    pub(super) const fn end(&self) -> Option<u64> {
        self.first.checked_add(self.frames)
    }

    /// Returns the rest of the part after `done` frames, which are whole chunks.
    pub(super) const fn after(self, done: u64) -> Self {
        Self { first: self.first + done, frames: self.frames - done, ..self }
    }
}
