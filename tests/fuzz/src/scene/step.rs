//! What can happen in a scene.

use fake_xen::ExchangeFault;
use hypercall::XenErrno;
use xen_contig::dma::{Backing, ConstraintError, Constraints, Retain, Sleep};
use xen_contig::exchange::Node;

/// The guest and the machine that a scene begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Frames of the guest; the machine has four times as many.
    pub frames: u64,
    /// How much idle memory the reserve retains.
    pub retain: Retain,
    /// Whether Xen translates for the guest (PVH).
    pub translated: bool,
    /// The highest order that Xen permits.
    pub max_order: u32,
    /// How the guest is scattered over the machine.
    pub seed: u64,
    /// Whether exchanges are preempted between chunks.
    pub preempt: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            frames: 512,
            retain: Retain::NOTHING,
            translated: false,
            max_order: 9,
            seed: 1,
            preempt: false,
        }
    }
}

/// A buffer that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its size.
    pub bytes: u64,
    /// The highest address.
    pub mask: u64,
    /// The lowest address.
    pub lowest: u64,
    /// Alignment, as a power of two.
    pub align: u8,
    /// Boundary, as a power of two; 0 for none.
    pub boundary: u8,
    /// The longest segment; 0 for any length.
    pub max_segment: u64,
    /// How many segments may it have?
    pub segments: usize,
    /// Whether the caller must not sleep.
    pub awake: bool,
    /// On which node.
    pub node: Node,
    /// Whether a translated guest wants one extent beneath it.
    pub one_extent: bool,
}

impl Want {
    /// Bytes without any constraint.
    pub const fn bytes(bytes: u64) -> Self {
        Self {
            bytes,
            mask: u64::MAX,
            lowest: 0,
            align: 0,
            boundary: 0,
            max_segment: 0,
            segments: 1,
            awake: false,
            node: Node::Any,
            one_extent: false,
        }
    }

    /// As the allocator takes it.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn constraints(&self) -> Result<Constraints, ConstraintError> {
        let builder = Constraints::builder()
            .mask(self.mask)
            .lowest(self.lowest)
            .align(1_u64.checked_shl(self.align.into()).unwrap_or(0))
            .max_segments(self.segments)
            .max_segment(if self.max_segment == 0 { u64::MAX } else { self.max_segment })
            .sleep(if self.awake { Sleep::MustNot } else { Sleep::May })
            .backing(if self.one_extent { Backing::OneExtent } else { Backing::Whatever })
            .node(self.node);
        match self.boundary {
            0 => builder.build(),
            power => builder.boundary(1_u64.checked_shl(power.into()).unwrap_or(0)).build(),
        }
    }
}

/// Something that happens. Indices are taken modulo what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A driver wants a buffer.
    Alloc(Want),
    /// A driver wants a set of up to four.
    Many(Vec<Want>),
    /// A driver drops a buffer.
    Drop(usize),
    /// A driver cuts a buffer in two, at a page or at a byte.
    Split(usize, u64),
    /// The kernel trims all idle memory.
    Trim,
    /// The kernel is short of memory: it takes that many idle frames.
    Reclaim(u64),
    /// The `call`-th hypercall from now fails behind so many entries. Where Xen would answer a
    /// count instead, it is done in no part.
    Fault {
        /// Which call, from 1 on.
        call: u64,
        /// What it answers.
        errno: XenErrno,
        /// Behind how many entries.
        after: u64,
    },
    /// The `call`-th hypercall from now does so many extents and says so.
    Stop {
        /// Which call, from 1 on.
        call: u64,
        /// How many it does.
        after: u64,
    },
    /// The next exchange goes wrong on the inside.
    ExchangeFault(ExchangeFault),
    /// Somebody takes a frame of each block of that order.
    Fragment(u32),
    /// Somebody takes all of Xen's memory but so many frames.
    Exhaust(u64),
    /// They give it back.
    Relieve,
    /// The order limit changes.
    MaxOrder(u32),
    /// A policy denies exchanges, or does not any more.
    Deny(bool),
    /// A peer maps a free frame of the guest, or lets go of all.
    Hold(usize),
    /// The peer lets go of all.
    Unhold,
    /// A vCPU reads a free frame, and so remembers its translation.
    Touch(u32, usize),
    /// The kernel has no memory for lists, or has again.
    NoLists(bool),
}
