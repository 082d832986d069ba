//! The loop over the entries of `bench=`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::allocator::BenchAllocator;
use super::aside::FramesSetAside;
use super::patterns::{Shortfall, churn, cycle, hold};
use super::strict::strict;
use super::tally::Tally;
use super::{BenchEntry, BenchPattern, bare};
use crate::console::say;
use crate::machine::Machine;
use crate::verdict::{FinishedTest, TestOutcome};

/// Runs the entries and prints a line for each. Returns a result for each, in their order.
pub fn run(machine: &Machine, entries: &[BenchEntry], seed: u64) -> Vec<FinishedTest> {
    let mut aside: Option<FramesSetAside<'_>> = None;
    let mut finished = Vec::new();
    for entry in entries {
        // The frames stay aside for the next entry if it needs the same.
        aside = aside.filter(|aside| needs_far(entry) && aside.bits() == entry.bits);
        if needs_far(entry) {
            aside.get_or_insert_with(|| FramesSetAside::new(machine, entry.bits)).take_all();
        }
        let mut tally = Tally::default();
        let shortfall = run_one(machine, entry, seed, aside.as_mut(), &mut tally);
        say!("{}", tally.line(entry));
        finished.push(FinishedTest {
            name: format!("bench-{entry}"),
            outcome: judge(machine, entry, &tally, shortfall),
        });
    }
    finished
}

/// Returns true if the entry needs memory from Xen.
fn needs_far(entry: &BenchEntry) -> bool {
    entry.far || matches!(entry.pattern, BenchPattern::Strict | BenchPattern::Bare)
}

/// Runs one entry. Returns an error if it did fewer operations than requested.
fn run_one(
    machine: &Machine,
    entry: &BenchEntry,
    seed: u64,
    aside: Option<&mut FramesSetAside<'_>>,
    tally: &mut Tally,
) -> Option<String> {
    if entry.pattern == BenchPattern::Bare {
        return bare::bare(machine, entry, tally).err();
    }
    let allocator = match entry.pattern {
        BenchPattern::Strict => BenchAllocator::retaining_nothing(machine, entry.bits),
        _ => BenchAllocator::with_default_policy(machine, entry.bits),
    };
    let allocator = match allocator {
        Ok(allocator) => allocator,
        Err(error) => return Some(format!("{error}")),
    };
    let shortfall = match (entry.pattern, aside) {
        (BenchPattern::Strict, Some(aside)) => strict(&allocator, entry, aside, tally),
        (BenchPattern::Hold, _) => hold(&allocator, entry, tally),
        (BenchPattern::Churn, _) => churn(&allocator, entry, seed, tally),
        _ => cycle(&allocator, entry, tally),
    };
    tally.exchanged = allocator.exchanged();
    allocator.end();
    shortfall.map(|shortfall| match shortfall {
        Shortfall::Alloc(error) => format!("{error}"),
        Shortfall::Heap => {
            "the heap has no memory for the list of buffers; choose a smaller count in bench="
                .into()
        }
    })
}

fn judge(
    machine: &Machine,
    entry: &BenchEntry,
    tally: &Tally,
    shortfall: Option<String>,
) -> TestOutcome {
    let count = u64::from(entry.count);
    match shortfall {
        Some(why) if needs_far(entry) && machine.exchanger().is_none() => TestOutcome::Skip(why),
        Some(why) => TestOutcome::Error(format!("{} of {count}: {why}", tally.ok)),
        None if entry.pattern == BenchPattern::Strict && tally.exchanged != count => {
            TestOutcome::Error(format!("{} of {count} operations exchanged", tally.exchanged))
        }
        None => TestOutcome::Pass,
    }
}
