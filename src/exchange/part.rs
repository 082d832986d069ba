//! A stretch of a run that is exchanged for extents of one order in one place.

use hypercall::ops::MemFlags;

use crate::addr::{AddressBits, Order};

/// Where the new frames shall lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Every byte below `2^bits`.
    pub bits: AddressBits,
    /// On which NUMA node.
    pub node: Node,
}

/// On which NUMA node memory shall lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Node {
    /// Wherever Xen sees fit.
    #[default]
    Any,
    /// There if possible. A hint: Xen takes memory from elsewhere, and ignores a hint of a domU.
    Near(u8),
    /// There or nowhere. Xen grants this to the control domain alone.
    Exactly(u8),
}

impl Placement {
    /// Anywhere below `2^bits`.
    pub const fn below(bits: AddressBits) -> Self {
        Self { bits, node: Node::Any }
    }

    /// Anywhere at all.
    pub const ANYWHERE: Self = Self::below(AddressBits::UNLIMITED);

    pub(super) const fn mem_flags(self) -> MemFlags {
        let flags = MemFlags::address_bits(self.bits);
        match self.node {
            Node::Any => flags,
            Node::Near(node) => flags.near_node(node),
            Node::Exactly(node) => flags.exactly_node(node),
        }
    }
}

/// What one call of `XENMEM_exchange` is to do with a stretch of a run.
///
/// Xen works chunk by chunk, a chunk being the larger of an in-extent and an out-extent: each is
/// exchanged or left alone as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its first frame, counted from the first of the run.
    first: u64,
    frames: u64,
    input: Order,
    output: Order,
    placement: Placement,
}

impl Part {
    /// Single frames for `extents` extents of `order`.
    pub const fn gather(first: u64, extents: u64, order: Order, placement: Placement) -> Self {
        let frames = extents * order.frames();
        Self { first, frames, input: Order::ZERO, output: order, placement }
    }

    /// One extent of `order` for single frames, wherever they are.
    pub const fn scatter(first: u64, order: Order) -> Self {
        let placement = Placement::ANYWHERE;
        Self { first, frames: order.frames(), input: order, output: Order::ZERO, placement }
    }

    /// Single frames for other single frames, wherever they are.
    pub const fn replace(first: u64, frames: u64) -> Self {
        let placement = Placement::ANYWHERE;
        Self { first, frames, input: Order::ZERO, output: Order::ZERO, placement }
    }

    /// Its first frame, counted from the first of the run.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// How many frames.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// The order of what is given up.
    pub const fn input(&self) -> Order {
        self.input
    }

    /// The order of what comes.
    pub const fn output(&self) -> Order {
        self.output
    }

    /// Where it shall lie.
    pub const fn placement(&self) -> Placement {
        self.placement
    }

    /// Frames in a chunk.
    pub(super) const fn chunk(&self) -> u64 {
        if self.input.get() > self.output.get() {
            self.input.frames()
        } else {
            self.output.frames()
        }
    }

    /// What is left of the part behind `done` frames, which are whole chunks.
    pub(super) const fn after(self, done: u64) -> Self {
        Self { first: self.first + done, frames: self.frames - done, ..self }
    }
}
