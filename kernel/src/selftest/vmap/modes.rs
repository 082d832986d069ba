//! What do lazy and sync unmapping cost?

use alloc::vec::Vec;

use hypercall::trace::CallTotals;
use xen_contig::vmap::{Flush, UnmapMode};

use super::{Check, OwnedRun, Test, TestContext, TestOutcome, cost_of, fail, map, refused, skip};
use crate::machine::{ANYWHERE, Machine};
use crate::say;
use crate::tsc::tsc;

/// The number of pages of an area.
const PAGES: u64 = 16;

/// The maximum number of times that an area is mapped and unmapped.
const CYCLES: u64 = 32;

/// Returns how often an area can be mapped and unmapped without a flush for want of addresses. Each
/// time needs a guard page too.
fn cycles(machine: &Machine) -> u64 {
    let budget = machine.areas.budget();
    let pages = u64::from(budget.pages.min(machine.areas.stats().free_pages)) / (PAGES + 1);
    CYCLES.min(pages).min(budget.areas.into())
}

/// The number of allocations of frames that were in an area.
const ALLOCATIONS: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vmap-lazy-and-sync", compare));
}

/// The hypercalls and ticks of an operation.
struct UnmapCost {
    row: CallTotals,
    ticks: u64,
}

/// Runs `act` and returns its cost.
fn measure(act: impl FnOnce() -> Check) -> Result<UnmapCost, TestOutcome> {
    let start = tsc();
    let (result, row) = cost_of(act);
    let ticks = tsc() - start;
    result.map(|()| UnmapCost { row, ticks })
}

fn compare(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    say!("# vmap: per cycle: an area of {PAGES} pages mapped and unmapped; per allocation:");
    say!("# vmap: {PAGES} frames that were in such an area, exchanged and released");
    say!("# vmap: a tick is one of the TSC; where QEMU counts instructions, one instruction");
    say!("# vmap:                  hypercalls  operations  flushes     ticks");
    clear(machine)?;
    let count = cycles(machine);
    if count == 0 {
        skip!("the guest has no addresses for an area of {PAGES} pages");
    }
    let mut cycles = Vec::new();
    for (name, mode) in [("lazy", UnmapMode::Lazy), ("sync", UnmapMode::Sync)] {
        clear(machine)?;
        let cost = cycle(machine, mode, count)?;
        print(name, "cycle", &cost, count);
        cycles.push(cost);
        clear(machine)?;
        if machine.exchanger().is_some_and(|exchanger| exchanger.limit().frames() >= PAGES) {
            print(name, "allocation", &allocation(machine, mode)?, ALLOCATIONS);
        }
    }
    let [lazy, sync] = cycles.as_slice() else { fail!("expected two measured modes") };
    // Compare counts only, because ticks depend on the machine.
    if lazy.row.flushes > 0 || sync.row.flushes != count || lazy.row.calls > sync.row.calls {
        fail!(
            "lazy must make no flush, and sync one per cycle: lazy {:?}, sync {:?}",
            lazy.row,
            sync.row
        );
    }
    Ok(())
}

/// Purges the leftovers of earlier tests, so that they are not measured.
fn clear(machine: &Machine) -> Check {
    match machine.areas.purge_all(Flush::Now) {
        Ok(_) => Ok(()),
        Err(error) => fail!("purging: {error}"),
    }
}

/// Prints the cost per `count`, with two decimals.
fn print(mode: &str, what: &str, cost: &UnmapCost, count: u64) {
    let per = |total: u64| (total / count, total % count * 100 / count);
    let CallTotals { calls, done, flushes, .. } = cost.row;
    let ((calls, c), (operations, o), (flushes, f)) = (per(calls), per(done), per(flushes));
    say!(
        "# vmap: {mode} {what:<10} {calls:>8}.{c:02} {operations:>8}.{o:02} {flushes:>5}.{f:02} \
         {:>9}",
        cost.ticks / count
    );
}

fn cycle(machine: &Machine, mode: UnmapMode, count: u64) -> Result<UnmapCost, TestOutcome> {
    let run = OwnedRun::take(machine, PAGES)?;
    measure(|| {
        for _ in 0..count {
            let area = map(machine, &run, "cycle")?;
            area.unmap(mode)?;
        }
        Ok(())
    })
}

fn allocation(machine: &Machine, mode: UnmapMode) -> Result<UnmapCost, TestOutcome> {
    let Some(exchanger) = machine.exchanger() else { fail!("the machine has no exchanger") };
    let mut run = Some(OwnedRun::take(machine, PAGES)?);
    let Some(mut lists) = machine.lists(2 * PAGES) else {
        skip!("the guest has no free memory for lists")
    };
    measure(|| {
        for _ in 0..ALLOCATIONS {
            let Some(taken) = run.take() else { fail!("the run was lost") };
            let area = map(machine, &taken, "ring")?;
            area.unmap(mode)?;
            let result = exchanger
                .acquire(taken.into_run(), ANYWHERE, lists.words())
                .and_then(|extent| exchanger.release(extent, lists.words()));
            match result {
                Ok(back) => run = Some(OwnedRun::of(machine, back)),
                Err(failure) => return Err(refused(machine, "the exchange failed", failure)),
            }
        }
        Ok(())
    })
}
