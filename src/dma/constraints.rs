//! The limits of a device, checked for contradictions before anything moves.

use core::fmt;

use hypercall::trace::Operation;

use super::ConstraintError;
use crate::addr::{AddressBits, PAGE_SIZE};
use crate::exchange::{Node, Placement};

/// Whether the caller may wait for hypercalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sleep {
    /// The caller can wait for hypercalls.
    #[default]
    May,
    /// The caller must not sleep: only idle memory of the reserve serves it.
    MustNot,
}

/// The machine memory that backs a buffer of a translated guest, whose devices see guest frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Any frames: the IOMMU makes them contiguous for the device.
    #[default]
    Any,
    /// One extent of the machine's memory, for superpages and for devices without an IOMMU. Xen does not
    /// report where it lies. In a PV guest each segment is one extent, and this changes nothing.
    OneExtent,
}

/// The limits of a device. Made by [`Constraints::builder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraints {
    mask: u64,
    lowest: u64,
    align: u64,
    boundary: Option<u64>,
    max_segment: u64,
    /// `None` stands for 1, and for what the device takes where other constraints are narrowed by these.
    max_segments: Option<usize>,
    node: Node,
    sleep: Sleep,
    backing: Backing,
    frame_align: u64,
    streaming_align: u64,
}

/// Collects constraints.
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder has no effect until `build` is called"]
pub struct ConstraintsBuilder(Constraints);

impl Default for Constraints {
    fn default() -> Self {
        Self {
            mask: u64::MAX,
            lowest: 0,
            align: 1,
            boundary: None,
            max_segment: u64::MAX,
            max_segments: None,
            node: Node::Any,
            sleep: Sleep::May,
            backing: Backing::Any,
            frame_align: PAGE_SIZE as u64,
            streaming_align: 1,
        }
    }
}

impl Constraints {
    /// Starts from no constraints: one zeroed segment anywhere.
    pub fn builder() -> ConstraintsBuilder {
        ConstraintsBuilder(Self::default())
    }

    /// Starts from these constraints.
    pub const fn to_builder(&self) -> ConstraintsBuilder {
        ConstraintsBuilder(*self)
    }

    /// Returns the highest address of a byte that the device can drive.
    pub const fn mask(&self) -> u64 {
        self.mask
    }

    /// Returns the lowest address that the device may be given.
    pub const fn lowest(&self) -> u64 {
        self.lowest
    }

    /// Returns the number that each segment's address is a multiple of.
    pub const fn align(&self) -> u64 {
        self.align
    }

    /// Returns the number that no segment may cross a multiple of.
    pub const fn boundary(&self) -> Option<u64> {
        self.boundary
    }

    /// Returns the most bytes in a segment.
    pub const fn max_segment(&self) -> u64 {
        self.max_segment
    }

    /// Returns the most segments: 1 unless the builder sets another number.
    pub const fn max_segments(&self) -> usize {
        match self.max_segments {
            Some(segments) => segments,
            None => 1,
        }
    }

    /// Returns the NUMA node that the memory must or should come from.
    pub const fn node(&self) -> Node {
        self.node
    }

    /// Returns whether the caller may wait for hypercalls.
    pub const fn sleep(&self) -> Sleep {
        self.sleep
    }

    /// Returns which machine memory backs the buffer of a translated guest.
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Returns the number that the guest address of a coherent buffer is a multiple of.
    pub const fn frame_align(&self) -> u64 {
        self.frame_align
    }

    /// Returns the number that each segment's address of a mapping is a multiple of.
    pub const fn streaming_align(&self) -> u64 {
        self.streaming_align
    }

    /// Returns the same constraints for memory whose guest address is given.
    pub(super) const fn at_any_guest_address(&self) -> Self {
        Self { frame_align: PAGE_SIZE as u64, ..*self }
    }

    /// Returns these constraints with those of a part of the device: the stricter one of each kind.
    ///
    /// A limit that the builder of `other` did not set is the one of these constraints. That includes the
    /// number of segments. The node is that of `other`, unless `other` takes any node.
    ///
    /// # Errors
    /// If the two contradict each other.
    pub fn narrowed_by(&self, other: &Self) -> Result<Self, ConstraintError> {
        // The larger of two alignments would hide an invalid one.
        let other = other.to_builder().build()?;
        let node = if other.node == Node::Any { self.node } else { other.node };
        let must_not = self.sleep == Sleep::MustNot || other.sleep == Sleep::MustNot;
        let one = self.backing == Backing::OneExtent || other.backing == Backing::OneExtent;
        ConstraintsBuilder(Self {
            mask: self.mask.min(other.mask),
            lowest: self.lowest.max(other.lowest),
            align: self.align.max(other.align),
            boundary: self.boundary.into_iter().chain(other.boundary).min(),
            max_segment: self.max_segment.min(other.max_segment),
            max_segments: self.max_segments.into_iter().chain(other.max_segments).min(),
            node,
            sleep: if must_not { Sleep::MustNot } else { Sleep::May },
            backing: if one { Backing::OneExtent } else { Backing::Any },
            frame_align: self.frame_align.max(other.frame_align),
            streaming_align: self.streaming_align.max(other.streaming_align),
        })
        .build()
    }

    /// Returns true if a device can take `bytes` bytes at `address` as one segment.
    pub fn admits(&self, address: u64, bytes: u64) -> bool {
        let Some(last) = bytes.checked_sub(1).and_then(|more| address.checked_add(more)) else {
            return false;
        };
        let same_side = |boundary: u64| address / boundary == last / boundary;
        address >= self.lowest
            && last <= self.mask
            && address.is_multiple_of(self.align)
            && bytes <= self.max_segment
            && self.boundary.is_none_or(same_side)
    }

    /// Returns the first placement to ask Xen for: below the largest power of two that the mask covers,
    /// unless the lowest address leaves no whole page there.
    pub fn placement(&self) -> Placement {
        let bits = self.bits_below();
        let is_empty = self.lowest.div_ceil(PAGE_SIZE as u64) >= bits.frame_limit();
        let wider = self.wider_placement().filter(|_| is_empty);
        wider.unwrap_or(Placement { bits, node: self.node })
    }

    /// Returns the next placement to ask Xen for, if the mask is not a power of two less one. Xen takes
    /// only powers of two as limits, so memory from there must be compared with the mask.
    pub fn wider_placement(&self) -> Option<Placement> {
        let bits = AddressBits::new(self.bits_below().get() + 1).ok()?;
        let exact = self.mask == u64::MAX || (self.mask + 1).is_power_of_two();
        (!exact).then_some(Placement { bits, node: self.node })
    }

    /// Returns a call into the library with these limits, for a trace.
    #[inline]
    pub(super) const fn operation(&self, name: &'static str, bytes: u64) -> Operation {
        Operation {
            name,
            bytes,
            mask: self.mask,
            lowest: self.lowest,
            align: if self.align > PAGE_SIZE as u64 { self.align } else { 0 },
            boundary: match self.boundary {
                Some(boundary) => boundary,
                None => 0,
            },
            segment: self.max_segment,
            segments: self.max_segments() as u64,
        }
    }

    /// Returns true if no limit that Xen takes describes the reach: the lowest address is above 0, or the
    /// mask is not a power of two less one.
    pub(super) fn is_beyond_xen(&self) -> bool {
        self.lowest > 0 || self.wider_placement().is_some()
    }

    fn bits_below(&self) -> AddressBits {
        let bits = match self.mask.checked_add(1) {
            None => 64,
            Some(reach) => reach.ilog2(),
        };
        // `build` refuses a mask that reaches less than two pages.
        AddressBits::new(bits).unwrap_or(AddressBits::UNLIMITED)
    }
}

impl fmt::Display for Constraints {
    /// Writes the limits that differ from none: `mask 0xffffffff, alignment 0x1000, 1 segment`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mask {:#x}", self.mask)?;
        if self.lowest > 0 {
            write!(f, ", lowest address {:#x}", self.lowest)?;
        }
        if self.align > 1 {
            write!(f, ", alignment {:#x}", self.align)?;
        }
        if let Some(boundary) = self.boundary {
            write!(f, ", boundary {boundary:#x}")?;
        }
        match self.max_segments() {
            1 => f.write_str(", 1 segment")?,
            segments => write!(f, ", {segments} segments")?,
        }
        if self.max_segment < u64::MAX {
            write!(f, " of up to {:#x} bytes", self.max_segment)?;
        }
        match self.node {
            Node::Any => Ok(()),
            Node::Near(node) => write!(f, ", near node {node}"),
            Node::Exactly(node) => write!(f, ", on node {node}"),
        }
    }
}

impl ConstraintsBuilder {
    /// The highest address of a byte that the device can drive: `2^n - 1` or anything else.
    pub const fn mask(self, mask: u64) -> Self {
        Self(Constraints { mask, ..self.0 })
    }

    /// The lowest address that the device may be given.
    pub const fn lowest(self, lowest: u64) -> Self {
        Self(Constraints { lowest, ..self.0 })
    }

    /// What each segment's address is a multiple of: a power of two, which can be above the size.
    ///
    /// A coherent buffer begins at a page, so less than a page only says where a page may be cut into
    /// segments.
    pub const fn align(self, align: u64) -> Self {
        Self(Constraints { align, ..self.0 })
    }

    /// A power of two of which no segment crosses a multiple.
    pub const fn boundary(self, boundary: u64) -> Self {
        Self(Constraints { boundary: Some(boundary), ..self.0 })
    }

    /// The most bytes that the device takes as one segment.
    pub const fn max_segment(self, bytes: u64) -> Self {
        Self(Constraints { max_segment: bytes, ..self.0 })
    }

    /// The most segments that the device takes, any number from 1 on.
    ///
    /// With 1, the default, a coherent buffer begins at a multiple of the smallest power of two of pages
    /// that holds it, as with Linux's `dma_alloc_coherent`: three pages begin at a multiple of four. A
    /// driver can rely on that. With more, only [`align`](Self::align) holds.
    pub const fn max_segments(self, segments: usize) -> Self {
        Self(Constraints { max_segments: Some(segments), ..self.0 })
    }

    /// The NUMA node. Xen does not report to a translated guest on which node memory lies. There a
    /// request for exactly one node is refused, and a node nearby is ignored.
    pub const fn node(self, node: Node) -> Self {
        Self(Constraints { node, ..self.0 })
    }

    /// Whether the caller may wait for hypercalls.
    pub const fn sleep(self, sleep: Sleep) -> Self {
        Self(Constraints { sleep, ..self.0 })
    }

    /// Which machine memory backs the buffer of a translated guest.
    pub const fn backing(self, backing: Backing) -> Self {
        Self(Constraints { backing, ..self.0 })
    }

    /// What the guest address of a coherent buffer is a multiple of: a power of two. Without this call it is
    /// a page.
    ///
    /// The processor's address has this alignment too, if the linear mapping begins at a multiple of it.
    /// Devices do not see it. Some driver crates ask for it, because they have one alignment for both
    /// addresses.
    pub const fn frame_align(self, align: u64) -> Self {
        Self(Constraints { frame_align: align, ..self.0 })
    }

    /// What each segment's address of a [`Mapping`](super::Mapping) is a multiple of: a power of two, at most
    /// a page. Without this call it is 1.
    ///
    /// Memory that a device could access in place but for this alignment is bounced. [`align`](Self::align)
    /// has no effect on mappings.
    pub const fn streaming_align(self, align: u64) -> Self {
        Self(Constraints { streaming_align: align, ..self.0 })
    }

    /// Returns the constraints, unless they contradict each other.
    ///
    /// # Errors
    /// The contradiction, by name and value.
    pub fn build(self) -> Result<Constraints, ConstraintError> {
        let it = self.0;
        let (mask, lowest, page) = (it.mask, it.lowest, PAGE_SIZE as u64);
        // Xen keeps frame 0 to itself, so one page is not enough either.
        if mask < 2 * page - 1 {
            return Err(ConstraintError::MaskTooNarrow { mask });
        }
        let first_page = lowest.checked_next_multiple_of(page);
        if first_page.and_then(|first| first.checked_add(page - 1)).is_none_or(|last| last > mask) {
            return Err(ConstraintError::NothingBetween { lowest, mask });
        }
        if !it.align.is_power_of_two() {
            return Err(ConstraintError::Alignment { align: it.align });
        }
        if !it.frame_align.is_power_of_two() {
            return Err(ConstraintError::Alignment { align: it.frame_align });
        }
        if !it.streaming_align.is_power_of_two() || it.streaming_align > page {
            return Err(ConstraintError::StreamingAlignment { align: it.streaming_align });
        }
        if it.align > mask {
            return Err(ConstraintError::AlignmentAboveMask { align: it.align, mask });
        }
        if let Some(boundary) = it.boundary.filter(|boundary| !boundary.is_power_of_two()) {
            return Err(ConstraintError::Boundary { boundary });
        }
        if it.max_segment == 0 {
            return Err(ConstraintError::MaxSegment);
        }
        if it.max_segments == Some(0) {
            return Err(ConstraintError::MaxSegments);
        }
        match it.node {
            Node::Near(node @ 255) | Node::Exactly(node @ 255) => {
                Err(ConstraintError::Node { node })
            }
            _ => Ok(it),
        }
    }
}

#[cfg(test)]
mod tests;
