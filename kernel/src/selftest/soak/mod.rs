//! Is every frame and every byte kept in a long random sequence of all operations of the allocator?
//!
//! The guest's memory is nearly full and fragmented. All but 8 MiB is taken, and changing pieces of
//! random size are taken from these 8 MiB. Three allocators, one for each release policy, share the
//! rest. Every new buffer is checked against Xen's tables and filled with a pattern. The pattern is
//! checked when the buffer is freed.
//!
//! From time to time free memory is exchanged for other memory, because otherwise more and more of
//! it would be contiguous. `seed=` chooses the sequence. Every operation is counted by its result,
//! and the counts must add up.
//!
//! | file | contents |
//! |---|---|
//! | [`random`] | the sequence |
//! | [`requests`] | the random requests |
//! | [`run`] | the operations |
//! | [`tally`] | the counts of their results |
//! | [`listing`] | the guest's P2M, for a witness outside the guest |

mod listing;
pub(super) mod random;
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

/// The release policies of the allocators.
const POLICIES: [Retain; 3] =
    [Retain::NOTHING, Retain::Bytes { low: 64 << 10, high: 256 << 10 }, Retain::ByMemory];

/// The number of operations of a soak.
const OPERATIONS: u64 = 100_000;

/// The number of operations of the soak that runs by default.
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
             to Xen, which refused {} times, as it may; at most {} steps under the lock",
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
        fail!("{operations} operations ran, but {} were counted", tally.total());
    }
    let now = AccountsSnapshot::of(machine);
    if now != before {
        fail!("before: {before:?}, now: {now:?}");
    }
    let free = HeldFrames::all(machine);
    free.runs().iter().try_for_each(|run| frame_checks::agree(machine, run, |_| None))
}
