//! Are the frames next to an exchanged run untouched?

use alloc::format;
use alloc::vec::Vec;

use xen_contig::frames::FrameRun;

use super::owned::{OwnedRun, free_remaining};
use super::reservation::can_refill;
use super::{Check, Test, TestContext, fail, frame_checks, skip};
use crate::machine::ANYWHERE;
use crate::machine::Machine;

/// The number of frames on each side, and in the run between them.
const FRAMES: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("neighbours-unharmed", neighbours).needs_order(3));
}

fn neighbours(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let Some(whole) = machine.take(3 * FRAMES) else {
        skip!("the guest has no run of {} free frames", 3 * FRAMES)
    };
    let first = whole.first();
    let [before, run, after] = [0, 1, 2].map(|piece| {
        // SAFETY: these are three disjoint pieces of a run that this function owns and no longer
        // uses as a whole.
        let run = unsafe { FrameRun::new(first.add(piece * FRAMES), FRAMES) };
        OwnedRun::of(machine, run)
    });
    drop(whole);
    frame_checks::dirty(&before, seed);
    frame_checks::dirty(&run, seed);
    frame_checks::dirty(&after, seed);

    let run = there_and_back(machine, run)?;
    frame_checks::holds_pattern(&before, seed, "the frames before the run")?;
    frame_checks::holds_pattern(&after, seed, "the frames after the run")?;
    frame_checks::is_zero(&run, "the run")
}

/// Exchanges the run for an extent and back. A translated guest refills it instead.
fn there_and_back<'m>(
    machine: &'m Machine,
    run: OwnedRun<'m>,
) -> Result<OwnedRun<'m>, super::TestOutcome> {
    let Some(mut lists) = machine.lists(2 * FRAMES) else { skip!("the guest has no free frame") };
    if let Some(exchanger) = machine.exchanger() {
        let released = exchanger
            .acquire(run.into_run(), ANYWHERE, lists.words())
            .and_then(|extent| exchanger.release(extent, lists.words()));
        return match released {
            Ok(run) => Ok(OwnedRun::of(machine, run)),
            Err(failure) => fail!("the exchange failed: {}", free_remaining(machine, failure)),
        };
    }
    let Some(refiller) = machine.refiller() else {
        skip!("this guest does not refill: {}", machine.capability)
    };
    can_refill()?;
    match refiller.refill(run.into_run(), ANYWHERE, lists.words()) {
        Ok(run) => Ok(OwnedRun::of(machine, run)),
        Err(failure) => {
            let told = format!("{failure}");
            failure.remaining.into_iter().for_each(|run| machine.give(run));
            fail!("the refill failed: {told}")
        }
    }
}
