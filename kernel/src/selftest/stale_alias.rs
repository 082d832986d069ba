//! Does Xen refuse a frame that has an alias, and change nothing? Does the same call succeed
//! without the alias?
//!
//! This is why a purge is necessary. Each page-table entry that maps a frame holds a reference on
//! it, and Xen refuses a frame with a reference ([S4](xen_contig::rules#S4)).

use alloc::vec::Vec;

use xen_contig::addr::{Gfn, Mfn};
use xen_contig::exchange::{ExchangeError, ExchangeFailure};
use xen_contig::paging::Holder;

use super::owned::{OwnedExtent, OwnedRun, free_remaining};
use super::{Check, Test, TestContext, error, fail, frame_checks, skip};
use crate::guest::guest;
use crate::layout::{READ_WRITE, slot, window};
use crate::machine::ANYWHERE;

/// The number of frames in the run. The alias maps the one in the middle.
const FRAMES: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("stale-alias", stale_alias).needs_order(3));
}

fn stale_alias(context: &TestContext<'_>) -> Check {
    let result = refused_then_taken(context);
    if result.is_err() && context.machine.exchanger().is_some() {
        // The alias must not disturb the later tests. If Xen refuses to remove it, their errors
        // name it.
        let _best_effort = guest().set_window(slot::ALIAS, None);
    }
    result
}

fn refused_then_taken(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let Some(exchanger) = machine.exchanger() else {
        skip!("Xen does not check the mappings of a translated guest's frames")
    };
    let run = OwnedRun::take(machine, FRAMES)?;
    let Some(mut lists) = machine.lists(2 * FRAMES) else {
        skip!("the guest has no free memory for lists")
    };
    let before: Vec<Option<Mfn>> = run.iter().map(|pfn| machine.p2m.mfn(pfn)).collect();
    let aliased = run.first().add(FRAMES / 2);
    let Some(mfn) = machine.p2m.mfn(aliased) else { fail!("pfn {aliased} has no machine frame") };
    if let Err(errno) = guest().set_window(slot::ALIAS, Some((Gfn::new(mfn.number()), READ_WRITE)))
    {
        error!("mapping the alias of mfn {mfn}: {errno}");
    }

    let failure = match exchanger.acquire(run.into_run(), ANYWHERE, lists.words()) {
        Err(failure) => failure,
        Ok(extent) => {
            let extent = OwnedExtent::of(machine, extent);
            fail!("Xen took pfn {aliased} although an alias maps it: {:?}", *extent)
        }
    };
    let ExchangeFailure { error, remaining } = failure;
    let run = match remaining.whole() {
        Ok(run) => OwnedRun::of(machine, run),
        Err(remaining) => {
            remaining.into_iter().for_each(|run| machine.give(run));
            fail!("frames of the run were lost: {error}")
        }
    };
    let by_window = Holder::Mapping { address: window(slot::ALIAS) };
    match error {
        ExchangeError::FrameBusy { pfn, mfn: busy, holder }
            if pfn == aliased && busy == Some(mfn) && holder == by_window => {}
        error => {
            fail!(
                "expected an error that says that pfn {aliased} mfn {mfn} is {by_window}, got: \
                 {error}"
            )
        }
    }
    frame_checks::agree(machine, &run, |index| before[index as usize])?;
    frame_checks::dirty(&run, context.seed);
    frame_checks::holds_pattern(&run, context.seed, "the run after the refusal")?;
    // The alias still maps the same frame, which proves that the old frame was mapped again.
    let alias = window(slot::ALIAS).as_ptr::<u64>();
    // SAFETY: the alias is mapped, and `run` owns the frame ([M1](xen_contig::rules#M1)).
    let (through_alias, directly) = unsafe {
        let frame = crate::machine::word(aliased, 0);
        (alias.read_volatile(), frame.read_volatile())
    };
    if through_alias != directly {
        fail!(
            "the alias of pfn {aliased} reads {through_alias:#x}, the linear mapping {directly:#x}"
        );
    }

    if let Err(errno) = guest().set_window(slot::ALIAS, None) {
        error!("removing the alias: {errno}");
    }
    let released = exchanger
        .acquire(run.into_run(), ANYWHERE, lists.words())
        .and_then(|extent| exchanger.release(extent, lists.words()));
    match released {
        Ok(run) => frame_checks::agree(machine, &OwnedRun::of(machine, run), |_| None),
        Err(failure) => {
            fail!("the exchange failed without the alias: {}", free_remaining(machine, failure))
        }
    }
}
