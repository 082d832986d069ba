//! The results for other programs: `result.json` and `junit.xml`. `docs/TESTING.md` describes them.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use super::findings::{Check, CheckOutcome, Findings};
use super::outcome::GuestOutcome;
use crate::error::{Error, Result};
use crate::guest::{GuestVerdict, TestCounts, TestOutcome, TestResult};
use crate::setup::make_dir;

/// The version of the format of `result.json`. A field that goes or changes its meaning raises it.
const FORMAT: u32 = 1;

/// The files with the results of a whole run.
const FILES: [&str; 2] = ["result.json", "junit.xml"];

/// Removes the results of the run before, so that a run that ends early leaves none.
pub fn forget(dir: &Path) -> Result<()> {
    for path in FILES.map(|file| dir.join(file)) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("removing", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes both files for a whole run and returns their paths.
pub fn write(
    findings: &Findings,
    verdict: GuestVerdict,
    counts: TestCounts,
    dir: &Path,
) -> Result<[String; 2]> {
    make_dir(dir)?;
    let files = FILES.map(|file| dir.join(file));
    let result = json!({
        "format": FORMAT,
        "verdict": verdict.to_string(),
        "exit_status": verdict.exit_status(),
        "passed": counts.passed,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "guests": findings.outcomes.iter().map(guest).collect::<Vec<_>>(),
        "checks": findings.checks.iter().map(check).collect::<Vec<_>>(),
    });
    write_text(&files[0], &format!("{result:#}\n"))?;
    let xml = junit(findings).to_string().map_err(|error| Error::Junit(error.to_string()))?;
    write_text(&files[1], &xml)?;
    Ok(files.map(|file| file.display().to_string()))
}

/// Writes `result.json` for one guest.
pub fn write_guest(outcome: &GuestOutcome, dir: &Path) -> Result<()> {
    write_text(&dir.join("result.json"), &format!("{:#}\n", guest(outcome)))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    crate::setup::write(path, text.as_bytes())
}

fn guest(outcome: &GuestOutcome) -> Value {
    let judgement = &outcome.judgement;
    json!({
        "xen": outcome.xen.label(),
        "guest": outcome.name,
        "verdict": judgement.verdict.to_string(),
        "exit_status": judgement.verdict.exit_status(),
        "passed": judgement.counts.passed,
        "failed": judgement.counts.failed,
        "skipped": judgement.counts.skipped,
        "reasons": judgement.reasons,
        "seconds": rounded(outcome.seconds),
        "logs": outcome.dir.display().to_string(),
        "tests": judgement.tests.iter().map(test).collect::<Vec<_>>(),
    })
}

fn test(test: &TestResult) -> Value {
    json!({
        "name": test.name,
        "result": test.outcome.as_str(),
        "reason": test.reason,
        "seconds": test.seconds,
    })
}

fn check(check: &Check) -> Value {
    let (result, reason) = match &check.outcome {
        CheckOutcome::Passed => (TestOutcome::Passed, ""),
        CheckOutcome::Failed(why) | CheckOutcome::Error(why) => (TestOutcome::Failed, why.as_str()),
        CheckOutcome::Skipped(why) => (TestOutcome::Skipped, why.as_str()),
    };
    json!({
        "name": check.name,
        "result": result.as_str(),
        "reason": reason,
        "seconds": rounded(check.seconds),
    })
}

/// Returns tenths of seconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

fn junit(findings: &Findings) -> Report {
    let mut report = Report::new("xen-contig");
    for outcome in &findings.outcomes {
        let mut suite = TestSuite::new(format!("{} on Xen {}", outcome.name, outcome.xen));
        suite.set_time(Duration::from_secs_f64(outcome.seconds));
        suite.add_test_cases(outcome.judgement.tests.iter().map(case_of_test));
        // A guest can end badly although no test of its own says so.
        let verdict = outcome.judgement.verdict;
        let status = match verdict {
            GuestVerdict::Success => TestCaseStatus::success(),
            GuestVerdict::Skip => TestCaseStatus::skipped(),
            GuestVerdict::Failure => failed(NonSuccessKind::Failure, &reasons(outcome)),
            _ => failed(NonSuccessKind::Error, &reasons(outcome)),
        };
        let mut case = TestCase::new("verdict", status);
        if !outcome.console.is_empty() {
            case.set_system_out(outcome.console.join("\n"));
        }
        suite.add_test_case(case);
        report.add_test_suite(suite);
    }
    if !findings.checks.is_empty() {
        let mut suite = TestSuite::new("checks");
        suite.add_test_cases(findings.checks.iter().map(case_of_check));
        report.add_test_suite(suite);
    }
    report
}

fn reasons(outcome: &GuestOutcome) -> String {
    let judgement = &outcome.judgement;
    judgement.reasons.iter().chain(&judgement.failures).cloned().collect::<Vec<_>>().join("\n")
}

fn case_of_test(test: &TestResult) -> TestCase {
    let status = match test.outcome {
        TestOutcome::Passed => TestCaseStatus::success(),
        TestOutcome::Failed => failed(NonSuccessKind::Failure, &test.reason),
        TestOutcome::Skipped => skipped(&test.reason),
    };
    let mut case = TestCase::new(test.name.as_str(), status);
    if let Some(seconds) = test.seconds {
        case.set_time(Duration::from_secs_f64(seconds.max(0.0)));
    }
    case
}

fn case_of_check(check: &Check) -> TestCase {
    let status = match &check.outcome {
        CheckOutcome::Passed => TestCaseStatus::success(),
        CheckOutcome::Failed(why) => failed(NonSuccessKind::Failure, why),
        CheckOutcome::Error(why) => failed(NonSuccessKind::Error, why),
        CheckOutcome::Skipped(why) => skipped(why),
    };
    let mut case = TestCase::new(check.name.as_str(), status);
    case.set_time(Duration::from_secs_f64(check.seconds));
    case
}

fn failed(kind: NonSuccessKind, why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(why);
    status
}

fn skipped(why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(why);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::End;
    use crate::report::outcome::tests::{BAD, outcome};

    #[test]
    fn every_test_and_check_is_in_both_files() {
        let console = format!("{}\nok 2 b # SKIP <none>", BAD.replace("1..1", "1..2"));
        let console = console.replace("\nTest result: FAILURE", "") + "\nTest result: FAILURE";
        let failed =
            Check { name: "c".into(), outcome: CheckOutcome::Failed("d & e".into()), seconds: 1.0 };
        let findings =
            Findings { checks: vec![failed], outcomes: vec![outcome(&console, End::PowerOff)] };
        let dir = std::env::temp_dir().join(format!("bed-results-{}", std::process::id()));
        let counts = findings.counts();
        let [json, xml] = write(&findings, findings.verdict(), counts, &dir).unwrap();
        let json: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!((&json["verdict"], &json["failed"]), (&json!("FAILURE"), &json!(2)));
        let tests = &json["guests"][0]["tests"];
        assert_eq!(
            tests[0],
            json!({"name": "a", "result": "failed", "reason": "why", "seconds": null})
        );
        assert_eq!(tests[1]["reason"], "<none>");
        assert_eq!(json["checks"][0]["reason"], "d & e");
        let xml = std::fs::read_to_string(xml).unwrap();
        for words in
            ["name=\"a\"", "message=\"why\"", "&lt;none&gt;", "d &amp; e", "name=\"verdict\""]
        {
            assert!(xml.contains(words), "{words} is not in {xml}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
