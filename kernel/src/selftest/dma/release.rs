//! Does memory return to Xen when the kernel trims, and only then?

use alloc::vec::Vec;
use core::iter;

use xen_contig::dma::{Constraints, Retain};

use super::helpers::{
    ConfinedGuest, HeldFrames, PAGE, balanced, build, calls, extent_limit, is_sound, served,
};
use super::{Check, Test, TestContext, fail, skip};
use crate::selftest::accounts::AccountsSnapshot;
use crate::selftest::frame_checks;

pub fn add(tests: &mut Vec<Test>) {
    for (name, retain) in [
        ("dma-release-retained", Retain::default()),
        ("dma-release-nothing-retained", Retain::NOTHING),
    ] {
        tests.push(Test::new(name, move |context| release(context, retain)).needs_order(1));
    }
    tests.push(Test::new("dma-reclaimed-without-xen", reclaimed).needs_order(1));
    tests.push(Test::new("dma-reclaimed-by-the-kernel", reclaimed_by_the_kernel));
}

/// The number of frames of the buffer, where Xen permits extents of order 4.
const FRAMES: u64 = 16;

fn release(context: &TestContext<'_>, retain: Retain) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("this domain does not exchange, so nothing returns to Xen");
    }
    balanced(context, retain, |allocator| {
        let confined = ConfinedGuest::to(machine, 128)?;
        // The buffer lies in low memory, because only scarce memory is returned to Xen.
        let low = build(|it| it.mask(u32::MAX.into()))?;
        // A byte less than an extent, which the buffer fills all the same.
        let frames = FRAMES.min(extent_limit(machine).frames());
        let size = frames * PAGE - 1;
        let result = allocator.alloc_coherent(size, &low);
        let Some(buffer) = served(result, "dma-release", "one extent")? else {
            skip!("guest or Xen has no memory for {size} bytes")
        };
        is_sound(machine, &buffer, size, &low)?;
        let address = buffer.dma_addr();
        let before = calls();
        drop(buffer);
        if calls() != before {
            fail!("a drop made {} hypercalls", calls() - before);
        }
        let before = calls();
        match allocator.alloc_coherent(size, &low) {
            Ok(buffer) => is_sound(machine, &buffer, size, &low)?,
            Err(error) => fail!("the second allocation of {size} bytes: {error}"),
        }
        let again = (calls() - before, allocator.stats());
        if again.0 > 0 {
            fail!("the second allocation made {} hypercalls: {:?}", again.0, again.1);
        }
        let (report, stats) = (allocator.trim(u64::MAX), allocator.stats());
        if report.error.is_some() || stats.returned < frames || stats.idle > 0 {
            fail!("{address} was not returned: {report:?}, {stats:?}");
        }
        if stats.below_4g + stats.below_16m > 0 {
            fail!("scarce memory remains in the guest: {stats:?}");
        }
        confined.check_whole(allocator)
    })
}

/// Checks that a kernel that is short of memory gets all idle memory without a hypercall. Scarce
/// frames are returned to Xen once they are free.
fn reclaimed(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    balanced(context, Retain::default(), |allocator| {
        let confined = ConfinedGuest::to(machine, 128)?;
        let any = Constraints::default();
        let frames = FRAMES.min(extent_limit(machine).frames());
        let result = allocator.alloc_coherent(frames * PAGE, &any);
        drop(served(result, "dma-reclaimed", "one extent")?);
        let (stats, before) = (allocator.stats(), calls());
        let idle = stats.idle + stats.records;
        let free = { machine.frames.lock().free_frames() };
        let freed = allocator.reclaim(u64::MAX);
        let now = { machine.frames.lock().free_frames() };
        let made = calls() - before;
        if freed != idle || now < free + idle || made > 0 {
            fail!(
                "expected {idle} idle frames to become free, got {freed}; {free} free before, \
                 {now} after; {made} hypercalls"
            );
        }
        allocator.trim(u64::MAX);
        let stats = allocator.stats();
        if stats.lent + stats.below_4g > 0 {
            fail!("scarce memory remains in the guest: {stats:?}");
        }
        confined.check_whole(allocator)
    })
}

/// A kernel that has no free frame takes idle memory of its allocator for devices, all of it if
/// needed.
fn reclaimed_by_the_kernel(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let (dma, before) = (machine.dma(), AccountsSnapshot::of(machine));
    let confined = ConfinedGuest::to(machine, 128)?;
    let any = build(|it| it.max_segments(FRAMES as usize))?;
    let result = dma.alloc_coherent(FRAMES * PAGE, &any);
    let Some(buffer) = served(result, "dma-reclaimed-by-the-kernel", "16 frames")? else {
        skip!("no memory for {FRAMES} frames")
    };
    drop(buffer);
    let others = HeldFrames::all(machine);
    let (stats, calls_before) = (dma.stats(), calls());
    let idle = stats.idle + stats.records;
    let taken: Vec<_> = iter::from_fn(|| machine.take(1)).collect();
    let (made, frames) = (calls() - calls_before, taken.len() as u64);
    let usable = taken.iter().try_for_each(|run| {
        frame_checks::dirty(run, context.seed);
        frame_checks::holds_pattern(run, context.seed, "a reclaimed frame")
    });
    taken.into_iter().for_each(|run| machine.give(run));
    drop(others);
    confined.check_whole(dma)?;
    usable?;
    if stats.idle < FRAMES || frames != idle || made > 0 {
        fail!("the kernel took {frames} of {idle} idle frames by {made} hypercalls: {stats:?}");
    }
    let now = AccountsSnapshot::of(machine);
    if now != before {
        fail!("before: {before:?}, now: {now:?}, {:?}", dma.stats());
    }
    Ok(())
}
