//! Tests of constraints.

use super::*;

#[test]
fn contradictions_are_named() {
    assert!(Constraints::builder().mask(8192).align(8192).build().is_ok());
    let error = |builder: ConstraintsBuilder| builder.build().unwrap_err();
    let new = Constraints::builder;
    assert_eq!(error(new().mask(0xfff)), ConstraintError::MaskTooNarrow { mask: 0xfff });
    assert_eq!(
        error(new().mask(0xffff).lowest(0xf001)),
        ConstraintError::NothingBetween { lowest: 0xf001, mask: 0xffff }
    );
    assert_eq!(
        error(new().lowest(u64::MAX)),
        ConstraintError::NothingBetween { lowest: u64::MAX, mask: u64::MAX }
    );
    assert_eq!(error(new().align(0)), ConstraintError::Alignment { align: 0 });
    assert_eq!(error(new().align(24)), ConstraintError::Alignment { align: 24 });
    assert_eq!(
        error(new().mask(0xffff).align(1 << 20)),
        ConstraintError::AlignmentAboveMask { align: 1 << 20, mask: 0xffff }
    );
    for align in [0, 24, 8192] {
        let expected = ConstraintError::StreamingAlignment { align };
        assert_eq!(error(new().streaming_align(align)), expected);
    }
    assert!(new().streaming_align(4096).build().is_ok());
    assert_eq!(error(new().boundary(0)), ConstraintError::Boundary { boundary: 0 });
    assert_eq!(error(new().boundary(12)), ConstraintError::Boundary { boundary: 12 });
    assert_eq!(error(new().max_segment(0)), ConstraintError::MaxSegment);
    assert_eq!(error(new().max_segments(0)), ConstraintError::MaxSegments);
    assert!(new().max_segments(usize::MAX).build().is_ok());
    assert_eq!(error(new().node(Node::Near(255))), ConstraintError::Node { node: 255 });
}

#[test]
fn narrowed_constraints_are_the_stricter_ones_of_each_kind() {
    let build = |builder: ConstraintsBuilder| builder.build().unwrap();
    let any = Constraints::default();
    let wide = Constraints::builder().mask((1 << 40) - 1).lowest(0x3000).align(64);
    let wide = wide.boundary(1 << 20).max_segment(1 << 16).max_segments(16);
    let wide = build(wide.node(Node::Near(1)).frame_align(1 << 16));
    assert_eq!(any.narrowed_by(&wide), Ok(wide));
    assert_eq!(wide.narrowed_by(&any), Ok(wide));
    let strict = Constraints::builder().mask((1 << 32) - 1).lowest(0x5000).align(4096);
    let strict = strict.boundary(1 << 16).max_segment(1 << 12).max_segments(1);
    let strict = strict.node(Node::Near(0)).sleep(Sleep::MustNot).backing(Backing::OneExtent);
    let strict = build(strict.frame_align(1 << 21).streaming_align(512));
    assert_eq!(wide.narrowed_by(&strict), Ok(strict));
    let back = strict.narrowed_by(&wide).unwrap();
    assert_eq!(back.to_builder().node(Node::Near(0)).build(), Ok(strict));
    assert_eq!(back.node(), Node::Near(1));
}

#[test]
fn constraints_that_contradict_each_other_are_not_narrowed() {
    let new = Constraints::builder;
    let low = new().mask(0xffff).align(64).build().unwrap();
    let narrowed = |other: ConstraintsBuilder| low.narrowed_by(&other.0).unwrap_err();
    let (lowest, mask, align) = (0x10000, 0xffff, 1 << 20);
    assert_eq!(narrowed(new().lowest(lowest)), ConstraintError::NothingBetween { lowest, mask });
    assert_eq!(narrowed(new().align(align)), ConstraintError::AlignmentAboveMask { align, mask });
    assert_eq!(narrowed(new().align(24)), ConstraintError::Alignment { align: 24 });
    assert_eq!(narrowed(new().frame_align(24)), ConstraintError::Alignment { align: 24 });
    assert_eq!(narrowed(new().max_segments(0)), ConstraintError::MaxSegments);
}

#[test]
fn masks_become_bits_that_never_reach_beyond_them() {
    for (mask, bits, wider) in [
        (u64::MAX, 64, None),
        (u64::MAX - 1, 63, Some(64)),
        ((1 << 32) - 1, 32, None),
        (1 << 32, 32, Some(33)),
        (0x2_ffff_ffff, 33, Some(34)),
        ((1 << 28) - 2, 27, Some(28)),
        (0x1fff, 13, None),
    ] {
        let constraints = Constraints::builder().mask(mask).build().unwrap();
        assert_eq!(constraints.placement().bits.get(), bits, "{mask:#x}");
        let found = constraints.wider_placement().map(|placement| placement.bits.get());
        assert_eq!(found, wider, "{mask:#x}");
    }
}

#[test]
fn xen_is_not_asked_where_the_lowest_address_leaves_nothing() {
    for (lowest, mask, bits) in [
        (0x0, 0x2fff_ffff, 29),
        (0x1fff_f000, 0x2fff_ffff, 29),
        (0x1fff_f001, 0x2fff_ffff, 30),
        (0x2000_0000, 0x2fff_ffff, 30),
        (0x1fff_f000, 0x1fff_ffff, 29),
    ] {
        let constraints = Constraints::builder().lowest(lowest).mask(mask).build().unwrap();
        assert_eq!(constraints.placement().bits.get(), bits, "{lowest:#x} to {mask:#x}");
    }
}

#[test]
fn what_a_device_takes_has_edges() {
    let build = |builder: ConstraintsBuilder| builder.build().unwrap();
    let mask = build(Constraints::builder().mask(0xffff));
    assert!(mask.admits(0xf000, 0x1000) && !mask.admits(0xf000, 0x1001));
    assert!(!mask.admits(0, 0) && !mask.admits(u64::MAX, 2));
    let lowest = build(Constraints::builder().lowest(0x3000));
    assert!(lowest.admits(0x3000, 1) && !lowest.admits(0x2fff, 1));
    let boundary = build(Constraints::builder().boundary(0x10000));
    assert!(boundary.admits(0xf000, 0x1000) && !boundary.admits(0xf000, 0x1001));
    let align = build(Constraints::builder().align(0x4000));
    assert!(align.admits(0x8000, 1) && !align.admits(0x6000, 1));
    let segment = build(Constraints::builder().max_segment(0x2000));
    assert!(segment.admits(0, 0x2000) && !segment.admits(0, 0x2001));
}
