//! The steps of a scene.

use fake_xen::ExchangeFault;
use hypercall::XenErrno;
use xen_contig::dma::{Backing, ConstraintError, Constraints, Retain, Sleep};
use xen_contig::exchange::Node;

/// The guest and the machine at the start of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The number of frames of the guest.
    pub frames: u64,
    /// How much idle memory the reserve retains.
    pub retain: Retain,
    /// Whether Xen translates for the guest (PVH).
    pub translated: bool,
    /// The highest order that Xen permits.
    pub max_order: u32,
    /// The seed that scatters the guest's frames over the machine.
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

/// The size and the constraints of a buffer that a driver requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferRequest {
    /// The size in bytes.
    pub bytes: u64,
    /// The highest address.
    pub mask: u64,
    /// The lowest address.
    pub lowest: u64,
    /// The alignment, as an exponent of two.
    pub align: u8,
    /// The boundary, as an exponent of two; 0 for none.
    pub boundary: u8,
    /// The longest segment in bytes; 0 for any length.
    pub max_segment: u64,
    /// The highest number of segments.
    pub segments: usize,
    /// Whether the caller must not sleep.
    pub awake: bool,
    /// The NUMA node.
    pub node: Node,
    /// Whether one machine extent must back the buffer of a translated guest.
    pub one_extent: bool,
}

impl BufferRequest {
    /// Returns a request for `bytes` bytes without constraints.
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

    /// Returns the constraints for the allocator.
    ///
    /// # Errors
    /// If they contradict each other.
    pub fn constraints(&self) -> Result<Constraints, ConstraintError> {
        let builder = Constraints::builder()
            .mask(self.mask)
            .lowest(self.lowest)
            .align(1_u64.checked_shl(self.align.into()).unwrap_or(0))
            .max_segments(self.segments)
            .max_segment(if self.max_segment == 0 { u64::MAX } else { self.max_segment })
            .sleep(if self.awake { Sleep::MustNot } else { Sleep::May })
            .backing(if self.one_extent { Backing::OneExtent } else { Backing::Any })
            .node(self.node);
        match self.boundary {
            0 => builder.build(),
            power => builder.boundary(1_u64.checked_shl(power.into()).unwrap_or(0)).build(),
        }
    }
}

/// An event in a scene. An index counts modulo the number of objects that exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A driver allocates a buffer.
    Alloc(BufferRequest),
    /// A driver allocates up to four buffers by one call.
    Many(Vec<BufferRequest>),
    /// A driver drops a buffer.
    Drop(usize),
    /// A driver splits a buffer at a byte, which need not begin a page.
    Split(usize, u64),
    /// The kernel trims all idle memory.
    Trim,
    /// The kernel is short of memory and reclaims this many idle frames.
    Reclaim(u64),
    /// The `call`-th hypercall from now does `after` entries and fails.
    ///
    /// In a translated guest it does nothing, because its operations would return a count instead.
    Fault {
        /// The number of the hypercall, counted from 1.
        call: u64,
        /// The error.
        errno: XenErrno,
        /// How many entries Xen does first.
        after: u64,
    },
    /// The `call`-th hypercall from now does `after` extents and returns this count.
    Stop {
        /// The number of the hypercall, counted from 1.
        call: u64,
        /// How many extents Xen does.
        after: u64,
    },
    /// The next exchange fails inside Xen.
    ExchangeFault(ExchangeFault),
    /// Another domain takes a frame of each free block of this order.
    Fragment(u32),
    /// Other domains take all of Xen's memory except this many frames.
    Exhaust(u64),
    /// The other domains return this memory to Xen.
    Relieve,
    /// Xen's order limit changes.
    MaxOrder(u32),
    /// A policy of Xen denies exchanges, or permits them again.
    Deny(bool),
    /// A peer maps a free frame of the guest.
    Hold(usize),
    /// The peer unmaps all its frames.
    Unhold,
    /// A vCPU reads a free frame, so its TLB caches the translation.
    Touch(u32, usize),
    /// The kernel has no memory for lists, or has it again.
    NoLists(bool),
}
