//! The loop over the self-tests that the command line selects.

use alloc::format;
use alloc::vec::Vec;

use hypercall::Xen;
use hypercall::trace::Span;
use xen_contig::vmap::AreaCount;

use super::accounts::AccountsSnapshot;
use super::reservation::reduced;
use super::test::{Test, TestContext};
use crate::command_line::{Options, Selection, When};
use crate::console::say;
use crate::drivers::memory;
use crate::layout::{slot, window};
use crate::machine::Machine;
use crate::time::Stopwatch;
use crate::trace;
use crate::traps::try_read;
use crate::vcpu::xen;
use crate::verdict::{FinishedTest, TestOutcome, TestReport, Verdict, none_run};

/// Runs those of `tests` that the command line selects.
///
/// Prints a line for each test, after the lines of the results in `finished`.
pub fn run(
    machine: &Machine,
    options: &Options,
    finished: Vec<FinishedTest>,
    mut tests: Vec<Test>,
) -> Verdict {
    if options.selftest == Selection::List {
        return list(&tests);
    }
    let names: Vec<_> = tests.iter().map(|test| (test.name.as_str(), test.when)).collect();
    let unmatched = options.selftest.unmatched(&names);
    for pattern in &unmatched {
        say!(
            "# command line: no self-test matches \"{pattern}\"; selftest=list prints their names"
        );
    }
    if !unmatched.is_empty() {
        say!("# no test runs, because the command line has errors");
        return none_run(Verdict::Error);
    }
    tests.retain(|test| options.selftest.includes(&test.name, test.when));
    if tests.is_empty() && finished.is_empty() {
        say!("# the command line selects no self-test");
    }
    let mut report = TestReport::plan(finished.len() + tests.len());
    for FinishedTest { name, outcome } in &finished {
        report.line(name, outcome, None);
    }
    if !tests.is_empty() {
        say!(
            "# expected: Xen logs warnings (\"Over-allocation\"; a debug build of Xen also \"Bad steal \
             mfn\" and \"Error getting mfn\"), because the tests make calls that Xen refuses"
        );
    }
    let before = AccountsSnapshot::of(machine);
    let context = TestContext { machine, seed: options.seed, server: options.server, before };
    // The records of a trace refer to the names as long as the kernel runs.
    for test in tests.leak() {
        let before = Leftovers::of(machine);
        let watch = Stopwatch::start();
        let span = Span::Test(&test.name);
        let result = xen().within(span, || (test.run)(&context));
        let outcome = result.err().unwrap_or(TestOutcome::Pass);
        let time = watch.milliseconds();
        trace::print();
        report.line(&test.name, &before.compare(machine, outcome), Some(time));
    }
    if options.report {
        memory::print_reports();
    }
    report.finish()
}

/// Prints the names of all tests. None runs.
fn list(tests: &[Test]) -> Verdict {
    for Test { name, when, .. } in tests {
        match when {
            When::Always => say!("# selftest: {name}"),
            When::Asked => say!("# selftest: {name} (not by default)"),
            When::Named => say!("# selftest: {name} (only by its full name: it ends the kernel)"),
        }
    }
    say!("# the tests were listed, and none ran");
    none_run(Verdict::Skip)
}

/// What a test must leave as it found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leftovers {
    accounts: AccountsSnapshot,
    /// The areas in use.
    areas: AreaCount,
    /// The mappings of the window slots for tests.
    windows: usize,
}

impl Leftovers {
    fn of(machine: &Machine) -> Self {
        let windows = [slot::ALIAS, slot::PROBE].map(|slot| try_read(window(slot)).is_ok());
        Self {
            accounts: AccountsSnapshot::of(machine),
            areas: machine.areas.stats().live,
            windows: windows.into_iter().filter(|mapped| *mapped).count(),
        }
    }

    /// Returns the outcome of a test that has ended now.
    ///
    /// A test that did not clean up is broken, and the tests after it could fail because of
    /// that. A failure stays a failure, and the line before it says what it left.
    fn compare(self, machine: &Machine, outcome: TestOutcome) -> TestOutcome {
        let now = Self::of(machine);
        if now == self {
            return outcome;
        }
        if now.accounts != self.accounts
            && let Some(why) = reduced()
        {
            return TestOutcome::Skip(why);
        }
        match outcome {
            TestOutcome::Pass | TestOutcome::Skip(_) => TestOutcome::Error(format!(
                "the test did not clean up: before it {self:?}, after it {now:?}"
            )),
            worse => {
                say!("# the test did not clean up: before it {self:?}, after it {now:?}");
                worse
            }
        }
    }
}
