//! Guests of which something else than SUCCESS is expected, or SUCCESS under odd conditions.

use std::time::Duration;

use super::{PATIENCE, args};
use crate::choice::{KernelArgs, Mode};
use crate::domu::{Goal, Job};
use crate::error::Result;
use crate::guest::Verdict;
use crate::outcome::Outcome;

/// A guest and what the runner must call it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The mode.
    pub mode: Mode,
    /// What is odd about it.
    label: &'static str,
    /// The kernel command line.
    pub args: KernelArgs,
    /// MiB of a domU, or of the machine of a dom0.
    pub memory: Option<u32>,
    /// MiB of a dom0, where Xen is to keep the rest of the machine's.
    pub dom0_memory: Option<u32>,
    /// vCPUs of a domU.
    vcpus: Option<u32>,
    /// The verdict.
    verdict: Verdict,
    /// What must be said, by the runner's reasons or on the guest's console.
    words: &'static str,
    /// Tests that must have passed: one that was skipped proves nothing.
    passed: &'static [&'static str],
    /// The time limit.
    pub limit: Duration,
}

/// For guests that end by themselves, some of them in slow company.
const LIMIT: Duration = Duration::from_secs(120);

const MISBEHAVIOUR: [(&str, &str, Verdict, &str); 5] = [
    ("panic", "selftest=misbehave-panic", Verdict::Crash, "no verdict"),
    ("hang", "selftest=misbehave-hang", Verdict::Timeout, "no verdict and kept running"),
    ("triple-fault", "selftest=misbehave-triple-fault", Verdict::Crash, "no verdict"),
    ("silent-poweroff", "selftest=misbehave-silent-poweroff", Verdict::Crash, "powered off"),
    ("hold", "selftest=none exit=hold", Verdict::Timeout, "yet kept running"),
];

const WRONG_OPTIONS: [(&str, &str, Verdict, &str); 3] = [
    ("unknown-option", "selftest=none wibble=1", Verdict::Error, "wibble"),
    ("malformed-option", "selftest=none seed=many", Verdict::Error, "many"),
    ("probe-too-narrow", "selftest=none probe=40:9", Verdict::Error, "40:9"),
];

fn odd(
    mode: Mode,
    (label, text, verdict, words): (&'static str, &str, Verdict, &'static str),
) -> Result<Expectation> {
    let limit = if verdict == Verdict::Timeout { PATIENCE } else { LIMIT };
    let args = args(text)?;
    let (memory, dom0_memory, vcpus, passed) = (None, None, None, &[][..]);
    Ok(Expectation { mode, label, args, memory, dom0_memory, vcpus, verdict, words, passed, limit })
}

fn sized(
    mode: Mode,
    label: &'static str,
    memory: u32,
    vcpus: u32,
    verdict: Verdict,
    words: &'static str,
) -> Result<Expectation> {
    let expectation = odd(mode, (label, "", verdict, words))?;
    Ok(Expectation { memory: Some(memory), vcpus: Some(vcpus), ..expectation })
}

/// What the `edu` device must have been through.
const DEVICE_TESTS: [&str; 5] = [
    "edu-found",
    "edu-dma-above-mask",
    "edu-dma-round-trip",
    "edu-dma-mask-edge",
    "edu-dma-coherent-buffer",
];

/// A dom0 of 4 GiB, most of which a device of 28 address bits can't reach.
fn with_device(mode: Mode) -> Result<Expectation> {
    let expectation = odd(mode, ("device-4-GiB", "selftest=edu-*", Verdict::Success, ""))?;
    Ok(Expectation { memory: Some(4096), passed: &DEVICE_TESTS, ..expectation })
}

/// Orders that a dom0 with the default memory can't be given, since Xen keeps too little.
const HIGH_ORDERS: [&str; 6] = [
    "exchange-order-13",
    "exchange-order-14",
    "exchange-order-15",
    "exchange-order-16",
    "exchange-order-17",
    "exchange-order-18",
];

/// A dom0 with room for a run of order 18, on a machine where Xen has such an extent to give.
fn every_order() -> Result<Expectation> {
    let args = "selftest=exchange-order-*,accounts-balanced";
    let expectation = odd(Mode::PvDom0, ("every-order", args, Verdict::Success, ""))?;
    let (memory, dom0_memory) = (Some(6144), Some(1300));
    Ok(Expectation { memory, dom0_memory, passed: &HIGH_ORDERS, ..expectation })
}

/// What is tried as dom0. A dom0 ends in other ways than a domU: Xen goes down with it.
pub fn dom0s() -> Result<Vec<Expectation>> {
    let mut all = Vec::new();
    for mode in [Mode::PvDom0, Mode::PvhDom0] {
        for which in MISBEHAVIOUR {
            all.push(odd(mode, which)?);
        }
    }
    all.push(odd(Mode::PvDom0, WRONG_OPTIONS[0])?);
    all.push(with_device(Mode::PvDom0)?);
    all.push(with_device(Mode::PvhDom0)?);
    all.push(every_order()?);
    Ok(all)
}

/// What is tried as domU.
pub fn domus() -> Result<Vec<Expectation>> {
    let mut all = Vec::new();
    for mode in [Mode::PvDomu, Mode::PvhDomu] {
        for which in MISBEHAVIOUR.into_iter().chain(WRONG_OPTIONS) {
            all.push(odd(mode, which)?);
        }
        all.push(sized(mode, "16-MiB", 16, 1, Verdict::Success, "")?);
        all.push(sized(mode, "4-GiB-8-vcpus", 4096, 8, Verdict::Success, "")?);
    }
    // Page tables of its own are what a PV guest has no room for here. A PVH guest of the same
    // size works; one that is smaller than the image can't even be made.
    all.push(sized(Mode::PvDomu, "4-MiB", 4, 1, Verdict::Crash, "not enough memory")?);
    all.push(sized(Mode::PvhDomu, "4-MiB", 4, 1, Verdict::Success, "")?);
    all.push(sized(Mode::PvhDomu, "1-MiB", 1, 1, Verdict::Error, "xl create failed")?);
    Ok(all)
}

impl Expectation {
    /// Names the guest, and its directory of logs.
    pub fn name(&self) -> String {
        format!("{}-{}", self.mode, self.label)
    }

    /// The `xl create` of a domU.
    pub fn job(&self) -> Job {
        Job {
            name: self.name(),
            mode: self.mode,
            memory: self.memory,
            vcpus: self.vcpus,
            args: self.args.clone(),
            limit: self.limit,
            goal: Goal::End,
        }
    }

    /// Whether the runner called the guest by its right name, for the right reason.
    pub fn met_by(&self, outcome: &Outcome, console: &[String]) -> std::result::Result<(), String> {
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
    // Behind the name comes a remark, if anything, and what is remarked on did not simply pass.
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

    fn outcome(console: &str, end: End) -> Outcome {
        Outcome {
            xen: XenVersion::V4_17,
            mode: Mode::PvDomu,
            judgement: judge(console.lines(), &end, GuestExit::PowerOff),
            seconds: 1.0,
            dir: PathBuf::from("logs"),
        }
    }

    #[test]
    fn the_right_name_for_the_right_reason() {
        let panic = odd(Mode::PvDomu, MISBEHAVIOUR[0]).unwrap();
        assert_eq!(panic.met_by(&outcome("", End::Crash), &[]), Ok(()));
        let timed_out = panic.met_by(&outcome("", End::StillRunning), &[]).unwrap_err();
        assert!(timed_out.contains("CRASH was expected, not TIMEOUT"), "{timed_out}");
        let option = odd(Mode::PvDomu, WRONG_OPTIONS[0]).unwrap();
        let error = outcome("KTAP version 1\n1..0\nTest result: ERROR", End::PowerOff);
        assert!(option.met_by(&error, &[]).unwrap_err().contains("nothing says `wibble`"));
        assert_eq!(option.met_by(&error, &["unknown option wibble".to_owned()]), Ok(()));
    }

    #[test]
    fn a_skipped_test_has_not_passed() {
        let device = with_device(Mode::PvDom0).unwrap();
        let console = |skip: &str| {
            let line = |(index, name)| format!("ok {} {name}{skip}", index + 1);
            (0..).zip(DEVICE_TESTS).map(line).collect::<Vec<_>>()
        };
        let done = "KTAP version 1\n1..1\nok 1 edu-found\nTest result: SUCCESS";
        let outcome = outcome(done, End::PowerOff);
        assert_eq!(device.met_by(&outcome, &console("")), Ok(()));
        let skipped = device.met_by(&outcome, &console(" # SKIP no edu device")).unwrap_err();
        assert!(skipped.contains("edu-found did not pass"), "{skipped}");
        let missing = device.met_by(&outcome, &console("")[..4]).unwrap_err();
        assert!(missing.contains("edu-dma-coherent-buffer did not pass"), "{missing}");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> =
            dom0s().unwrap().iter().chain(&domus().unwrap()).map(Expectation::name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
