//! The limits of a device as plain numbers, and constraints that contain them.

use xen_contig::dma::{Constraints, ConstraintsBuilder};

use super::{TestOutcome, fail};

/// Builds constraints that do not contradict each other. Otherwise the test fails.
pub fn build(
    build: impl FnOnce(ConstraintsBuilder) -> ConstraintsBuilder,
) -> Result<Constraints, TestOutcome> {
    match build(Constraints::builder()).build() {
        Ok(constraints) => Ok(constraints),
        Err(contradiction) => fail!(
            "these constraints do not contradict each other, but the builder reports: \
             {contradiction}"
        ),
    }
}

/// The limits of a device as plain numbers, with a decision of their own on each segment.
///
/// The allocator chooses memory by [`Constraints::admits`], so a test must not decide by it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The highest address of a byte that the device can drive.
    pub mask: u64,
    /// The lowest address.
    pub lowest: u64,
    /// The power of two of which each segment's address is a multiple.
    pub align: u64,
    /// The power of two of which no segment crosses a multiple.
    pub boundary: Option<u64>,
    /// The maximum number of bytes in a segment.
    pub max_segment: u64,
    /// The maximum number of segments.
    pub max_segments: usize,
}

impl Limits {
    /// The limits of a device that takes one segment anywhere.
    pub const NONE: Self = Self {
        mask: u64::MAX,
        lowest: 0,
        align: 1,
        boundary: None,
        max_segment: u64::MAX,
        max_segments: 1,
    };

    /// Returns the limits that constraints contain.
    pub fn of(constraints: &Constraints) -> Self {
        Self {
            mask: constraints.mask(),
            lowest: constraints.lowest(),
            align: constraints.align(),
            boundary: constraints.boundary(),
            max_segment: constraints.max_segment(),
            max_segments: constraints.max_segments(),
        }
    }

    /// Returns constraints with these limits.
    pub fn constraints(&self) -> Result<Constraints, TestOutcome> {
        let Self { mask, lowest, align, boundary, max_segment, max_segments } = *self;
        build(|it| {
            let it = it.mask(mask).lowest(lowest).align(align);
            let it = it.max_segment(max_segment).max_segments(max_segments);
            boundary.map_or(it, |boundary| it.boundary(boundary))
        })
    }

    /// Returns true if the device takes `bytes` bytes at `address` as one segment.
    pub fn take(&self, address: u64, bytes: u64) -> bool {
        let (first, end) = (u128::from(address), u128::from(address) + u128::from(bytes));
        let next_multiple = |of: u64| (first / u128::from(of) + 1) * u128::from(of);
        bytes > 0
            && bytes <= self.max_segment
            && address >= self.lowest
            && end <= u128::from(self.mask) + 1
            && address & (self.align - 1) == 0
            && self.boundary.is_none_or(|boundary| end <= next_multiple(boundary))
    }
}
