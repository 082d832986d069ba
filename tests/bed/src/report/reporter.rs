//! What a suite and each of its parts report to.

use std::path::Path;
use std::time::{Duration, Instant};

use super::findings::{Check, CheckOutcome, Findings};
use super::outcome::GuestOutcome;
use super::output::Output;
use super::progress::ProgressLog;
use super::results;
use crate::error::Result;
use crate::guest::{GuestVerdict, TestCounts};

/// Prints what is going on, and collects what is found out.
#[derive(Debug)]
pub struct Reporter {
    progress: ProgressLog,
    findings: Findings,
    /// When the last check or guest was reported, for the time of the next one.
    last: Instant,
}

impl Reporter {
    /// Returns the reporter of a whole run, and starts its clock.
    pub fn start() -> Self {
        Self::of(ProgressLog::start())
    }

    /// Returns the reporter of a part. It has the same clock, another output and no findings.
    pub fn part(&self, output: Output) -> Self {
        Self::of(self.progress.to(output))
    }

    fn of(progress: ProgressLog) -> Self {
        Self { progress, findings: Findings::default(), last: Instant::now() }
    }

    /// Prints what begins now and what comes next.
    pub fn step(&mut self, doing: impl Into<String>, next: impl Into<String>) {
        self.progress.step(doing, next);
    }

    /// Records what goes on now within the step, without a line of its own.
    pub fn phase(&mut self, doing: &str) {
        self.progress.phase(doing);
    }

    /// Prints a line with the time since the start.
    pub fn say(&mut self, what: &str) {
        self.progress.say(what);
    }

    /// Prints a line as it is.
    pub fn line(&self, line: &str) {
        self.progress.line(line);
    }

    /// Prints a command that is about to run.
    pub fn echo(&self, command: &str) {
        self.progress.line(&format!("+ {command}"));
    }

    /// Called often while waiting; prints now and then that the step still goes on.
    pub fn tick(&mut self) {
        self.progress.tick();
    }

    /// Counts and prints one check; an error says what is wrong.
    pub fn note(&mut self, name: &str, result: std::result::Result<(), String>) {
        let outcome = match result {
            Ok(()) => CheckOutcome::Passed,
            Err(why) => CheckOutcome::Failed(why),
        };
        self.check(name, outcome);
    }

    /// Like [`note`](Self::note), of a guest that took `seconds`.
    pub fn note_guest(
        &mut self,
        name: &str,
        seconds: f64,
        result: std::result::Result<(), String>,
    ) {
        self.last =
            Instant::now().checked_sub(Duration::from_secs_f64(seconds)).unwrap_or(self.last);
        self.note(name, result);
    }

    /// Counts and prints a check that cannot be made here, with the reason.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.check(name, CheckOutcome::Skipped(why.to_owned()));
    }

    /// Counts and prints an error of the bed or of its surroundings.
    pub fn error(&mut self, name: &str, why: &str) {
        self.check(name, CheckOutcome::Error(why.to_owned()));
    }

    fn check(&mut self, name: &str, outcome: CheckOutcome) {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let check = Check { name: name.to_owned(), outcome, seconds };
        self.progress.line(&check.line());
        self.findings.checks.push(check);
    }

    /// Counts the tests of a guest, and prints its verdict.
    pub fn judge(&mut self, outcome: GuestOutcome) {
        self.last = Instant::now();
        self.progress.say(&format!("{}: {}", outcome.name, outcome.judgement.verdict));
        self.findings.outcomes.push(outcome);
    }

    /// Adds what a part found out.
    pub fn add(&mut self, part: Findings) {
        self.findings.add(part);
    }

    /// Returns what was found out.
    pub fn into_findings(self) -> Findings {
        self.findings
    }

    /// Returns what was found out so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Prints the table of the guests, everything that failed or was skipped, and the last line.
    ///
    /// Writes the files with the results into `dir`.
    pub fn close(self, dir: &Path) -> Result<GuestVerdict> {
        let (verdict, counts) = (self.findings.verdict(), self.findings.counts());
        self.close_as(dir, verdict, counts)
    }

    /// Like [`close`](Self::close), with another verdict and other counts than the findings'.
    pub fn close_as(
        mut self,
        dir: &Path,
        verdict: GuestVerdict,
        counts: TestCounts,
    ) -> Result<GuestVerdict> {
        self.findings.outcomes.sort_by_key(GuestOutcome::place);
        self.findings.summary().iter().for_each(|line| self.line(line));
        let files = results::write(&self.findings, verdict, counts, dir)?;
        println!("bed: every result is in {}", files.join(" and in "));
        println!("bed: the verdict is {verdict} (exit status {})", verdict.exit_status());
        println!("{}", last_line(counts));
        Ok(verdict)
    }
}

/// Returns the runner's last line.
fn last_line(TestCounts { passed, failed, skipped }: TestCounts) -> String {
    format!("bed: {passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_counts() {
        let counts = TestCounts { passed: 3, failed: 1, skipped: 2 };
        assert_eq!(last_line(counts), "bed: 3 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn what_parts_find_out_is_added() {
        let dir = std::env::temp_dir().join(format!("bed-report-{}", std::process::id()));
        let mut whole = Reporter::start();
        whole.note("a", Ok(()));
        let mut part = whole.part(Output::direct());
        part.note("b", Err("why".to_owned()));
        part.skip("c", "no tools");
        whole.add(part.into_findings());
        let counts = whole.findings().counts();
        assert_eq!(counts, TestCounts { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(whole.close(&dir).unwrap(), GuestVerdict::Failure);
        let xml = std::fs::read_to_string(dir.join("junit.xml")).unwrap();
        assert!(xml.contains("why") && xml.contains("no tools"), "{xml}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
