//! Is a buffer of any size contiguous and zeroed, and is the surplus ordinary memory?

use alloc::format;
use alloc::vec::Vec;

use xen_contig::dma::{Constraints, Retain};

use super::helpers::{
    ConfinedGuest, HeldFrames, PAGE, balanced, build, extent_limit, fill, holds, is_sound, is_zero,
    served,
};
use super::{Check, Test, TestContext, fail, skip};
use crate::say;
use crate::selftest::frame_checks;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-odd-sizes", odd_sizes).needs_exchange_order(1));
    tests.push(Test::new("dma-surplus-ordinary", surplus).needs_exchange_order(1));
}

const MIB: u64 = 1 << 20;

fn odd_sizes(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    // 2 MiB + 1 needs two extents where Xen permits order 9 at most, and more where it permits less.
    let extents = (2 * MIB + 1).div_ceil(extent_limit(machine).bytes()).max(2);
    let constraints = build(|it| it.max_segments(extents as usize))?;
    let sizes = [1, 7, 4095, 4096, 4097, 3 * PAGE, 5 * PAGE + 1, 511 * PAGE, 2 * MIB, 2 * MIB + 1];
    balanced(context, Retain::NOTHING, |allocator| {
        // The guest gets twice what the largest size needs, so that runs aligned to 2 MiB remain in
        // addition to the lists.
        let confined = ConfinedGuest::to(machine, 2048)?;
        let mut done = 0;
        for size in sizes {
            let what = format!("{size} bytes");
            let result = allocator.alloc_coherent(size, &constraints);
            let Some(mut buffer) = served(result, "dma-odd-sizes", &what)? else { continue };
            is_sound(machine, &buffer, size, &constraints)?;
            is_zero(&buffer)?;
            fill(&mut buffer, context.seed, 0)?;
            holds(&buffer, context.seed, 0)?;
            done += 1;
        }
        let stats = allocator.stats();
        say!(
            "# dma-odd-sizes: {done} of {} sizes, {} of them by an exchange",
            sizes.len(),
            stats.exchanged
        );
        if machine.exchanger().is_some() && stats.exchanged == 0 && done > 0 {
            fail!("expected at least one exchange: {stats:?}");
        }
        confined.check_whole(allocator)?;
        if done == 0 {
            skip!("guest or Xen has no memory for any of {} sizes", sizes.len());
        }
        Ok(())
    })
}

/// Checks that the surplus of an extent is ordinary memory. Writes to the surplus do not change the
/// buffer, and writes to the buffer do not change the surplus.
fn surplus(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    // A byte more than half of an extent.
    let size = extent_limit(machine).bytes().min(2 * MIB) / 2 + 1;
    let used = size.div_ceil(PAGE);
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 1024)?;
        let free = { machine.frames.lock().free_frames() };
        let any = Constraints::default();
        let result = allocator.alloc_coherent(size, &any);
        let Some(mut buffer) = served(result, "dma-surplus-ordinary", "half an extent and a byte")?
        else {
            skip!("guest or Xen has no memory for {size} bytes")
        };
        is_sound(machine, &buffer, size, &any)?;
        let remaining = { machine.frames.lock().free_frames() };
        let stats = allocator.stats();
        if remaining + used + stats.idle + stats.records != free {
            fail!(
                "{used} frames are in use, and {remaining} of {free} frames remain free: {stats:?}"
            );
        }
        fill(&mut buffer, seed, 0)?;
        {
            // These are all other frames, those after the buffer in its extent among them.
            let others = HeldFrames::all(machine);
            for run in others.runs() {
                frame_checks::agree(machine, run, |_| None)?;
                frame_checks::dirty(run, seed);
            }
            holds(&buffer, seed, 0)?;
            fill(&mut buffer, !seed, 0)?;
            for run in others.runs() {
                frame_checks::holds_pattern(run, seed, "ordinary memory beside a buffer")?;
            }
        }
        holds(&buffer, !seed, 0)?;
        drop(buffer);
        confined.check_whole(allocator)
    })
}
