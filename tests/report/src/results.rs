//! What the bed wrote about the last runs: `result.json` of a whole run, and those of guests that
//! earlier runs left. `docs/TESTING.md` describes the files.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::source::{self, Source};

/// The directory of the bed.
pub const BED: &str = "target/bed";

/// The modes, in the order in which the page shows them.
pub const MODES: [&str; 4] = ["pv-domu", "pvh-domu", "pv-dom0", "pvh-dom0"];

/// Returns the place of a mode in that order; names of no mode come last.
pub fn place(mode: &str) -> (usize, &str) {
    (MODES.iter().position(|known| *known == mode).unwrap_or(MODES.len()), mode)
}

/// The whole run.
#[derive(Clone, Debug, Deserialize)]
pub struct RunResult {
    /// The worst verdict.
    pub verdict: String,
    /// Tests and checks that passed.
    pub passed: u32,
    /// Tests and checks that failed.
    pub failed: u32,
    /// Tests and checks that were skipped.
    pub skipped: u32,
    /// The guests that their own tests judge.
    pub guests: Vec<GuestResult>,
    /// What the bed itself checked.
    pub checks: Vec<TestResult>,
}

/// One guest.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GuestResult {
    /// The Xen's name.
    pub xen: String,
    /// The guest's name, which begins with its mode.
    pub guest: String,
    /// How the guest ended.
    pub verdict: String,
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that were skipped.
    pub skipped: u32,
    /// Why the guest did not succeed.
    pub reasons: Vec<String>,
    /// How long the guest took.
    pub seconds: f64,
    /// The directory of its logs.
    pub logs: String,
    /// Its tests.
    pub tests: Vec<TestResult>,
}

/// A test of a guest, or a check of the bed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TestResult {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub result: Outcome,
    /// Why it failed or was skipped.
    pub reason: String,
    /// How long it took, if that is known.
    pub seconds: Option<f64>,
}

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It failed.
    Failed,
    /// It was skipped.
    Skipped,
    /// It passed.
    Passed,
}

impl GuestResult {
    /// Returns the mode; the whole name of a guest that is of no mode.
    pub fn mode(&self) -> &str {
        let is_of = |mode: &&&str| {
            let rest = self.guest.strip_prefix(**mode);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        MODES.iter().find(is_of).copied().unwrap_or(&self.guest)
    }
}

/// A guest and the run that it was part of.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The guest.
    pub guest: GuestResult,
    /// When its result was written, if an earlier run booted it.
    pub earlier: Option<String>,
}

/// Reads the result of the last run.
pub fn last(root: &Path) -> Source<RunResult> {
    source::json(root, &format!("{BED}/result.json"))
}

/// Returns the guests of the last run, and of each Xen and mode that it did not boot, the guest that
/// an earlier run left. Only a guest that is named like its mode counts then: the others include those
/// that the suite has crash.
pub fn boots(root: &Path, last: Option<&RunResult>) -> Vec<Boot> {
    let guests = last.map(|run| run.guests.clone()).unwrap_or_default();
    let mut boots: Vec<Boot> =
        guests.into_iter().map(|guest| Boot { guest, earlier: None }).collect();
    for xen in source::names(&root.join(BED)) {
        for mode in MODES {
            let is_known = |boot: &Boot| boot.guest.xen == xen && boot.guest.mode() == mode;
            if boots.iter().any(is_known) {
                continue;
            }
            let file = format!("{BED}/{xen}/{mode}/result.json");
            if let Source::Found { data, written } = source::json::<GuestResult>(root, &file) {
                boots.push(Boot { guest: data, earlier: Some(written) });
            }
        }
    }
    boots
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a guest with the given tests: name, result and reason.
    pub fn guest(xen: &str, name: &str, tests: &[(&str, Outcome, &str)]) -> GuestResult {
        let tests: Vec<TestResult> = tests
            .iter()
            .map(|(name, result, reason)| TestResult {
                name: (*name).to_owned(),
                result: *result,
                reason: (*reason).to_owned(),
                seconds: None,
            })
            .collect();
        let count = |outcome| tests.iter().filter(|test| test.result == outcome).count() as u32;
        GuestResult {
            xen: xen.to_owned(),
            guest: name.to_owned(),
            verdict: if count(Outcome::Failed) > 0 { "FAILURE" } else { "SUCCESS" }.to_owned(),
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
            reasons: Vec::new(),
            seconds: 1.5,
            logs: format!("{BED}/{xen}/{name}"),
            tests,
        }
    }

    #[test]
    fn a_guest_is_of_the_mode_that_its_name_begins_with() {
        let mode = |name| guest("4.17", name, &[]).mode().to_owned();
        assert_eq!(mode("pv-dom0"), "pv-dom0");
        assert_eq!(mode("pvh-domu-16-MiB"), "pvh-domu");
        assert_eq!(mode("pv-dom0x"), "pv-dom0x");
        assert_eq!(mode("unikernel"), "unikernel");
    }
}
