//! A guest, what the runner must call it, and which of its tests must have passed.

use std::time::Duration;

use crate::boot::{DEFAULT_MIB, Dom0Spec, Threads};
use crate::choice::{GuestMode, KernelArgs};
use crate::domu::{DomuJob, Goal};
use crate::guest::GuestVerdict;
use crate::outcome::GuestOutcome;

/// A guest and what the runner must call it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The mode.
    pub mode: GuestMode,
    /// What is special about it.
    pub label: String,
    /// The kernel command line.
    pub args: KernelArgs,
    /// MiB of a domU, or of the machine of a dom0.
    pub memory: Option<u32>,
    /// MiB that a domU may have (`maxmem`), where more than it has.
    pub max_memory: Option<u32>,
    /// MiB to which `xl mem-set` reduces a domU before it runs.
    pub reduced_to: Option<u32>,
    /// MiB of the machine below 4 GiB, where not as much as fits.
    pub low_memory: Option<u32>,
    /// MiB of a dom0, where Xen is to keep the rest of the machine's.
    pub dom0_memory: Option<u32>,
    /// The highest order that Xen exchanges for a dom0, where not Xen's default.
    pub max_order: Option<u32>,
    /// vCPUs, where not one.
    pub vcpus: Option<u32>,
    /// Processors of a dom0's machine, where not one for each vCPU.
    pub processors: Option<u32>,
    /// The verdict.
    pub verdict: GuestVerdict,
    /// What must be said, by the runner's reasons or on the guest's console.
    pub words: &'static str,
    /// Tests that must have passed: one that was skipped proves nothing.
    pub passed: Vec<&'static str>,
    /// The time limit.
    pub limit: Duration,
}

impl Expectation {
    /// Whether the emulator may let this guest stand still: see `Threads`.
    pub fn may_stand_still(&self) -> bool {
        self.verdict == GuestVerdict::Success && Threads::may_lose_a_wakeup(self.mode, self.vcpus)
    }

    /// A guest as configured that succeeds.
    pub fn success(
        mode: GuestMode,
        label: impl Into<String>,
        args: KernelArgs,
        limit: Duration,
    ) -> Self {
        let (verdict, words, passed) = (GuestVerdict::Success, "", Vec::new());
        let (memory, max_memory, reduced_to, dom0_memory) = (None, None, None, None);
        let (low_memory, max_order, vcpus, processors) = (None, None, None, None);
        Self {
            mode,
            label: label.into(),
            args,
            memory,
            max_memory,
            reduced_to,
            low_memory,
            dom0_memory,
            max_order,
            vcpus,
            processors,
            verdict,
            words,
            passed,
            limit,
        }
    }

    /// Names the guest, and its directory of logs.
    pub fn name(&self) -> String {
        format!("{}-{}", self.mode, self.label)
    }

    /// The `xl create` of a domU.
    pub fn job(&self) -> DomuJob {
        DomuJob {
            name: self.name(),
            mode: self.mode,
            memory: self.memory,
            max_memory: self.max_memory,
            reduced_to: self.reduced_to,
            vcpus: self.vcpus,
            args: self.args.clone(),
            limit: self.limit,
            goal: Goal::of(&self.args),
        }
    }

    /// The boot of a dom0.
    pub fn dom0(&self) -> Dom0Spec {
        Dom0Spec {
            memory: self.memory.unwrap_or(DEFAULT_MIB),
            low_memory: self.low_memory,
            dom0_memory: self.dom0_memory,
            max_order: self.max_order,
            vcpus: self.vcpus.unwrap_or(1),
            processors: self.processors,
            ..Dom0Spec::new(self.mode, self.args.clone(), self.limit)
        }
    }

    /// Whether the runner called the guest by its right name, for the right reason.
    pub fn met_by(
        &self,
        outcome: &GuestOutcome,
        console: &[String],
    ) -> std::result::Result<(), String> {
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
        let said =
            reasons.contains(self.words) || console.iter().any(|line| line.contains(self.words));
        if !said {
            return Err(format!(
                "nothing says `{}` ({reasons}); see {}",
                self.words,
                outcome.dir.display()
            ));
        }
        let passed = |name: &str| console.iter().any(|line| is_pass_of(line, name));
        if let Some(name) = self.passed.iter().find(|name| !passed(name)) {
            return Err(format!("{name} did not pass; see {}", outcome.dir.display()));
        }
        Ok(())
    }
}

/// Whether a line is the result of a test that ran and did well.
fn is_pass_of(line: &str, name: &str) -> bool {
    let mut words = line.split_whitespace();
    let number = |word: &str| word.parse::<u32>().is_ok();
    // A remark after the name means that the test did not simply pass.
    words.next() == Some("ok")
        && words.next().is_some_and(number)
        && words.next() == Some(name)
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::choice::{GuestExit, XenVersion};
    use crate::guest::{End, judge};

    fn expectation(verdict: GuestVerdict, words: &'static str) -> Expectation {
        let limit = Duration::from_secs(1);
        let good = Expectation::success(GuestMode::PvDomu, "x", KernelArgs::default(), limit);
        Expectation { verdict, words, ..good }
    }

    fn outcome(console: &str, end: End) -> GuestOutcome {
        GuestOutcome {
            xen: XenVersion::V4_17,
            mode: GuestMode::PvDomu,
            judgement: judge(console.lines(), &end, GuestExit::PowerOff),
            seconds: 1.0,
            dir: PathBuf::from("logs"),
        }
    }

    #[test]
    fn the_right_name_for_the_right_reason() {
        let panic = expectation(GuestVerdict::Crash, "no verdict");
        assert_eq!(panic.met_by(&outcome("", End::Crash), &[]), Ok(()));
        let timed_out = panic.met_by(&outcome("", End::StillRunning), &[]).unwrap_err();
        assert!(timed_out.contains("CRASH was expected, not TIMEOUT"), "{timed_out}");
        let option = expectation(GuestVerdict::Error, "wibble");
        let error = outcome("KTAP version 1\n1..0\nTest result: ERROR", End::PowerOff);
        assert!(option.met_by(&error, &[]).unwrap_err().contains("nothing says `wibble`"));
        assert_eq!(option.met_by(&error, &["unknown option wibble".to_owned()]), Ok(()));
    }

    #[test]
    fn a_skipped_test_has_not_passed() {
        let passed = vec!["found", "round-trip"];
        let device = Expectation { passed, ..expectation(GuestVerdict::Success, "") };
        let console = |skip: &str| {
            let line = |(index, name)| format!("ok {} {name}{skip}", index + 1);
            (0..).zip(&device.passed).map(line).collect::<Vec<_>>()
        };
        let done = "KTAP version 1\n1..1\nok 1 found\nTest result: SUCCESS";
        let outcome = outcome(done, End::PowerOff);
        assert_eq!(device.met_by(&outcome, &console("")), Ok(()));
        let skipped = device.met_by(&outcome, &console(" # SKIP no edu device")).unwrap_err();
        assert!(skipped.contains("found did not pass"), "{skipped}");
        let missing = device.met_by(&outcome, &console("")[..1]).unwrap_err();
        assert!(missing.contains("round-trip did not pass"), "{missing}");
    }
}
