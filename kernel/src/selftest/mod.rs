//! The self-test at boot: one file per question.
//!
//! | file | question |
//! |---|---|
//! | [`orders`] | does each order come contiguous, zeroed and on record, and go back the same way? |
//! | [`order_limit`] | is one order more than Xen permits refused, and told so? |
//! | [`address_bits`] | is the address limit kept, down to where memory ends, then refused? |
//! | [`neighbours`] | are frames next to an exchanged run left alone? |
//! | [`stale_alias`] | does Xen refuse a frame that something still maps, and is all as before? |
//! | [`translated`] | does PVH refuse the exchange, and does the refill work there? |
//! | [`dma`] | does the allocator of coherent buffers keep its word? |
//! | [`edu`] | does a real device move data into and out of contiguous buffers? |
//! | `virtio` | does a driver of `virtio-drivers` move data through the adapter's `Hal`? |
//! | [`rights`] | is nothing both writable and executable, and are null and guard unmapped? |
//! | [`vcpus`] | are all vCPUs up, do they work, recover, and sleep? |
//! | [`conformance`] | does Xen answer each odd exchange as `docs/CONFORMANCE.md` says? |
//! | [`soak`] | does nothing get lost in a long random mix of all that the allocator does? |
//! | [`vmap`] | are leftovers of unmapped areas named and purged, without a flush, on all vCPUs? |
//! | [`storm`] | do several vCPUs allocate, free, map and unmap side by side? |
//! | [`bench`] | what does a buffer of 2 MiB cost, in instructions? |
//! | [`accounts`] | is every frame where it was? |
//! | [`misbehave`] | does the runner call a broken guest by its right name? |

mod accounts;
mod address_bits;
mod bench;
mod books;
mod conformance;
mod dma;
mod edu;
mod misbehave;
mod neighbours;
mod order_limit;
mod orders;
mod owned;
mod rights;
mod soak;
mod stale_alias;
mod storm;
mod translated;
mod vcpus;
mod virtio;
mod vmap;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::command_line::{Options, When};
use crate::machine::Machine;
use crate::verdict::{Outcome, Report, Verdict};

/// What a test needs to know.
pub struct Context<'m> {
    machine: &'m Machine,
    /// What patterns start from.
    seed: u64,
    /// The accounts before the first test.
    before: accounts::Accounts,
}

/// How a test ends early.
type Check = Result<(), Outcome>;

/// The body of a test.
type Body = Box<dyn Fn(&Context<'_>) -> Check>;

/// A self-test.
struct Test {
    name: String,
    /// When it is run.
    when: When,
    run: Body,
}

impl Test {
    fn new(name: impl Into<String>, run: impl Fn(&Context<'_>) -> Check + 'static) -> Self {
        Self { name: name.into(), when: When::Always, run: Box::new(run) }
    }

    fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

/// Something is not as it should be.
macro_rules! fail {
    ($($argument:tt)*) => {
        return Err($crate::verdict::Outcome::Fail(alloc::format!($($argument)*)))
    };
}
use fail;

/// The surroundings did not let it be tried.
macro_rules! error {
    ($($argument:tt)*) => {
        return Err($crate::verdict::Outcome::Error(alloc::format!($($argument)*)))
    };
}
use error;

/// It can't be tried here.
macro_rules! skip {
    ($($argument:tt)*) => {
        return Err($crate::verdict::Outcome::Skip(alloc::format!($($argument)*)))
    };
}
use skip;

/// Runs the tests that were asked for.
pub fn run(machine: &Machine, options: &Options) -> Verdict {
    let mut tests = Vec::new();
    rights::add(&mut tests);
    vcpus::add(&mut tests);
    order_limit::add(&mut tests);
    orders::add(machine, &mut tests);
    translated::add(machine, &mut tests);
    address_bits::add(&mut tests);
    neighbours::add(&mut tests);
    stale_alias::add(&mut tests);
    vmap::add(&mut tests);
    conformance::add(&mut tests);
    dma::add(&mut tests);
    edu::add(&mut tests);
    virtio::add(&mut tests);
    soak::add(&mut tests);
    storm::add(&mut tests);
    bench::add(&mut tests);
    misbehave::add(&mut tests);
    // Last, when all that the others took must be back.
    accounts::add(&mut tests);
    tests.retain(|test| options.selftest.includes(&test.name, test.when));

    let mut report = Report::plan(tests.len());
    let before = accounts::Accounts::of(machine);
    let context = Context { machine, seed: options.seed, before };
    for test in &tests {
        let outcome = (test.run)(&context).err().unwrap_or(Outcome::Pass);
        report.line(&test.name, &outcome);
    }
    report.verdict()
}
