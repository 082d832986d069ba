//! The loop over the self-tests that the command line selects.

use alloc::vec::Vec;

use super::accounts::AccountsSnapshot;
use super::test::{Test, TestContext};
use crate::command_line::Options;
use crate::machine::Machine;
use crate::verdict::{FinishedTest, TestOutcome, TestReport, Verdict};

/// Runs those of `tests` that the command line selects.
///
/// Prints a line for each test, after the lines of the results in `finished`.
pub fn run(
    machine: &Machine,
    options: &Options,
    finished: Vec<FinishedTest>,
    mut tests: Vec<Test>,
) -> Verdict {
    tests.retain(|test| options.selftest.includes(&test.name, test.when));
    let mut report = TestReport::plan(finished.len() + tests.len());
    for FinishedTest { name, outcome } in &finished {
        report.line(name, outcome);
    }
    let before = AccountsSnapshot::of(machine);
    let context = TestContext { machine, seed: options.seed, before };
    for test in &tests {
        let outcome = (test.run)(&context).err().unwrap_or(TestOutcome::Pass);
        report.line(&test.name, &outcome);
    }
    report.verdict()
}
