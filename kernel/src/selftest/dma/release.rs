//! Does memory return to Xen when the kernel trims, and only then?

use alloc::vec::Vec;

use xen_contig::dma::{Constraints, Retain};

use super::helpers::{ConfinedGuest, PAGE, balanced, build, calls, is_sound, served};
use super::{Check, Test, TestContext, fail, skip};

pub fn add(tests: &mut Vec<Test>) {
    for (name, retain) in [
        ("dma-release-retained", Retain::default()),
        ("dma-release-nothing-retained", Retain::NOTHING),
    ] {
        tests.push(Test::new(name, move |context| release(context, retain)).needs_order(4));
    }
    tests.push(Test::new("dma-reclaimed-without-xen", reclaimed).needs_order(4));
}

/// The number of frames of the buffer. Its size is a byte less, and it still fills an extent of
/// order 4.
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
        let size = FRAMES * PAGE - 1;
        let result = allocator.alloc_coherent(size, &low);
        let Some(buffer) = served(result, "dma-release", "16 frames")? else {
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
        if report.error.is_some() || stats.returned < FRAMES || stats.idle > 0 {
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
        let result = allocator.alloc_coherent(FRAMES * PAGE, &any);
        drop(served(result, "dma-reclaimed", "16 frames")?);
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
