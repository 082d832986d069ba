//! A guest, what the runner must call it, and which of its tests must have passed.

use std::time::Duration;

use crate::boot::Threads;
use crate::choice::{GuestMode, KernelArgs};
use crate::guest::{Guest, GuestVerdict};
use crate::report::GuestOutcome;

/// A guest and what the runner must call it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The guest.
    pub guest: Guest,
    /// The verdict.
    pub verdict: GuestVerdict,
    /// What must be said, by the runner's reasons or on the guest's console.
    pub words: &'static str,
    /// Tests that must have passed: one that was skipped proves nothing.
    pub passed: Vec<&'static str>,
}

impl Expectation {
    /// Returns a guest as configured that succeeds. Its name is the mode with `label`.
    pub fn success(mode: GuestMode, label: &str, args: KernelArgs, limit: Duration) -> Self {
        Self::of(Guest::new(mode, format!("{mode}-{label}"), args, limit))
    }

    /// Returns a guest that succeeds.
    pub fn of(guest: Guest) -> Self {
        Self { guest, verdict: GuestVerdict::Success, words: "", passed: Vec::new() }
    }

    /// Returns the same expectation of a guest that `change` changes.
    pub fn with(mut self, change: impl FnOnce(&mut Guest)) -> Self {
        change(&mut self.guest);
        self
    }

    /// Returns true if the emulator may let this guest stand still: see `Threads`.
    pub fn may_stand_still(&self) -> bool {
        self.verdict == GuestVerdict::Success
            && Threads::may_lose_a_wakeup(self.guest.mode, self.guest.vcpus)
    }

    /// Whether the runner called the guest by its right name, for the right reason.
    pub fn met_by(&self, outcome: &GuestOutcome) -> std::result::Result<(), String> {
        let judgement = &outcome.judgement;
        let reasons = judgement.reasons.join("; ");
        if judgement.verdict != self.verdict {
            return Err(format!(
                "{} was expected, not {} ({reasons}); see {}",
                self.verdict,
                judgement.verdict,
                outcome.dir.display()
            ));
        }
        let mut console = outcome.console.iter();
        let said = reasons.contains(self.words) || console.any(|line| line.contains(self.words));
        if !said {
            return Err(format!(
                "nothing says `{}` ({reasons}); see {}",
                self.words,
                outcome.dir.display()
            ));
        }
        if let Some(name) = self.passed.iter().find(|name| !outcome.has_passed(name)) {
            return Err(format!("{name} did not pass; see {}", outcome.dir.display()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::End;
    use crate::report::tests::outcome;

    fn expectation(verdict: GuestVerdict, words: &'static str) -> Expectation {
        let limit = Duration::from_secs(1);
        let good = Expectation::success(GuestMode::PvDomu, "x", KernelArgs::default(), limit);
        Expectation { verdict, words, ..good }
    }

    #[test]
    fn the_right_name_for_the_right_reason() {
        let panic = expectation(GuestVerdict::Crash, "no verdict");
        assert_eq!(panic.met_by(&outcome("", End::Crash)), Ok(()));
        let timed_out = panic.met_by(&outcome("", End::StillRunning)).unwrap_err();
        assert!(timed_out.contains("CRASH was expected, not TIMEOUT"), "{timed_out}");
        let option = expectation(GuestVerdict::Error, "wibble");
        let error = "KTAP version 1\n1..0\nTest result: ERROR";
        let silent = option.met_by(&outcome(error, End::PowerOff)).unwrap_err();
        assert!(silent.contains("nothing says `wibble`"), "{silent}");
        let named = format!("unknown option wibble\n{error}");
        assert_eq!(option.met_by(&outcome(&named, End::PowerOff)), Ok(()));
    }

    #[test]
    fn a_skipped_test_has_not_passed() {
        let passed = vec!["found", "round-trip"];
        let device = Expectation { passed, ..expectation(GuestVerdict::Success, "") };
        let seen = |results: &str| {
            let text = format!("KTAP version 1\n1..2\n{results}\nTest result: SUCCESS");
            device.met_by(&outcome(&text, End::PowerOff))
        };
        assert_eq!(seen("ok 1 found\nok 2 round-trip"), Ok(()));
        let skipped = seen("ok 1 found # SKIP no edu device\nok 2 round-trip").unwrap_err();
        assert!(skipped.contains("found did not pass"), "{skipped}");
        let missing = seen("ok 1 found\nok 2 other").unwrap_err();
        assert!(missing.contains("round-trip did not pass"), "{missing}");
    }
}
