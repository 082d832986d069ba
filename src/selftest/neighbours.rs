//! Are frames next to an exchanged run left alone?

use alloc::vec::Vec;

use xen_contig::frames::FrameRun;

use super::{Check, Context, Test, books, fail, skip};
use crate::kernel::Machine;
use crate::kernel::machine::ANYWHERE;

/// Frames on each side, and in the run between them.
const FRAMES: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("neighbours-unharmed", neighbours));
}

fn neighbours(context: &Context<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let Some(whole) = machine.take(3 * FRAMES) else {
        skip!("the guest has no {} free frames in a row", 3 * FRAMES)
    };
    let first = whole.first();
    // SAFETY: three pieces of a run that is ours and is not used as a whole any more.
    let [before, run, after] =
        [0, 1, 2].map(|piece| unsafe { FrameRun::new(first.add(piece * FRAMES), FRAMES) });
    drop(whole);
    books::dirty(&before, seed);
    books::dirty(&run, seed);
    books::dirty(&after, seed);

    let run = there_and_back(machine, run)?;
    let unharmed = books::holds_pattern(&before, seed, "frames before the run")
        .and_then(|()| books::holds_pattern(&after, seed, "frames behind the run"))
        .and_then(|()| books::is_zero(&run, "the run"));
    for piece in [before, run, after] {
        machine.give(piece);
    }
    unharmed
}

/// Exchanges or refills the run, as the guest can, and gives the extent back.
fn there_and_back(machine: &Machine, run: FrameRun) -> Result<FrameRun, super::Outcome> {
    let Some(mut lists) = machine.lists(2 * FRAMES) else { skip!("the guest has no free frame") };
    if let Some(exchanger) = machine.exchanger() {
        let released = exchanger
            .acquire(run, ANYWHERE, lists.words())
            .and_then(|extent| exchanger.release(extent, lists.words()));
        return match released {
            Ok(run) => Ok(run),
            Err(failure) => fail!("{failure}"),
        };
    }
    let Some(refiller) = machine.refiller() else { skip!("{}", machine.capability) };
    match refiller.refill(run, ANYWHERE, lists.words()) {
        Ok(run) => Ok(run),
        Err(failure) => fail!("{failure}"),
    }
}
