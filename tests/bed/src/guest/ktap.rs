//! Reads the KTAP that a guest prints, believing nothing that its own plan contradicts.

use super::GuestVerdict;
use super::lines::names_a_cut;

/// Numbers of tests, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestCounts {
    /// `ok` lines.
    pub passed: u32,
    /// `not ok` lines, and guests that failed without one.
    pub failed: u32,
    /// `ok … # SKIP` lines.
    pub skipped: u32,
}

impl TestCounts {
    /// Adds another guest's tests.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// All tests that printed a result.
    pub fn total(self) -> u32 {
        self.passed + self.failed + self.skipped
    }
}

/// How one test of a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestOutcome {
    /// `ok`
    Passed,
    /// `not ok`
    Failed,
    /// `ok … # SKIP`
    Skipped,
}

impl TestOutcome {
    /// Returns the word in files with results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One test of a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct TestResult {
    /// The name.
    pub name: String,
    /// How it ended.
    pub outcome: TestOutcome,
    /// Why it failed or was skipped.
    pub reason: String,
    /// How long it took in seconds, if the guest says so (`# time=12ms`).
    pub seconds: Option<f64>,
}

/// A guest's report as it stands in its console log.
#[derive(Clone, Debug, Default)]
pub struct Ktap {
    /// The tests, in the order of their lines.
    pub tests: Vec<TestResult>,
    /// The `not ok` lines, whole.
    pub failures: Vec<String>,
    /// The verdict that the guest printed, if any.
    pub verdict: Option<GuestVerdict>,
    /// The number of tests that the plan names.
    pub planned: Option<u32>,
    /// Everything that makes the report unfit to be believed.
    pub defects: Vec<String>,
    /// Whether a part of the log is missing.
    pub is_cut: bool,
}

/// How the line with a verdict begins.
pub(super) const VERDICT: &str = "Test result: ";

impl Ktap {
    /// Reads a whole console log. The guest may print lines that are not KTAP before its verdict.
    /// After the verdict every line is a defect.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut report = Self::default();
        let mut version = false;
        let mut plan = None;
        for line in lines {
            let line = line.trim_end();
            if names_a_cut(line) {
                report.is_cut = true;
                report.defects.push(format!("the log was too long: `{line}`"));
            } else if let Some(verdict) = report.verdict {
                if !line.is_empty() {
                    report.defects.push(format!("a line after the verdict {verdict}: `{line}`"));
                }
            } else if let Some(word) = line.strip_prefix(VERDICT) {
                match GuestVerdict::from_guest(word) {
                    Some(verdict) => report.verdict = Some(verdict),
                    None => report.defects.push(format!("no known verdict: `{line}`")),
                }
            } else if line.starts_with("KTAP version ") {
                if line != "KTAP version 1" {
                    report.defects.push(format!("not KTAP version 1: `{line}`"));
                }
                if std::mem::replace(&mut version, true) {
                    report.defects.push("a second `KTAP version` line".to_owned());
                }
            } else if let Some(last) = line.strip_prefix("1..") {
                match last.parse::<u32>() {
                    Ok(_) if plan.is_some() => {
                        report.defects.push(format!("a second plan: `{line}`"))
                    }
                    Ok(last) => plan = Some(last),
                    Err(_) => report.defects.push(format!("a malformed plan: `{line}`")),
                }
            } else if let Some(rest) = line.strip_prefix("not ok ") {
                report.result(rest, line, false);
            } else if let Some(rest) = line.strip_prefix("ok ") {
                report.result(rest, line, true);
            }
        }
        report.planned = plan;
        report.check_whole(version, plan);
        report
    }

    fn result(&mut self, rest: &str, line: &str, ok: bool) {
        let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let expected = self.tests.len() + 1;
        if number.parse() != Ok(expected) {
            self.defects.push(format!("test {expected} was due, not `{line}`"));
        }
        let (name, remark) = name_and_remark(text);
        let name = if name.is_empty() { format!("test {expected}") } else { name.to_owned() };
        let (remark, seconds) = time_of(remark);
        let skip =
            remark.strip_prefix("SKIP").filter(|rest| rest.is_empty() || rest.starts_with(' '));
        let (outcome, reason) = match (ok, skip) {
            (false, _) => (TestOutcome::Failed, remark),
            (true, Some(reason)) => (TestOutcome::Skipped, reason),
            (true, None) => (TestOutcome::Passed, remark),
        };
        if outcome == TestOutcome::Failed {
            self.failures.push(line.to_owned());
        }
        let reason = reason.trim().to_owned();
        self.tests.push(TestResult { name, outcome, reason, seconds });
    }

    /// Returns the numbers of the tests by result.
    pub fn counts(&self) -> TestCounts {
        let number =
            |outcome| self.tests.iter().filter(|test| test.outcome == outcome).count() as u32;
        TestCounts {
            passed: number(TestOutcome::Passed),
            failed: number(TestOutcome::Failed),
            skipped: number(TestOutcome::Skipped),
        }
    }

    /// What can be said only once the log has ended.
    fn check_whole(&mut self, version: bool, plan: Option<u32>) {
        let Some(verdict) = self.verdict else { return };
        if !version {
            self.defects.push("no `KTAP version 1` line".to_owned());
        }
        let counts = self.counts();
        let done = counts.total();
        match plan {
            None => self.defects.push("no plan `1..N`".to_owned()),
            Some(plan) if plan != done => {
                self.defects.push(format!("{plan} tests planned, {done} reported"));
            }
            Some(_) => {}
        }
        if matches!(verdict, GuestVerdict::Success | GuestVerdict::Skip) && counts.failed > 0 {
            self.defects
                .push(format!("the verdict {verdict} in spite of {} `not ok`", counts.failed));
        }
        if verdict == GuestVerdict::Success && counts.passed == 0 {
            self.defects.push("the verdict SUCCESS, but no test passed".to_owned());
        }
    }
}

/// Splits what follows the number of a result. The name is empty if the guest gives none.
fn name_and_remark(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (name, remark) = match text.strip_prefix("# ") {
        Some(remark) => ("", remark),
        None => text.split_once(" # ").unwrap_or((text, "")),
    };
    // TAP separates the number from the name by a dash, which KTAP permits.
    let name = name.trim();
    let dashed = name.strip_prefix('-').filter(|rest| rest.is_empty() || rest.starts_with(' '));
    (dashed.unwrap_or(name).trim(), remark)
}

/// Takes the time off the end of a remark: `why # time=12ms`, or `time=12ms` alone.
fn time_of(remark: &str) -> (&str, Option<f64>) {
    let (text, last) = remark.rsplit_once("# ").unwrap_or(("", remark));
    let ms = last.trim().strip_prefix("time=").and_then(|time| time.strip_suffix("ms"));
    match ms.and_then(|ms| ms.parse::<f64>().ok()) {
        Some(ms) => (text.trim_end(), Some(ms / 1000.0)),
        None => (remark, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defects(text: &str) -> String {
        Ktap::parse(text.lines()).defects.join("; ")
    }

    const GOOD: &str = "xen-contig 0.1.0, PV dom0\nKTAP version 1\n1..3\nok 1 orders\n# noise\n\
                        ok 2 bits # SKIP not in PVH\nok 3 zeroed\nTest result: SUCCESS\n";

    #[test]
    fn a_good_report_has_no_defect() {
        let report = Ktap::parse(GOOD.lines());
        assert_eq!(report.defects, Vec::<String>::new());
        assert_eq!(report.counts(), TestCounts { passed: 2, failed: 0, skipped: 1 });
        assert_eq!(report.verdict, Some(GuestVerdict::Success));
    }

    #[test]
    fn reasons_and_times_are_read() {
        let text =
            "ok 1 a # time=12.5ms\nok 2 b # SKIP no room # time=1ms\nnot ok 3 c # torn # 7\nok 4 d";
        let tests = Ktap::parse(text.lines()).tests;
        let of = |test: &TestResult| (test.outcome, test.reason.clone(), test.seconds);
        assert_eq!(of(&tests[0]), (TestOutcome::Passed, String::new(), Some(0.0125)));
        assert_eq!(of(&tests[1]), (TestOutcome::Skipped, "no room".to_owned(), Some(0.001)));
        assert_eq!(of(&tests[2]), (TestOutcome::Failed, "torn # 7".to_owned(), None));
        assert_eq!(of(&tests[3]), (TestOutcome::Passed, String::new(), None));
        assert_eq!(tests[1].name, "b");
    }

    #[test]
    fn a_name_is_optional_and_a_dash_may_precede_it() {
        let text = "KTAP version 1\n1..5\nok 1 - a b\nok 2\nok 3 # SKIP no room\nnot ok 4 - # torn\n\
                    ok 5 c - d\nTest result: FAILURE";
        assert_eq!(defects(text), "");
        let tests = Ktap::parse(text.lines()).tests;
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["a b", "test 2", "test 3", "test 4", "c - d"]);
        assert_eq!((tests[2].outcome, tests[2].reason.as_str()), (TestOutcome::Skipped, "no room"));
        assert_eq!((tests[3].outcome, tests[3].reason.as_str()), (TestOutcome::Failed, "torn"));
    }

    #[test]
    fn carriage_returns_do_not_matter() {
        assert_eq!(defects(&GOOD.replace('\n', "\r\n")), "");
    }

    #[test]
    fn fewer_or_more_results_than_planned() {
        assert!(defects(&GOOD.replace("ok 3 zeroed\n", "")).contains("3 tests planned, 2"));
        assert!(defects(&GOOD.replace("1..3", "1..2")).contains("2 tests planned, 3"));
        assert!(defects(&GOOD.replace("1..3\n", "")).contains("no plan"));
    }

    #[test]
    fn a_verdict_against_its_own_lines() {
        assert!(defects(&GOOD.replace("ok 3", "not ok 3")).contains("in spite of 1"));
        assert!(defects("KTAP version 1\n1..0\nTest result: SUCCESS").contains("no test passed"));
    }

    #[test]
    fn nothing_may_follow_the_verdict() {
        assert!(defects(&format!("{GOOD}ok 4 more\n")).contains("after the verdict"));
        assert!(defects(&format!("{GOOD}{GOOD}")).contains("after the verdict"));
        assert_eq!(defects(&format!("{GOOD}\n\n")), "");
    }

    #[test]
    fn numbers_out_of_order_repeated_or_missing() {
        assert!(defects(&GOOD.replace("ok 3", "ok 2")).contains("test 3 was due"));
        assert!(defects(&GOOD.replace("ok 3 zeroed", "ok zeroed")).contains("test 3 was due"));
        assert!(defects(&GOOD.replace("1..3", "1..3\n1..3")).contains("second plan"));
        assert!(defects(&GOOD.replace("1..3", "1..x")).contains("malformed plan"));
        assert!(defects(&GOOD.replace("KTAP version 1\n", "")).contains("no `KTAP"));
        assert!(defects(&GOOD.replace("SUCCESS", "SUCCESS!")).contains("no known verdict"));
    }

    #[test]
    fn a_not_ok_marked_skip_is_still_a_failure() {
        let text = "KTAP version 1\n1..1\nnot ok 1 a # SKIP hidden\nTest result: FAILURE";
        assert_eq!(Ktap::parse(text.lines()).counts().failed, 1);
    }

    #[test]
    fn indented_lines_are_noise() {
        assert_eq!(defects(&GOOD.replace("# noise", "  not ok 9 x\n  Test result: FAILURE")), "");
    }
}
