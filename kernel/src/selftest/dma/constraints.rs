//! Is each constraint of a device kept, segments included?

use alloc::format;
use alloc::vec::Vec;
use core::iter::repeat_n;

use xen_contig::addr::Order;
use xen_contig::dma::{AllocError, Constraints, Retain, Segment};
use xen_contig::exchange::{Capability, Node};

use super::helpers::{
    ConfinedGuest, Limits, PAGE, balanced, build, extent_limit, is_above_limit, is_sound, is_zero,
    served,
};
use super::{Check, Test, TestContext, fail, skip};
use crate::say;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-constraints", constraints));
    tests.push(Test::new("dma-segments-above-limit", above_limit));
}

/// The highest order that a device of this test needs: its alignment is 256 KiB.
const HIGHEST: u32 = 6;

/// A device that a test makes up: its name, the numbers of its limits, and its constraints.
type Device = (&'static str, Limits, Constraints);

/// Returns typical devices. The masks lie above 256 MiB, where Xen has memory in every
/// configuration of the bed.
fn devices() -> Result<Vec<Device>, super::TestOutcome> {
    let any = Limits::NONE;
    let masked = |mask| Limits { mask, ..any };
    let limits = [
        ("mask 2^32-1", masked(0xffff_ffff)),
        ("mask 2^30-1", masked((1 << 30) - 1)),
        ("mask 2^29-1", masked((1 << 29) - 1)),
        ("mask not a power of two", masked(0x2abc_d000 - 1)),
        ("mask within a page", masked(0x2fff_f7ff)),
        ("lower bound", Limits { lowest: 16 << 20, ..any }),
        ("alignment above size", Limits { align: 1 << 18, ..any }),
        ("boundary", Limits { boundary: Some(1 << 18), ..any }),
        ("max segment", Limits { max_segment: 1 << 15, max_segments: 16, ..any }),
        (
            "max segment not a power of two",
            Limits { max_segment: 100_000, max_segments: 16, ..any },
        ),
        (
            "boundary, segments and alignment",
            Limits { boundary: Some(1 << 14), max_segments: 16, align: 8192, ..any },
        ),
    ];
    let mut devices = Vec::new();
    for (name, limits) in limits {
        devices.push((name, limits, limits.constraints()?));
    }
    devices.push(("node 0 if possible", any, build(|it| it.node(Node::Near(0)))?));
    Ok(devices)
}

fn constraints(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let sizes = [1, PAGE, 3 * PAGE + 1, 1 << 16, 100_000];
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 512)?;
        let (mut done, mut tried) = (0, 0);
        for (name, limits, constraints) in devices()? {
            if Limits::of(&constraints) != limits {
                fail!("{name}: the builder made {constraints:?} from {limits:?}");
            }
            for size in sizes {
                tried += 1;
                let what = format!("{name}, {size} bytes");
                let result = match allocator.alloc_coherent(size, &constraints) {
                    // All memory that a dom0 leaves to Xen may lie below the bound.
                    Err(error @ AllocError::OutOfReach { .. }) if constraints.lowest() > 0 => {
                        say!("# dma-constraints: {what} skipped, as this test permits: {error}");
                        continue;
                    }
                    Err(error)
                        if is_above_limit(&error) && extent_limit(machine).get() < HIGHEST =>
                    {
                        say!("# dma-constraints: {what}: refused as expected: {error}");
                        continue;
                    }
                    other => other,
                };
                let Some(buffer) = served(result, "dma-constraints", &what)? else { continue };
                is_sound(machine, &buffer, size, &constraints)?;
                is_zero(&buffer)?;
                done += 1;
            }
        }
        let stats = allocator.stats();
        say!(
            "# dma-constraints: {done} of {tried} buffers, {} by an exchange, {} without",
            stats.exchanged,
            stats.from_reserve + stats.adopted
        );
        confined.check_whole(allocator)?;
        if done == 0 {
            skip!("there is no memory for any of {tried} buffers");
        }
        Ok(())
    })
}

/// Checks that a buffer larger than Xen's largest extent is served by several extents, if the device
/// accepts several segments.
fn above_limit(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let Capability::Exchange { limit } = machine.capability else {
        skip!("this domain does not exchange")
    };
    if limit == Order::MAX {
        skip!("Xen permits order {limit}, and no buffer is larger");
    }
    let (extent, size) = (limit.bytes(), limit.bytes() * 5 / 2);
    let several = build(|it| it.max_segments(3))?;
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 4 * limit.frames())?;
        let result = allocator.alloc_coherent(size, &several);
        let what = "five halves of the largest extent";
        let Some(buffer) = served(result, "dma-segments-above-limit", what)? else {
            skip!("there is no memory for {size} bytes")
        };
        is_sound(machine, &buffer, size, &several)?;
        is_zero(&buffer)?;
        // Xen may hand out neighbours, which are one segment of several extents.
        let extents = |segment: Segment| {
            let (whole, rest) = ((segment.len / extent) as usize, segment.len % extent);
            repeat_n(extent, whole).chain((rest > 0).then_some(rest))
        };
        let lengths: Vec<u64> = buffer.segments().flat_map(extents).collect();
        if lengths != [extent, extent, extent / 2] {
            fail!("the extents of {size} bytes have {lengths:?}");
        }
        drop(buffer);
        confined.check_whole(allocator)
    })
}
