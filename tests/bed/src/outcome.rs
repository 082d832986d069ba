//! What came of each guest: the table, the details of what failed, and the logs on disk.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::choice::{GuestExit, GuestMode, XenVersion};
use crate::domu::JobResult;
use crate::error::Result;
use crate::guest::{End, GuestVerdict, Judgement, SerialLog, TestCounts, judge};
use crate::setup::{make_dir, write};

/// One guest's boot, judged.
#[derive(Clone, Debug)]
pub struct GuestOutcome {
    /// The Xen release.
    pub xen: XenVersion,
    /// The mode.
    pub mode: GuestMode,
    /// The verdict and why.
    pub judgement: Judgement,
    /// How long it took.
    pub seconds: f64,
    /// Where its logs are.
    pub dir: PathBuf,
}

impl GuestOutcome {
    /// Judges a dom0 boot and writes its logs.
    pub fn of_dom0(
        xen: XenVersion,
        mode: GuestMode,
        (log, end, seconds): (&SerialLog, &End, f64),
        expected: GuestExit,
        dir: &Path,
    ) -> Result<Self> {
        let judgement = judge(log.guest.iter().map(String::as_str), end, expected);
        let outcome = Self { xen, mode, judgement, seconds, dir: dir.to_owned() };
        outcome.write_logs(&log.guest, &log.xen)?;
        Ok(outcome)
    }

    /// Judges a domU and writes its logs.
    pub fn of_domu(xen: XenVersion, result: &JobResult, dir: &Path) -> Result<Self> {
        let lines = result.report.guest_lines();
        let expected = result.job.args.expected_exit();
        let judgement = judge(lines.iter().map(String::as_str), &result.end, expected);
        let mode = result.job.mode;
        let outcome = Self { xen, mode, judgement, seconds: result.seconds, dir: dir.to_owned() };
        outcome.write_logs(&lines, result.report.section("dmesg"))?;
        write(&dir.join("xl.log"), joined(&xl_words(result)).as_bytes())?;
        Ok(outcome)
    }

    /// Returns the place in the order of the closing table: by Xen, then by mode.
    pub fn place(&self) -> (usize, usize) {
        let of = |found: Option<usize>| found.unwrap_or(usize::MAX);
        let xen = of(XenVersion::ALL.iter().position(|xen| *xen == self.xen));
        (xen, of(GuestMode::ALL.iter().position(|mode| *mode == self.mode)))
    }

    fn write_logs(&self, console: &[String], xen: &[String]) -> Result<()> {
        make_dir(&self.dir)?;
        write(&self.dir.join("console.log"), joined(console).as_bytes())?;
        write(&self.dir.join("xl-dmesg.log"), joined(xen).as_bytes())?;
        let TestCounts { passed, failed, skipped } = self.judgement.counts;
        let result = json!({
            "xen": self.xen.as_str(),
            "mode": self.mode.as_str(),
            "verdict": self.judgement.verdict.to_string(),
            "exit_status": self.judgement.verdict.exit_status(),
            "passed": passed,
            "failed": failed,
            "skipped": skipped,
            "failures": self.judgement.failures,
            "reasons": self.judgement.reasons,
            "seconds": (self.seconds * 10.0).round() / 10.0,
        });
        write(&self.dir.join("result.json"), format!("{result:#}\n").as_bytes())
    }

    /// What a person needs to know of a guest that did not succeed.
    pub fn details(&self) -> Vec<String> {
        let name = format!("{} on Xen {}", self.mode, self.xen);
        let words = self.judgement.reasons.iter().chain(&self.judgement.failures);
        let mut lines: Vec<String> = words.map(|line| format!("{name}: {line}")).collect();
        if self.judgement.verdict != GuestVerdict::Success {
            lines.push(format!("{name}: its console is in {}/console.log", self.dir.display()));
        }
        lines
    }
}

fn xl_words(result: &JobResult) -> Vec<String> {
    ["command", "create", "list", "destroy", "xl"]
        .into_iter()
        .flat_map(|name| result.report.section(name).iter().cloned())
        .collect()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The closing table, a line per guest.
pub fn table(outcomes: &[GuestOutcome]) -> String {
    let mut text = format!(
        "{:<6}{:<10}{:<9}{:>5}{:>7}{:>9}{:>9}  {}\n",
        "xen", "mode", "verdict", "ok", "not ok", "skipped", "seconds", "logs"
    );
    for outcome in outcomes {
        let counts = outcome.judgement.counts;
        text.push_str(&format!(
            "{:<6}{:<10}{:<9}{:>5}{:>7}{:>9}{:>9.1}  {}\n",
            outcome.xen.as_str(),
            outcome.mode,
            outcome.judgement.verdict,
            counts.passed,
            counts.failed,
            counts.skipped,
            outcome.seconds,
            outcome.dir.display(),
        ));
    }
    text
}

/// Prints the verdict and the last line.
pub fn close(verdict: GuestVerdict, counts: TestCounts) -> GuestVerdict {
    println!("bed: the verdict is {verdict} (exit status {})", verdict.exit_status());
    println!("{}", last_line(counts));
    verdict
}

/// The runner's last line.
fn last_line(counts: TestCounts) -> String {
    let TestCounts { passed, failed, skipped } = counts;
    format!("bed: {passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn outcome(console: &str, end: End) -> GuestOutcome {
        GuestOutcome {
            xen: XenVersion::V4_17,
            mode: GuestMode::PvDomu,
            judgement: judge(console.lines(), &end, GuestExit::PowerOff),
            seconds: 12.34,
            dir: PathBuf::from("target/bed/4.17/pv-domu"),
        }
    }

    pub const GOOD: &str = "KTAP version 1\n1..1\nok 1 a\nTest result: SUCCESS";
    pub const BAD: &str = "KTAP version 1\n1..1\nnot ok 1 a # why\nTest result: FAILURE";

    #[test]
    fn a_failure_says_what_and_where() {
        let details = outcome(BAD, End::PowerOff).details().join("\n");
        assert!(details.contains("not ok 1 a # why"), "{details}");
        assert!(details.contains("target/bed/4.17/pv-domu/console.log"), "{details}");
        assert!(outcome(GOOD, End::PowerOff).details().is_empty());
    }

    #[test]
    fn the_table_has_a_line_per_guest() {
        let text = table(&[outcome(GOOD, End::PowerOff)]);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..7], ["4.17", "pv-domu", "SUCCESS", "1", "0", "0", "12.3"]);
        let counts = TestCounts { passed: 3, failed: 1, skipped: 2 };
        assert_eq!(last_line(counts), "bed: 3 passed, 1 failed, 2 skipped");
    }
}
