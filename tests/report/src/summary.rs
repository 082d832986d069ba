//! The top of the page: the verdict, and what it is the verdict of.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::results::{BED, Boot, Outcome, RunResult, place};
use crate::source::{modified, utc};

/// What the page says first.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The verdict of the last run.
    pub verdict: String,
    /// What came of the run: `passed`, `skipped` or `failed`.
    pub outcome: Outcome,
    /// Tests and checks that passed.
    pub passed: u32,
    /// Tests and checks that failed.
    pub failed: u32,
    /// Tests and checks that were skipped.
    pub skipped: u32,
    /// The Xens of the run.
    pub xens: Vec<String>,
    /// The modes of the run.
    pub modes: Vec<String>,
    /// How many guests were judged by their own tests.
    pub guests: usize,
    /// How many checks the bed made.
    pub checks: usize,
}

/// The sources from which the page was made.
#[derive(Clone, Debug, Serialize)]
pub struct Commit {
    /// The commit, with `-dirty` if files were changed.
    pub name: String,
    /// The first line of its message.
    pub subject: String,
    /// When it was made.
    pub date: String,
    /// Whether the last run is older than the commit.
    pub newer_than_run: bool,
}

/// Something that did not succeed.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The guest and its Xen, or the bed.
    pub place: String,
    /// The test or the check; the verdict of a guest that ended badly.
    pub what: String,
    /// Why.
    pub reason: String,
    /// The directory of the logs.
    pub logs: Option<String>,
}

impl Summary {
    /// Sums up a run.
    pub fn of(run: &RunResult) -> Self {
        let mut xens: Vec<String> = run.guests.iter().map(|guest| guest.xen.clone()).collect();
        let mut modes: Vec<String> =
            run.guests.iter().map(|guest| guest.mode().to_owned()).collect();
        xens.sort();
        xens.dedup();
        modes.sort_by(|a, b| place(a).cmp(&place(b)));
        modes.dedup();
        let outcome = match run.verdict.as_str() {
            "SUCCESS" => Outcome::Passed,
            "SKIP" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        Self {
            verdict: run.verdict.clone(),
            outcome,
            passed: run.passed,
            failed: run.failed,
            skipped: run.skipped,
            xens,
            modes,
            guests: run.guests.len(),
            checks: run.checks.len(),
        }
    }
}

impl Commit {
    /// Returns the last commit, by git. Returns `None` if the directory is not a repository.
    pub fn of(root: &Path) -> Option<Self> {
        let git = |words: &[&str]| {
            let output = Command::new("git").arg("-C").arg(root).args(words).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
        };
        let seconds: u64 = git(&["log", "-1", "--format=%ct"])?.parse().ok()?;
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let run = modified(&root.join(BED).join("result.json"));
        Some(Self {
            name: git(&["describe", "--always", "--dirty", "--abbrev=10"])?,
            subject: git(&["log", "-1", "--format=%s"]).unwrap_or_default(),
            date: utc(date),
            newer_than_run: run < date,
        })
    }
}

/// Returns everything that failed, in the order in which it ran.
pub fn problems(run: Option<&RunResult>, boots: &[Boot]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Boot { guest, earlier } in boots {
        let mut place = format!("{} on Xen {}", guest.guest, guest.xen);
        if let Some(written) = earlier {
            place = format!("{place} (earlier run, {written})");
        }
        let problem = |what: &str, reason: String| Problem {
            place: place.clone(),
            what: what.to_owned(),
            reason,
            logs: Some(guest.logs.clone()),
        };
        let failed = guest.tests.iter().filter(|test| test.result == Outcome::Failed);
        problems.extend(failed.map(|test| problem(&test.name, test.reason.clone())));
        // A test that failed says more than the verdict that follows from it.
        let is_said = guest.failed > 0 && guest.verdict == "FAILURE";
        if !is_said && !matches!(guest.verdict.as_str(), "SUCCESS" | "SKIP") {
            problems.push(problem(&guest.verdict, guest.reasons.join("; ")));
        }
    }
    let checks = run.into_iter().flat_map(|run| &run.checks);
    let failed = checks.filter(|check| check.result == Outcome::Failed).map(|check| Problem {
        place: "check of the test bed".to_owned(),
        what: check.name.clone(),
        reason: check.reason.clone(),
        logs: logs_in(&check.reason),
    });
    problems.extend(failed);
    problems
}

/// Returns the directory of logs that a reason names: `…; see target/bed/4.17/pv-dom0-hang`.
fn logs_in(reason: &str) -> Option<String> {
    let words = reason.split_whitespace().map(|word| word.trim_end_matches([',', ';', '.']));
    let mut dirs = words.filter(|word| word.starts_with(BED) && !word.contains(".."));
    dirs.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::guest;

    #[test]
    fn a_reason_names_the_logs() {
        let dir = "target/bed/4.17/pv-dom0-hang";
        assert_eq!(
            logs_in("not FAILURE (why); see target/bed/4.17/pv-dom0-hang"),
            Some(dir.to_owned())
        );
        assert_eq!(logs_in("see target/bed/4.17/pv-dom0-hang, or not"), Some(dir.to_owned()));
        assert_eq!(logs_in("see target/bed/../../etc"), None);
        assert_eq!(logs_in("no logs"), None);
    }

    #[test]
    fn failed_tests_checks_and_guests_that_ended_badly_are_problems() {
        let mut crashed = guest("4.17", "pv-domu", &[("a", Outcome::Passed, "")]);
        crashed.verdict = "CRASH".to_owned();
        crashed.reasons = vec!["no verdict".to_owned()];
        let failed = guest("4.20", "pv-dom0", &[("b", Outcome::Failed, "why")]);
        let check = guest("", "", &[("c", Outcome::Failed, "d"), ("e", Outcome::Skipped, "f")]);
        let run = RunResult {
            verdict: "CRASH".to_owned(),
            passed: 1,
            failed: 2,
            skipped: 1,
            guests: vec![crashed.clone(), failed.clone()],
            checks: check.tests,
        };
        let boots = [crashed, failed].map(|guest| Boot { guest, earlier: None });
        let problems = problems(Some(&run), &boots);
        let said: Vec<_> =
            problems.iter().map(|it| (it.what.as_str(), it.reason.as_str())).collect();
        assert_eq!(said, [("CRASH", "no verdict"), ("b", "why"), ("c", "d")]);
        let summary = Summary::of(&run);
        assert_eq!((summary.outcome, summary.guests, summary.checks), (Outcome::Failed, 2, 2));
        assert_eq!(
            (summary.xens.join(" "), summary.modes.join(" ")),
            ("4.17 4.20".to_owned(), "pv-domu pv-dom0".to_owned())
        );
    }
}
