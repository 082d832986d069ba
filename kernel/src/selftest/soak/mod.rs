//! Does nothing get lost in a long random mix of all that the allocator does?
//!
//! The guest's memory is nearly full and in pieces: all but 8 MiB is held by nobody in particular,
//! and of those pieces of random size are held, too, ever others. Three allocators, one for each
//! policy of giving back, share what is left. Every buffer is checked against Xen's books when it
//! comes, carries a pattern as long as it lives, and is checked for it when it goes.
//!
//! From time to time free memory is swapped for other memory, so that not ever more of it is
//! contiguous as it is. `seed=` chooses the sequence. Every operation is counted under what became of it, and the counts
//! must add up.
//!
//! | file | holds |
//! |---|---|
//! | [`random`] | the sequence |
//! | [`requests`] | what is asked for |
//! | [`run`] | the operations |
//! | [`tally`] | what became of them |
//! | [`listing`] | the guest's P2M, for a witness outside |

mod listing;
mod random;
mod requests;
mod run;
mod tally;

pub use random::SoakRandom;

use alloc::vec::Vec;

use xen_contig::dma::{Allocator, Retain};

use self::run::Soak;
use super::accounts::AccountsSnapshot;
use super::dma::helpers::{HeldFrames, trim_all};
use super::{Check, Test, TestContext, TestOutcome, fail, frame_checks, skip};
use crate::command_line::When;
use crate::say;

/// What the allocators retain.
const POLICIES: [Retain; 3] =
    [Retain::NOTHING, Retain::Bytes { low: 64 << 10, high: 256 << 10 }, Retain::ByMemory];

/// Operations of a soak.
const OPERATIONS: u64 = 100_000;

/// Operations of the one that runs with all the other tests.
const FEW: u64 = 1_000;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("soak-short", |context| soak(context, FEW)));
    listing::add(tests, "p2m-before");
    tests.push(Test::new("soak", |context| soak(context, OPERATIONS)).when(When::Asked));
    listing::add(tests, "p2m-after");
}

fn soak(context: &TestContext<'_>, operations: u64) -> Check {
    let machine = context.machine;
    let before = AccountsSnapshot::of(machine);
    let allocators = POLICIES.map(|it| Allocator::new(machine, it));
    let mut soak = Soak::start(machine, &allocators, context.seed)?;
    let ran = soak.run(operations);
    let (tally, released) = soak.end();
    tally.report(context.seed);
    for allocator in &allocators {
        trim_all(allocator)?;
        let stats = allocator.stats();
        say!(
            "# soak: {} buffers from the reserve, {} adopted, {} by an exchange; {} frames returned \
             to Xen, {} times refused; at most {} steps under the lock",
            stats.from_reserve,
            stats.adopted,
            stats.exchanged,
            stats.returned,
            stats.refusals,
            stats.longest_hold
        );
    }
    ran?;
    released?;
    if tally.total() != operations {
        fail!("{operations} operations, but {} are accounted for", tally.total());
    }
    let now = AccountsSnapshot::of(machine);
    if now != before {
        fail!("before: {before:?}, now: {now:?}");
    }
    let free = HeldFrames::all(machine);
    free.runs().iter().try_for_each(|run| frame_checks::agree(machine, run, |_| None))
}
