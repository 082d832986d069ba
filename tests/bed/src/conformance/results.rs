//! What came of tests, by row: from a guest's KTAP, or from what `cargo test` printed.

use std::collections::BTreeMap;

use super::answers::{Answer, Answers};
use super::rows::ids_of;

/// What came of the tests of one row in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowTally {
    /// Tests that did well.
    pub passed: u32,
    /// Tests that did not, by name.
    pub failed: Vec<String>,
    /// Tests that could not be tried, with the reason.
    pub skipped: Vec<String>,
    /// What Xen answered these tests.
    pub answers: Answers,
}

impl RowTally {
    /// Returns true if a test ran to its end.
    pub fn is_tried(&self) -> bool {
        self.passed > 0 || !self.failed.is_empty()
    }

    /// Adds the tests of another place.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed.extend_from_slice(&other.failed);
        self.skipped.extend_from_slice(&other.skipped);
        self.answers.add_all(&other.answers);
    }
}

/// Results by row.
pub type Results = BTreeMap<String, RowTally>;

/// Reads the console of a guest. The answers to a test are in the trace before its result.
pub fn of_guest(console: &str) -> Results {
    let mut results = Results::new();
    let mut answers = Answers::default();
    for line in console.lines() {
        if let Some((answer, times)) = Answer::read(line) {
            answers.add(answer, times);
        } else if line.starts_with("1..") {
            // The kernel makes calls before the first test, too.
            answers = Answers::default();
        }
        let (ok, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => continue,
        };
        let Some((_, test)) = rest.split_once(' ') else { continue };
        let (name, remark) = test.split_once(" # ").unwrap_or((test, ""));
        let answers = std::mem::take(&mut answers);
        for id in ids_of(name) {
            let tally = results.entry(id).or_default();
            match (ok, remark.strip_prefix("SKIP")) {
                (true, Some(reason)) => {
                    tally.skipped.push(reason.trim().to_owned());
                    continue;
                }
                (true, None) => tally.passed += 1,
                (false, _) => tally.failed.push(format!("{name}: {remark}")),
            }
            tally.answers.add_all(&answers);
        }
    }
    results
}

/// What the model's tests came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelResults {
    /// Results by row.
    pub results: Results,
    /// Test programs that died: what they had not tried yet is in no result.
    pub crashes: Vec<String>,
}

/// Reads the lines of `cargo test -- --show-output`, whatever stands between them. What a test
/// printed follows a line with its name.
pub fn of_cargo(output: &str) -> ModelResults {
    let mut results = Results::new();
    let mut crashes = Vec::new();
    let mut printed_by = Vec::new();
    for line in output.lines() {
        if let Some(test) =
            line.strip_prefix("---- ").and_then(|it| it.strip_suffix(" stdout ----"))
        {
            printed_by = ids_of(test);
        }
        if let Some((answer, times)) = Answer::read(line) {
            for id in &printed_by {
                results.entry(id.clone()).or_default().answers.add(answer.clone(), times);
            }
        }
        // A program with failed tests in it ends by itself, and cargo has no such words for it.
        if line.trim_start().starts_with("process didn't exit successfully") {
            crashes.push(line.trim().to_owned());
        }
        let Some(rest) = line.strip_prefix("test ") else { continue };
        let Some((name, outcome)) = rest.split_once(" ... ") else { continue };
        // `name - should panic`
        let name = name.split(' ').next().unwrap_or(name);
        for id in ids_of(name) {
            let tally = results.entry(id).or_default();
            match outcome.split([',', ' ']).next() {
                Some("ok") => tally.passed += 1,
                Some("ignored") => tally.skipped.push(name.to_owned()),
                _ => tally.failed.push(name.to_owned()),
            }
        }
    }
    ModelResults { results, crashes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_lines_are_counted_by_row() {
        let console = "KTAP version 1\n1..4\n# c03: 18\nok 1 c02-a\nok 2 c02-b # SKIP no room\n\
                       not ok 3 c03-c # it broke\nok 4 accounts-balanced\nTest result: FAILURE";
        let results = of_guest(console);
        assert_eq!(results.keys().collect::<Vec<_>>(), ["C02", "C03"]);
        assert_eq!(
            (results["C02"].passed, &results["C02"].skipped[..]),
            (1, &["no room".to_owned()][..])
        );
        assert_eq!(results["C03"].failed, ["c03-c: it broke"]);
    }

    #[test]
    fn answers_belong_to_the_test_whose_result_follows() {
        let call = "# trace v0 #1 @0.000000002 +3 - memory_op exchange in=1";
        let console = format!(
            "{call} -> -EPERM done=0\nok 1 other\n{call} -> -EINVAL done=2\n\
                               ok 2 c05-x\nok 3 c06-y"
        );
        let results = of_guest(&console);
        assert_eq!(results["C05"].answers.in_short("exchange", ""), "EINVAL(2)");
        assert_eq!(results["C06"].answers, Answers::default());
    }

    #[test]
    fn answers_of_the_model_follow_the_name_of_their_test() {
        let call = "# trace v0 #0 @0.000000000 +0 - memory_op exchange in=1";
        let output = format!(
            "test m::c05_x ... ok\n\nsuccesses:\n\n---- m::c05_x stdout ----\n\
                              {call} -> -EINVAL done=2\n\n---- other stdout ----\n{call} -> 0 done=1"
        );
        let results = of_cargo(&output).results;
        assert_eq!(results["C05"].answers.in_short("exchange", ""), "EINVAL(2)");
        assert_eq!((results["C05"].passed, results.len()), (1, 1));
    }

    #[test]
    fn cargos_lines_are_counted_by_row() {
        let output = "running 3 tests\ntest c15_c16_x ... ok\ntest t::c16_y - should panic ... ok\n\
                      test c17_z ... ignored, why\ntest c18_w ... FAILED\ntest other ... ok";
        let ModelResults { results, crashes } = of_cargo(output);
        assert!(crashes.is_empty());
        assert_eq!((results["C15"].passed, results["C16"].passed), (1, 2));
        assert_eq!(results["C17"].skipped, ["c17_z"]);
        assert_eq!(results["C18"].failed, ["c18_w"]);
    }

    #[test]
    fn a_program_that_died_is_not_passed_over() {
        let output = "test c05_x ... ok\nerror: test failed, to rerun pass `--test a`\n\n\
                      Caused by:\n  process didn't exit successfully: `a` (signal: 11, SIGSEGV)";
        assert_eq!(of_cargo(output).crashes.len(), 1);
    }
}
