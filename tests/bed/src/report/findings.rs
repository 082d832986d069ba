//! Collects the checks of a suite and the verdicts on its guests.

use super::outcome::{self, GuestOutcome};
use crate::guest::{GuestVerdict, TestCounts};

/// One check of a suite.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// The time since the check before, in seconds.
    pub seconds: f64,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// As it must be.
    Passed,
    /// What is wrong.
    Failed(String),
    /// What is broken in the bed or in its surroundings.
    Error(String),
    /// Why it could not be made.
    Skipped(String),
}

impl Check {
    /// Returns the line for a terminal.
    pub fn line(&self) -> String {
        match &self.outcome {
            CheckOutcome::Passed => format!("ok      {} ({:.1} s)", self.name, self.seconds),
            CheckOutcome::Failed(why) => format!("NOT OK  {}: {why}", self.name),
            CheckOutcome::Error(why) => format!("ERROR   {}: {why}", self.name),
            CheckOutcome::Skipped(why) => format!("skipped {}: {why}", self.name),
        }
    }
}

/// The checks that were made, and the guests that are judged by their own tests.
#[derive(Debug, Default)]
pub struct Findings {
    /// The checks, in the order of their parts.
    pub checks: Vec<Check>,
    /// The guests that are judged by their own tests.
    pub outcomes: Vec<GuestOutcome>,
}

impl Findings {
    /// Adds the findings of another part.
    pub fn add(&mut self, other: Self) {
        self.checks.extend(other.checks);
        self.outcomes.extend(other.outcomes);
    }

    /// Returns the counts of the checks and of the guests' tests together.
    pub fn counts(&self) -> TestCounts {
        let mut counts = self.checks.iter().fold(TestCounts::default(), |mut counts, check| {
            match check.outcome {
                CheckOutcome::Passed => counts.passed += 1,
                CheckOutcome::Failed(_) | CheckOutcome::Error(_) => counts.failed += 1,
                CheckOutcome::Skipped(_) => counts.skipped += 1,
            }
            counts
        });
        self.outcomes.iter().for_each(|outcome| counts.add(outcome.judgement.counts));
        counts
    }

    /// Returns the worst verdict. A part that was skipped does not spoil a success.
    pub fn verdict(&self) -> GuestVerdict {
        let of_check = |check: &Check| match check.outcome {
            CheckOutcome::Passed => GuestVerdict::Success,
            CheckOutcome::Failed(_) => GuestVerdict::Failure,
            CheckOutcome::Error(_) => GuestVerdict::Error,
            CheckOutcome::Skipped(_) => GuestVerdict::Skip,
        };
        let of_guests = self.outcomes.iter().map(|outcome| outcome.judgement.verdict);
        let of_checks = self.checks.iter().map(of_check);
        let worst = of_guests.clone().chain(of_checks.clone()).max();
        let skips = of_checks.filter(|verdict| *verdict == GuestVerdict::Skip).count();
        let some_ran = self.checks.len() + self.outcomes.len() > skips;
        match worst {
            Some(GuestVerdict::Skip) if some_ran => {
                of_guests.max().unwrap_or(GuestVerdict::Success)
            }
            Some(worst) => worst,
            // A suite without a guest and without a check proves nothing.
            None => GuestVerdict::Error,
        }
    }

    /// Returns the lines that close a run: the table of the guests, and all that did not pass.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.outcomes.is_empty() {
            lines.push(format!("\n{}\n", outcome::table(&self.outcomes).trim_fmt()));
        }
        lines.extend(self.outcomes.iter().flat_map(GuestOutcome::details));
        let passed = |check: &&Check| check.outcome != CheckOutcome::Passed;
        lines.extend(self.checks.iter().filter(passed).map(Check::line));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::End;
    use crate::report::outcome::tests::{BAD, GOOD, outcome};

    fn findings(checks: &[CheckOutcome]) -> Findings {
        let check = |outcome: &CheckOutcome| Check {
            name: "a".into(),
            outcome: outcome.clone(),
            seconds: 0.0,
        };
        Findings { checks: checks.iter().map(check).collect(), outcomes: Vec::new() }
    }

    #[test]
    fn the_worst_verdict_of_guests_and_checks_counts() {
        let mut all = findings(&[CheckOutcome::Passed]);
        all.outcomes.push(outcome(GOOD, End::PowerOff));
        assert_eq!(all.verdict(), GuestVerdict::Success);
        all.outcomes.push(outcome(BAD, End::PowerOff));
        all.outcomes.push(outcome(GOOD, End::PowerOff));
        assert_eq!(all.verdict(), GuestVerdict::Failure);
        let mut failed = findings(&[CheckOutcome::Failed("why".into())]);
        failed.outcomes.push(outcome(GOOD, End::PowerOff));
        assert_eq!(failed.verdict(), GuestVerdict::Failure);
        assert!(failed.summary().iter().any(|line| line == "NOT OK  a: why"));
    }

    #[test]
    fn skipped_checks_alone_are_a_skip() {
        let skipped = CheckOutcome::Skipped("no tools".into());
        assert_eq!(findings(std::slice::from_ref(&skipped)).verdict(), GuestVerdict::Skip);
        let mut some = findings(&[skipped, CheckOutcome::Passed]);
        assert_eq!(some.verdict(), GuestVerdict::Success);
        assert!(some.summary().iter().any(|line| line == "skipped a: no tools"));
        some.outcomes.push(outcome(BAD, End::PowerOff));
        assert_eq!(some.verdict(), GuestVerdict::Failure);
    }

    #[test]
    fn a_suite_without_checks_is_an_error() {
        assert_eq!(Findings::default().verdict(), GuestVerdict::Error);
    }
}
