//! The verdict: KTAP lines, and one word at the end that only ever gets worse.

use core::fmt;

use super::say;

/// How a run ended, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All that ran did well.
    Success,
    /// Nothing could be run here.
    Skip,
    /// The test or its surroundings are broken.
    Error,
    /// What is tested is broken.
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

/// What a test says of itself.
#[derive(Debug)]
pub enum Outcome {
    /// It is as it should be.
    Pass,
    /// It can't be tried here, and why.
    Skip(alloc::string::String),
    /// The surroundings did not let it be tried, and how.
    Error(alloc::string::String),
    /// It is not as it should be, and how.
    Fail(alloc::string::String),
}

/// Counts tests and prints their lines.
#[derive(Debug)]
pub struct Report {
    number: usize,
    passed: usize,
    worst: Verdict,
}

impl Report {
    /// Announces `planned` tests.
    pub fn plan(planned: usize) -> Self {
        say!("KTAP version 1");
        say!("1..{planned}");
        Self { number: 0, passed: 0, worst: Verdict::Success }
    }

    /// Prints the line of a test.
    pub fn line(&mut self, name: &str, outcome: &Outcome) {
        self.number += 1;
        let number = self.number;
        match outcome {
            Outcome::Pass => {
                self.passed += 1;
                say!("ok {number} {name}");
            }
            Outcome::Skip(why) => say!("ok {number} {name} # SKIP {why}"),
            Outcome::Error(why) => {
                self.worst = self.worst.max(Verdict::Error);
                say!("not ok {number} {name} # ERROR {why}");
            }
            Outcome::Fail(why) => {
                self.worst = self.worst.max(Verdict::Failure);
                say!("not ok {number} {name} # {why}");
            }
        }
    }

    /// The verdict of all tests: `Skip` where none was run to its end.
    pub fn verdict(&self) -> Verdict {
        if self.passed == 0 { self.worst.max(Verdict::Skip) } else { self.worst }
    }
}

/// The lines of a run without tests.
pub fn none_run(verdict: Verdict) -> Verdict {
    Report::plan(0);
    verdict
}
