//! The loop over the self-tests that the command line selects.

use alloc::vec::Vec;

use super::accounts::AccountsSnapshot;
use super::test::{Test, TestContext};
use crate::command_line::{Options, Selection, When};
use crate::console::say;
use crate::machine::Machine;
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
