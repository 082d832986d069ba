//! Does a refill purge leftovers, and refuse a run with an area in use?
//!
//! Xen accepts a frame of a translated guest even if something maps it
//! ([C76](xen_contig::conformance#C76)), so only the kernel can refuse.

use alloc::vec::Vec;

use xen_contig::exchange::ExchangeError;
use xen_contig::paging::Holder;
use xen_contig::vmap::{Flush, UnmapMode};

use super::{Check, OwnedRun, Test, TestContext, fail, map, refused, skip};
use crate::machine::ANYWHERE;
use crate::selftest::reservation::can_refill;
use crate::traps::try_read;

/// The number of frames of the run.
const FRAMES: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vmap-refill-purges", refill_purges).needs_order(3));
}

fn refill_purges(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let Some(refiller) = machine.refiller() else {
        skip!("this guest does not refill: {}", machine.capability)
    };
    can_refill()?;
    let run = OwnedRun::take(machine, FRAMES)?;
    let Some(mut lists) = machine.lists(FRAMES) else {
        skip!("the guest has no free memory for lists")
    };
    let (first, area) = (run.first(), map(machine, &run, "net-rx")?);
    let address = area.address();
    let (run, refusal) = match refiller.refill(run.into_run(), ANYWHERE, lists.words()) {
        Ok(run) => (OwnedRun::of(machine, run), None),
        Err(failure) => {
            let error = failure.error;
            let run = match failure.remaining.whole() {
                Ok(run) => OwnedRun::of(machine, run),
                Err(remaining) => {
                    remaining.into_iter().for_each(|run| machine.give(run));
                    fail!("the refill lost frames: {error}")
                }
            };
            (run, Some(error))
        }
    };
    let still_there = try_read(address);
    area.unmap(UnmapMode::Lazy)?;
    let holder = Holder::Area { address, name: "net-rx" };
    let expected = ExchangeError::FrameBusy { pfn: first, mfn: None, holder };
    if refusal != Some(expected) || still_there.is_err() {
        fail!(
            "expected a refusal that names the area in use, got {refusal:?}; its first word: \
             {still_there:?}"
        );
    }
    match refiller.refill(run.into_run(), ANYWHERE, lists.words()) {
        Ok(run) => {
            let left = machine.areas.purge(&run, Flush::Inhibit);
            machine.give(run);
            match left {
                Ok(left) if left.aliases == 0 => Ok(()),
                other => fail!("expected no alias after a refill, got {other:?}"),
            }
        }
        Err(failure) => Err(refused(machine, "the refill failed", failure)),
    }
}
