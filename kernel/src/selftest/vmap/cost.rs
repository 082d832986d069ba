//! Does a purge flush nothing, and does its cost depend only on the aliases of its frames?

use alloc::vec::Vec;

use hypercall::trace::CallTotals;
use xen_contig::exchange::Fuse;
use xen_contig::vmap::{Flush, UnmapMode};

use super::{Check, OwnedRun, Test, TestContext, TestOutcome, cost_of, fail, map, refused};
use crate::machine::{ANYWHERE, Machine};
use crate::say;
use crate::selftest::sent_events::sent_during;

/// The number of frames whose aliases are purged.
const FRAMES: u64 = 512;

/// The number of leftover pages of other areas.
const UNRELATED: u32 = 100_000;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vmap-purge-flushes-nothing", flushes_nothing));
    tests.push(Test::new("vmap-purge-is-exact", exact));
    tests.push(Test::new("vmap-one-flush-per-exchange", one_flush).needs_exchange_order(4));
}

/// Returns the hypercalls of a purge of one leftover area over all frames of a run.
fn purge_one(machine: &Machine) -> Result<CallTotals, TestOutcome> {
    let run = OwnedRun::take(machine, FRAMES)?;
    // This removes leftovers of earlier tests.
    if let Err(error) = machine.areas.purge(&run, Flush::Inhibit) {
        fail!("purging: {error}");
    }
    let area = map(machine, &run, "ours")?;
    area.unmap(UnmapMode::Lazy)?;
    let (purged, cost) = cost_of(|| machine.areas.purge(&run, Flush::Inhibit));
    match purged {
        Ok(purged) if purged.aliases as u64 == FRAMES && !purged.flushed => Ok(cost),
        other => fail!("purging {FRAMES} aliases: {other:?}"),
    }
}

fn expected(machine: &Machine) -> CallTotals {
    match machine.exchanger() {
        Some(_) => CallTotals { calls: 1, done: FRAMES, ..CallTotals::default() },
        // A translated guest writes its page tables itself, without hypercalls.
        None => CallTotals::default(),
    }
}

fn flushes_nothing(context: &TestContext<'_>) -> Check {
    let (cost, sent) = sent_during(|| purge_one(context.machine))?;
    let cost = cost?;
    if cost != expected(context.machine) || sent > 0 {
        fail!(
            "a purge of {FRAMES} aliases needed {cost:?} and {sent} events between vCPUs, expected \
             {:?} and none",
            expected(context.machine)
        );
    }
    Ok(())
}

/// Checks that leftovers of other areas change neither calls nor operations.
fn exact(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let alone = purge_one(machine)?;
    let run = OwnedRun::take(machine, 250)?;
    let room = machine.areas.budget().pages.min(machine.areas.stats().free_pages / 252 * 250);
    let unrelated = UNRELATED.min(room.saturating_sub(2 * FRAMES as u32));
    for _ in 0..unrelated / 250 {
        let area = map(machine, &run, "unrelated")?;
        area.unmap(UnmapMode::Lazy)?;
    }
    let left = machine.areas.stats().leftover.pages;
    let crowded = purge_one(machine)?;
    let still_left = machine.areas.stats().leftover.pages;
    let (all, cost) = cost_of(|| machine.areas.purge_all(Flush::Now));
    say!(
        "# vmap-purge-is-exact: {} calls, {} operations, {} flushes, with {left} leftover pages of \
         other areas",
        crowded.calls,
        crowded.done,
        crowded.flushes
    );
    if crowded != alone || still_left != left {
        fail!(
            "alone {alone:?}; with {left} other leftover pages {crowded:?}, and {still_left} \
             remain"
        );
    }
    match all {
        Ok(all) if all.aliases >= left && all.flushed && cost.flushes == 1 => Ok(()),
        other => fail!("purging all {left} leftover pages: {other:?}, {cost:?}"),
    }
}

/// Checks that an exchange of frames with leftovers makes one flush in all.
fn one_flush(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let Some(exchanger) = machine.exchanger() else {
        super::skip!("a translated guest does not exchange")
    };
    let run = OwnedRun::take(machine, 16)?;
    let Some(mut lists) = machine.lists(32) else {
        super::skip!("the guest has no free memory for lists")
    };
    let area = map(machine, &run, "ours")?;
    area.unmap(UnmapMode::Lazy)?;
    let acquire = || exchanger.acquire(run.into_run(), ANYWHERE, lists.words());
    let ((result, cost), sent) = sent_during(|| cost_of(acquire))?;
    match result.and_then(|extent| exchanger.release(extent, lists.words())) {
        Ok(run) => {
            let next = map(machine, &OwnedRun::of(machine, run), "next");
            next?.unmap(UnmapMode::Lazy)?;
        }
        Err(failure) => return Err(refused(machine, "the exchange failed", failure)),
    }
    // The next area freed all retired addresses that this flush has covered.
    let retired = machine.areas.stats().retired;
    if retired.areas > 0 {
        fail!("addresses remain retired after the flush of an exchange: {retired:?}");
    }
    // The calls are: aliases; linear mapping, flush and exchange; linear mapping.
    let calls = match machine.exchange_options.fuse {
        Fuse::On => 3,
        Fuse::Off => 5,
    };
    if (cost.calls, cost.flushes, sent) != (calls, 1, 0) {
        fail!(
            "expected {calls} calls, 1 flush and no event between vCPUs; got {cost:?}, {sent} events"
        );
    }
    Ok(())
}
