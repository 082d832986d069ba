//! The KTAP lines of the tests, and the verdict of a run.

use core::fmt;

use crate::console::say;

/// The verdict of a run, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All tests that ran passed.
    Success,
    /// No test could run here.
    Skip,
    /// The test or its environment is broken.
    Error,
    /// The tested code is broken.
    Failure,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "SUCCESS",
            Self::Skip => "SKIP",
            Self::Error => "ERROR",
            Self::Failure => "FAILURE",
        })
    }
}

/// The result of a test.
#[derive(Debug)]
pub enum TestOutcome {
    /// The test passed.
    Pass,
    /// The test does not apply here, for this reason.
    Skip(alloc::string::String),
    /// The test or its environment is broken, with the cause.
    Error(alloc::string::String),
    /// The tested code is broken, with the symptom.
    Fail(alloc::string::String),
}

/// A test that has run, whose line is not printed yet.
#[derive(Debug)]
pub struct FinishedTest {
    /// The name in the report.
    pub name: alloc::string::String,
    /// The result.
    pub outcome: TestOutcome,
}

/// Counts tests and prints their lines.
#[derive(Debug)]
pub struct TestReport {
    totals: Totals,
    worst: Verdict,
}

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
    errors: usize,
}

impl Totals {
    fn tests(self) -> usize {
        self.passed + self.failed + self.skipped + self.errors
    }
}

impl fmt::Display for Totals {
    /// Writes the line that Linux's kselftests end with (`ksft_print_cnts` in
    /// `tools/testing/selftests/kselftest.h`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped, errors } = self;
        write!(f, "# Totals: pass:{passed} fail:{failed} skip:{skipped} error:{errors}")
    }
}

impl TestReport {
    /// Prints the KTAP header and the number of planned tests.
    pub fn plan(planned: usize) -> Self {
        say!("KTAP version 1");
        say!("1..{planned}");
        Self { totals: Totals::default(), worst: Verdict::Success }
    }

    /// Prints the line of a test, which took `time` milliseconds.
    pub fn line(&mut self, name: &str, outcome: &TestOutcome, time: Option<u64>) {
        let number = self.totals.tests() + 1;
        match outcome {
            TestOutcome::Pass => {
                self.totals.passed += 1;
                match time {
                    Some(time) => say!("ok {number} {name} # time={time}ms"),
                    None => say!("ok {number} {name}"),
                }
            }
            TestOutcome::Skip(why) => {
                self.totals.skipped += 1;
                say!("ok {number} {name} # SKIP {why}");
            }
            TestOutcome::Error(why) => {
                self.totals.errors += 1;
                self.worst = self.worst.max(Verdict::Error);
                say!("not ok {number} {name} # ERROR {why}");
            }
            TestOutcome::Fail(why) => {
                self.totals.failed += 1;
                self.worst = self.worst.max(Verdict::Failure);
                say!("not ok {number} {name} # {why}");
            }
        }
    }

    /// Prints the totals and returns the worst verdict of all tests: `Skip` if none passed and none
    /// failed.
    pub fn finish(self) -> Verdict {
        say!("{}", self.totals);
        if self.totals.passed == 0 { self.worst.max(Verdict::Skip) } else { self.worst }
    }
}

/// Prints the lines of a run without tests and returns its verdict.
pub fn none_run(verdict: Verdict) -> Verdict {
    TestReport::plan(0).finish();
    verdict
}
