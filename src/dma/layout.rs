//! How a request is cut into extents: pure, and refused before anything moves.

use arrayvec::ArrayVec;

use super::{AllocError, Constraints};
use crate::addr::{Order, PAGE_SIZE};

/// The most segments that a buffer can have.
pub const MAX_SEGMENTS: usize = 16;

const PAGE: u64 = PAGE_SIZE as u64;

/// One extent of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPlan {
    /// The extent that Xen is asked for.
    pub order: Order,
    /// Bytes of it that the caller wants.
    pub bytes: u64,
}

/// The extents of a buffer, first to last. All but the last are full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    segments: ArrayVec<SegmentPlan, MAX_SEGMENTS>,
}

impl Layout {
    /// Cuts `size` bytes into one extent, or into as few as constraints and Xen's order limit allow
    /// where all but the last are as long as the longest power of two that both permit.
    ///
    /// # Errors
    /// What forbids it: no bytes, too many of them, an extent above the limit, a segment too long
    /// for the device, too many segments.
    pub fn new(size: u64, constraints: &Constraints, limit: Order) -> Result<Self, AllocError> {
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        if size > Order::MAX.bytes() {
            return Err(AllocError::TooLarge { size, max: Order::MAX.bytes() });
        }
        let order = order_of(size.max(constraints.align()))?;
        let (segment, boundary) = (constraints.max_segment(), constraints.boundary());
        let fits_device = size <= segment && boundary.is_none_or(|boundary| size <= boundary);
        if order <= limit && fits_device {
            let mut segments = ArrayVec::new();
            segments.push(SegmentPlan { order, bytes: size });
            return Self { segments }.within_reach(constraints);
        }
        if constraints.max_segments() == 1 {
            return Err(match boundary {
                _ if order > limit => AllocError::OrderNotPermitted { order, limit },
                _ if size > segment => AllocError::SegmentTooLong { size, max_segment: segment },
                Some(boundary) => AllocError::CrossesBoundary { size, boundary },
                None => AllocError::OrderNotPermitted { order, limit },
            });
        }
        Self::cut(size, constraints, limit)
    }

    /// Several segments, each a power of two and no shorter than the alignment.
    fn cut(size: u64, constraints: &Constraints, limit: Order) -> Result<Self, AllocError> {
        let power_below = |bytes: u64| 1 << bytes.ilog2();
        let device =
            power_below(constraints.max_segment()).min(constraints.boundary().unwrap_or(u64::MAX));
        let full = device.min(limit.bytes());
        let align = constraints.align().max(PAGE);
        if full < align {
            let limit = (limit.bytes() < device).then_some(limit);
            return Err(AllocError::SegmentBelowAlignment { segment: full, align, limit });
        }
        let needed = size.div_ceil(full);
        let allowed = constraints.max_segments();
        if needed > allowed as u64 {
            return Err(AllocError::TooManySegments { needed, allowed, segment: full });
        }
        let mut segments = ArrayVec::new();
        let mut left = size;
        while left > 0 {
            let bytes = left.min(full);
            segments.push(SegmentPlan { order: order_of(bytes.max(align))?, bytes });
            left -= bytes;
        }
        Self { segments }.within_reach(constraints)
    }

    /// The layout, unless a segment is longer than what the device reaches. The first is the longest.
    fn within_reach(self, constraints: &Constraints) -> Result<Self, AllocError> {
        let (lowest, mask) = (constraints.lowest(), constraints.mask());
        let align = constraints.align().max(PAGE);
        let size = self.segments.first().map_or(0, |segment| segment.bytes);
        let last = lowest
            .checked_next_multiple_of(align)
            .and_then(|first| first.checked_add(size.saturating_sub(1)));
        match last {
            Some(last) if last <= mask => Ok(self),
            _ => Err(AllocError::LargerThanReach { size, align, lowest, mask }),
        }
    }

    /// The extents.
    pub fn segments(&self) -> &[SegmentPlan] {
        &self.segments
    }

    /// Frames of all extents together.
    pub fn frames(&self) -> u64 {
        self.segments.iter().map(|segment| segment.order.frames()).sum()
    }

    /// Frames that the caller's bytes need; the extents may have more at their end.
    pub fn used_frames(&self) -> u64 {
        let bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        bytes.div_ceil(PAGE)
    }
}

/// The order of the smallest extent that holds `bytes` bytes.
fn order_of(bytes: u64) -> Result<Order, AllocError> {
    let frames = bytes.div_ceil(PAGE).next_power_of_two();
    Order::new(frames.ilog2())
        .map_err(|_| AllocError::TooLarge { size: bytes, max: Order::MAX.bytes() })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn constraints(
        build: impl FnOnce(super::super::ConstraintsBuilder) -> super::super::ConstraintsBuilder,
    ) -> Constraints {
        build(Constraints::builder()).build().unwrap()
    }

    fn order(order: u32) -> Order {
        Order::new(order).unwrap()
    }

    fn layout(size: u64, constraints: &Constraints, limit: u32) -> Result<Layout, AllocError> {
        Layout::new(size, constraints, order(limit))
    }

    #[test]
    fn one_extent_where_it_is_allowed() {
        let any = Constraints::default();
        for (size, extent, used) in
            [(1, 0, 1), (4096, 0, 1), (4097, 1, 2), (3 << 12, 2, 3), ((2 << 20) + 1, 10, 513)]
        {
            let layout = layout(size, &any, 18).unwrap();
            assert_eq!(layout.segments(), [SegmentPlan { order: order(extent), bytes: size }]);
            assert_eq!((layout.frames(), layout.used_frames()), (1 << extent, used));
        }
        let aligned = layout(1, &constraints(|it| it.align(1 << 16)), 9).unwrap();
        assert_eq!((aligned.frames(), aligned.used_frames()), (16, 1));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let any = Constraints::default();
        let gib = 1 << 30;
        assert_eq!(layout(0, &any, 9), Err(AllocError::ZeroSize));
        let too_large = AllocError::TooLarge { size: gib + 1, max: gib };
        assert_eq!(layout(gib + 1, &any, 18), Err(too_large));
        assert!(layout(u64::MAX, &any, 18).is_err());
        let refused = AllocError::OrderNotPermitted { order: order(10), limit: order(9) };
        assert_eq!(layout((2 << 20) + 1, &any, 9), Err(refused));
        let segment = constraints(|it| it.max_segment(4096));
        let refused = AllocError::SegmentTooLong { size: 4097, max_segment: 4096 };
        assert_eq!(layout(4097, &segment, 9), Err(refused));
        let boundary = constraints(|it| it.boundary(4096));
        let refused = AllocError::CrossesBoundary { size: 4097, boundary: 4096 };
        assert_eq!(layout(4097, &boundary, 9), Err(refused));
        let few = constraints(|it| it.max_segments(2));
        let refused = AllocError::TooManySegments { needed: 3, allowed: 2, segment: 2 << 20 };
        assert_eq!(layout((4 << 20) + 1, &few, 9), Err(refused));
        let too_short =
            |segment, align, limit| AllocError::SegmentBelowAlignment { segment, align, limit };
        let tight = constraints(|it| it.max_segments(4).max_segment(4096).align(8192));
        let refused = too_short(4096, 8192, None);
        assert_eq!(layout(8193, &tight, 9), Err(refused));
        let tight = constraints(|it| it.lowest(0x3001).mask(0x8fff).align(1 << 14));
        let refused = AllocError::LargerThanReach {
            size: 0x5001,
            align: 1 << 14,
            lowest: 0x3001,
            mask: 0x8fff,
        };
        assert!(layout(0x5000, &tight, 9).is_ok());
        assert_eq!(layout(0x5001, &tight, 9), Err(refused));
        let sliver = constraints(|it| it.max_segments(4).max_segment(512));
        let refused = too_short(512, 4096, None);
        assert_eq!(layout(513, &sliver, 9), Err(refused));
    }

    #[test]
    fn segments_as_long_as_their_alignment_are_enough() {
        for (segment, align) in [(4096, 1), (4096, 4096), (1 << 14, 1 << 14)] {
            let device = constraints(|it| it.max_segments(3).max_segment(segment).align(align));
            let layout = layout(2 * segment + 1, &device, 9).unwrap();
            let bytes: std::vec::Vec<u64> = layout.segments().iter().map(|it| it.bytes).collect();
            assert_eq!(bytes, [segment, segment, 1]);
        }
    }

    #[test]
    fn segments_below_their_alignment_name_whose_limit_it_is() {
        let refusal = |device: Constraints, limit| layout(1 << 22, &device, limit).unwrap_err();
        let aligned = || Constraints::builder().max_segments(4).align(1 << 22);
        // Xen's alone, then both with Xen's below the device's, the same, and above it.
        for (segment, limit, by_xen) in
            [(u64::MAX, 9, true), (1 << 21, 8, true), (1 << 20, 8, false), (1 << 16, 8, false)]
        {
            let device = aligned().max_segment(segment).build().unwrap();
            let AllocError::SegmentBelowAlignment { segment: longest, limit: named, .. } =
                refusal(device, limit)
            else {
                panic!("{segment:#x} with {limit}: {}", refusal(device, limit))
            };
            assert_eq!(longest, segment.min(order(limit).bytes()));
            assert_eq!(named, by_xen.then_some(order(limit)), "{segment:#x} with {limit}");
            let told = std::format!("{}", refusal(device, limit));
            assert_eq!(told.contains("permits this domain"), by_xen, "{told}");
        }
    }

    #[test]
    fn several_segments_keep_every_rule() {
        let cases = [
            (constraints(|it| it.max_segments(16)), 9),
            (constraints(|it| it.max_segments(16).max_segment(100_000)), 18),
            (constraints(|it| it.max_segments(16).boundary(1 << 16).align(1 << 14)), 18),
            (constraints(|it| it.max_segments(3).max_segment(1 << 20)), 9),
        ];
        for (constraints, limit) in &cases {
            for size in (1..3_000_000).step_by(4_999) {
                let Ok(layout) = layout(size, constraints, *limit) else { continue };
                let segments = layout.segments();
                assert!(segments.len() <= constraints.max_segments());
                assert_eq!(segments.iter().map(|segment| segment.bytes).sum::<u64>(), size);
                for segment in segments {
                    assert!(
                        segment.order.get() <= *limit && segment.bytes <= segment.order.bytes()
                    );
                    // Xen aligns an extent to its own size.
                    assert!(constraints.admits(segment.order.bytes(), segment.bytes));
                }
                let full = &segments[..segments.len() - 1];
                assert!(full.iter().all(|segment| segment.bytes == segment.order.bytes()));
            }
        }
    }
}
