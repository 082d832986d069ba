//! Collects the checks of a suite and the verdicts on its guests.

use crate::guest::{GuestVerdict, TestCounts};
use crate::outcome::{self, GuestOutcome};
use crate::progress::ProgressLog;

/// The checks that were made, and the guests that are judged by their own tests.
#[derive(Debug, Default)]
pub struct Findings {
    counts: TestCounts,
    failed: Vec<String>,
    outcomes: Vec<GuestOutcome>,
}

impl Findings {
    /// Counts and prints one check; an error says what is wrong.
    pub fn note(
        &mut self,
        progress: &ProgressLog,
        name: &str,
        result: std::result::Result<(), String>,
    ) {
        match result {
            Ok(()) => {
                self.counts.passed += 1;
                progress.line(&format!("ok      {name}"));
            }
            Err(why) => {
                self.counts.failed += 1;
                progress.line(&format!("NOT OK  {name}: {why}"));
                self.failed.push(format!("{name}: {why}"));
            }
        }
    }

    /// Counts the tests of a guest, and prints its verdict.
    pub fn judge(&mut self, progress: &mut ProgressLog, outcome: GuestOutcome) {
        progress.say(&format!("{}: {}", outcome.mode, outcome.judgement.verdict));
        self.outcomes.push(outcome);
    }

    /// Adds the findings of another part.
    pub fn add(&mut self, other: Self) {
        self.counts.add(other.counts);
        self.failed.extend(other.failed);
        self.outcomes.extend(other.outcomes);
    }

    /// Returns the guests that are judged by their own tests.
    pub fn outcomes(&self) -> &[GuestOutcome] {
        &self.outcomes
    }

    /// Returns the checks so far and the tests of the guests together.
    pub fn counts(&self) -> TestCounts {
        let mut counts = self.counts;
        self.outcomes.iter().for_each(|outcome| counts.add(outcome.judgement.counts));
        counts
    }

    /// Returns the worst verdict.
    pub fn verdict(&self) -> GuestVerdict {
        let guests = self.outcomes.iter().map(|outcome| outcome.judgement.verdict).max();
        let checks = match (self.counts.passed, self.counts.failed) {
            (0, 0) => None,
            (_, 0) => Some(GuestVerdict::Success),
            _ => Some(GuestVerdict::Failure),
        };
        // A suite without a guest and without a check proves nothing.
        guests.max(checks).unwrap_or(GuestVerdict::Error)
    }

    /// Prints the table of the guests, everything that failed, and the last line.
    pub fn close(mut self) -> GuestVerdict {
        if !self.outcomes.is_empty() {
            self.outcomes.sort_by_key(GuestOutcome::place);
            println!("\n{}", outcome::table(&self.outcomes));
        }
        self.outcomes.iter().flat_map(GuestOutcome::details).for_each(|line| println!("{line}"));
        self.failed.iter().for_each(|line| println!("NOT OK  {line}"));
        outcome::close(self.verdict(), self.counts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::End;
    use crate::outcome::tests::{BAD, GOOD, outcome};

    #[test]
    fn the_worst_verdict_of_guests_and_checks_counts() {
        let progress = &mut ProgressLog::start();
        let mut findings = Findings::default();
        findings.judge(progress, outcome(GOOD, End::PowerOff));
        assert_eq!(findings.verdict(), GuestVerdict::Success);
        findings.judge(progress, outcome(BAD, End::PowerOff));
        findings.judge(progress, outcome(GOOD, End::PowerOff));
        findings.note(progress, "a", Ok(()));
        assert_eq!(findings.verdict(), GuestVerdict::Failure);
        let mut failed = Findings::default();
        failed.judge(progress, outcome(GOOD, End::PowerOff));
        failed.note(progress, "a", Err("why".to_owned()));
        assert_eq!(failed.verdict(), GuestVerdict::Failure);
    }

    #[test]
    fn one_check_that_failed_is_a_failure() {
        let progress = ProgressLog::start();
        let mut findings = Findings::default();
        findings.note(&progress, "a", Ok(()));
        let mut part = Findings::default();
        part.note(&progress, "b", Err("why".to_owned()));
        findings.add(part);
        assert_eq!((findings.counts.passed, findings.counts.failed), (1, 1));
        assert_eq!(findings.failed, ["b: why"]);
        assert_eq!(findings.close(), GuestVerdict::Failure);
    }

    #[test]
    fn a_suite_without_checks_is_an_error() {
        assert_eq!(Findings::default().close(), GuestVerdict::Error);
        let mut findings = Findings::default();
        findings.note(&ProgressLog::start(), "a", Ok(()));
        assert_eq!(findings.close(), GuestVerdict::Success);
    }
}
