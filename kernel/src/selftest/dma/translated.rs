//! PVH: is memory below a mask contiguous for the device, or refused by name?

use alloc::vec::Vec;

use xen_contig::addr::Pfn;
use xen_contig::dma::{AllocError, Constraints, Retain};
use xen_contig::frames::Candidate;

use super::helpers::{
    ConfinedGuest, PAGE, balanced, build, calls, fill, holds, is_sound, is_zero, served,
};
use super::{Check, Test, TestContext, fail, skip};
use crate::machine::Machine;
use crate::say;

/// The number of frames in a MiB.
const MIB: u64 = (1 << 20) / PAGE;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-guest-contiguous", contiguous));
    tests.push(Test::new("dma-no-frames-in-reach", out_of_reach));
}

/// Checks that a run of guest frames is contiguous for the device, without a hypercall.
fn contiguous(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    if machine.exchanger().is_some() {
        skip!("PV guest: the exchange makes memory contiguous");
    }
    balanced(context, Retain::NOTHING, |allocator| {
        let half = machine.p2m.frames() / 2;
        if is_free_above(machine, half) {
            let far = build(|it| it.lowest(half * PAGE).align(MIB * PAGE))?;
            match allocator.alloc_coherent(1, &far) {
                Ok(buffer) => is_sound(machine, &buffer, 1, &far)?,
                Err(error) => fail!("from {:#x} on: {error}", far.lowest()),
            }
        } else {
            say!(
                "# dma-guest-contiguous: no frame at a multiple of 1 MiB is free in the upper \
                 half of memory"
            );
        }
        let confined = ConfinedGuest::to(machine, 256)?;
        // The mask includes half of the free frames.
        let mask = confined.first().add(128).number() * PAGE - 1;
        let low = build(|it| it.mask(mask))?;
        let before = calls();
        for size in [1, PAGE + 1, 16 * PAGE, 60 * PAGE - 5] {
            let result = allocator.alloc_coherent(size, &low);
            let Some(mut buffer) = served(result, "dma-guest-contiguous", "below the mask")? else {
                fail!("{size} bytes are free below {mask:#x}")
            };
            is_sound(machine, &buffer, size, &low)?;
            is_zero(&buffer)?;
            fill(&mut buffer, seed, 0)?;
            holds(&buffer, seed, 0)?;
        }
        if calls() != before {
            fail!("{} hypercalls where none is needed", calls() - before);
        }
        confined.check_whole(allocator)
    })
}

/// Returns true if a frame at a multiple of 1 MiB from `half` on is free. A guest of 4 MiB does not
/// have one.
fn is_free_above(machine: &Machine, half: u64) -> bool {
    let mut fits = |pfn: Pfn| match pfn.number().max(half).next_multiple_of(MIB) {
        wanted if wanted == pfn.number() => Candidate::Fits,
        wanted => Candidate::TryFrom(Pfn::new(wanted)),
    };
    let found = machine.frames.lock().take_first(1, &mut fits);
    let is_free = found.is_some();
    found.into_iter().for_each(|run| machine.give(run));
    is_free
}

fn out_of_reach(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_some() {
        skip!("PV guest: the exchange brings memory into reach");
    }
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 256)?;
        let mask = confined.first().add(128).number() * PAGE - 1;
        let cases = [
            // No free frame lies below the mask.
            (1, confined.first().number() * PAGE - 1, 1),
            // Some free frames lie below the mask, but the run is too short.
            (129 * PAGE, mask, 129),
            // No run is long enough, with or without a mask.
            (257 * PAGE, u64::MAX, 257),
        ];
        for (size, mask, frames) in cases {
            let constraints = match mask {
                u64::MAX => Constraints::default(),
                mask => build(|it| it.mask(mask))?,
            };
            let expected = AllocError::NoFramesInReach { frames, align: 1, lowest: 0, mask };
            match allocator.alloc_coherent(size, &constraints) {
                Err(error) if error == expected => {}
                other => fail!("{size} bytes: expected `{expected}`, got {other:?}"),
            }
        }
        confined.check_whole(allocator)
    })
}
