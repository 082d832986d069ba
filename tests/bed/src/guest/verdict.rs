//! The six verdicts, and how the runner reaches one from a guest's output and its end.

use std::fmt;

use super::{Ktap, TestCounts, TestResult};
use crate::choice::GuestExit;

/// The verdict on a guest, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestVerdict {
    /// Everything that was tested works.
    Success,
    /// Nothing could be tested here.
    Skip,
    /// The test or its surroundings are broken.
    Error,
    /// What is tested is broken.
    Failure,
    /// The guest ended without a verdict, or by a crash that the test did not ask for.
    Crash,
    /// The guest did not end in time.
    Timeout,
}

impl GuestVerdict {
    /// Reads the word after `Test result: `. CRASH and TIMEOUT are not a guest's to say.
    pub fn from_guest(word: &str) -> Option<Self> {
        match word {
            "SUCCESS" => Some(Self::Success),
            "SKIP" => Some(Self::Skip),
            "ERROR" => Some(Self::Error),
            "FAILURE" => Some(Self::Failure),
            _ => None,
        }
    }

    /// The runner's exit status.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Skip => 3,
            Self::Error => 4,
            Self::Failure => 5,
            Self::Crash => 6,
            Self::Timeout => 7,
        }
    }
}

impl fmt::Display for GuestVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Success => "SUCCESS",
            Self::Skip => "SKIP",
            Self::Error => "ERROR",
            Self::Failure => "FAILURE",
            Self::Crash => "CRASH",
            Self::Timeout => "TIMEOUT",
        })
    }
}

/// How a guest ended, as Xen, `xl` or QEMU report it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It asked to be powered off.
    PowerOff,
    /// It asked for a reboot, or a fault made Xen act as if it had.
    Reboot,
    /// Xen ended it, or it asked to be ended as crashed.
    Crash,
    /// Some other shutdown code.
    OtherReason(String),
    /// Xen itself panicked under it.
    XenPanic(String),
    /// The machine went away without anybody saying why.
    Vanished,
    /// It was still running when its time was up.
    StillRunning,
    /// It never ran.
    NotStarted(String),
    /// It ran, but what watched it broke.
    Lost(String),
}

impl End {
    /// Reads the reason code that `xl` logs when a domain shuts down.
    pub fn from_shutdown_code(code: u32) -> Self {
        match code {
            0 => Self::PowerOff,
            1 => Self::Reboot,
            3 => Self::Crash,
            other => Self::OtherReason(format!("shutdown code {other}")),
        }
    }

    /// The end in words: "the guest …".
    pub fn describe(&self) -> String {
        match self {
            Self::PowerOff => "powered off".to_owned(),
            Self::Reboot => "rebooted, or triple-faulted".to_owned(),
            Self::Crash => "crashed".to_owned(),
            Self::OtherReason(words) => format!("ended otherwise: {words}"),
            Self::XenPanic(line) => format!("went down with Xen: {line}"),
            Self::Vanished => "went away with the whole machine".to_owned(),
            Self::StillRunning => "kept running".to_owned(),
            Self::NotStarted(why) => format!("never started: {why}"),
            Self::Lost(why) => format!("was lost sight of: {why}"),
        }
    }

    fn is(&self, exit: GuestExit) -> bool {
        match exit {
            GuestExit::PowerOff => *self == Self::PowerOff,
            GuestExit::Reboot => *self == Self::Reboot,
            GuestExit::Crash => *self == Self::Crash,
            GuestExit::Hold => false,
        }
    }
}

/// The verdict on one guest, with what led to it.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The verdict.
    pub verdict: GuestVerdict,
    /// Why it is not SUCCESS, if it is not.
    pub reasons: Vec<String>,
    /// The guest's tests. A guest that failed without a `not ok` counts as one failed test.
    pub counts: TestCounts,
    /// The `not ok` lines.
    pub failures: Vec<String>,
    /// The guest's tests.
    pub tests: Vec<TestResult>,
}

/// Weighs what the guest said against how it ended. The verdict only ever gets worse.
pub fn judge<'a>(
    console: impl IntoIterator<Item = &'a str>,
    end: &End,
    expected: GuestExit,
) -> Judgement {
    let lines: Vec<&str> = console.into_iter().collect();
    weigh(Ktap::parse(lines.iter().copied()), &lines, end, expected)
}

/// How the image begins the line of a self-test that it lists (`selftest=list`).
pub const LISTED_TEST: &str = "# selftest: ";

/// Weighs a report against how the guest ended.
pub fn weigh(report: Ktap, lines: &[&str], end: &End, expected: GuestExit) -> Judgement {
    let mut reasons = Vec::new();
    let said = report.verdict.map_or_else(
        || "printed no verdict".to_owned(),
        |verdict| format!("printed the verdict {verdict}"),
    );
    let mut verdict = report.verdict.unwrap_or(GuestVerdict::Success);
    if !report.defects.is_empty() {
        verdict = verdict.max(GuestVerdict::Error);
        reasons.extend(report.defects.iter().cloned());
    }
    if matches!(verdict, GuestVerdict::Skip | GuestVerdict::Error | GuestVerdict::Failure)
        && report.defects.is_empty()
    {
        reasons.push(format!("the guest {said}"));
        if report.tests.is_empty() {
            // Its last remarks are the likeliest to tell why.
            let ktap = ["Test result: ", "1..", "KTAP version ", "ok ", "# Totals:", LISTED_TEST];
            let remarks = lines.iter().map(|line| line.trim()).filter(|line| {
                !line.is_empty() && !ktap.iter().any(|start| line.starts_with(start))
            });
            let remarks: Vec<&str> = remarks.collect();
            let last = &remarks[remarks.len().saturating_sub(2)..];
            reasons.extend(last.iter().map(|line| format!("it remarked: `{line}`")));
        }
    }
    let ended = end.describe();
    match end {
        End::NotStarted(_) | End::Lost(_) => {
            verdict = verdict.max(GuestVerdict::Error);
            reasons.push(format!("the guest {ended}"));
        }
        End::StillRunning => {
            verdict = GuestVerdict::Timeout;
            reasons.push(match report.verdict {
                Some(_) => format!("the guest {said}, yet {ended} until its time was up"),
                None => format!("the guest {said} and {ended} until its time was up"),
            });
        }
        _ if report.verdict.is_none() => {
            // What is missing from a log that was cut may be the verdict.
            let is_lost = report.is_cut && end.is(expected);
            verdict = if is_lost { GuestVerdict::Error } else { GuestVerdict::Crash };
            reasons.push(format!("the guest {said} and {ended}"));
        }
        _ if !end.is(expected) => {
            verdict = GuestVerdict::Crash;
            reasons.push(format!("the guest {said}, but then {ended}"));
        }
        _ => {}
    }
    if report.verdict.is_none() {
        reasons.extend(last_words(lines).map(|line| format!("its last words: `{line}`")));
    }
    let mut counts = report.counts();
    // A guest without tests of its own counts as one.
    match verdict {
        GuestVerdict::Success if counts.total() == 0 => counts.passed = 1,
        GuestVerdict::Success | GuestVerdict::Skip => {}
        _ if counts.failed == 0 => counts.failed = 1,
        _ => {}
    }
    Judgement { verdict, reasons, counts, failures: report.failures, tests: report.tests }
}

/// Returns why a guest without a verdict panicked, or else its last line.
fn last_words<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let mut spoken = lines.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty());
    let last = spoken.next()?;
    Some(spoken.find(|line| line.starts_with("panic: ")).unwrap_or(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "KTAP version 1\n1..2\nok 1 a\nok 2 b\nTest result: SUCCESS\n";
    const BAD: &str = "KTAP version 1\n1..2\nok 1 a\nnot ok 2 b # torn\nTest result: FAILURE\n";

    fn judged(console: &str, end: End) -> Judgement {
        judge(console.lines(), &end, GuestExit::PowerOff)
    }

    #[test]
    fn success_needs_the_words_and_the_end() {
        assert_eq!(judged(GOOD, End::PowerOff).verdict, GuestVerdict::Success);
        assert_eq!(judged(GOOD, End::Crash).verdict, GuestVerdict::Crash);
        assert_eq!(judged(GOOD, End::Reboot).verdict, GuestVerdict::Crash);
        assert_eq!(judged(GOOD, End::Vanished).verdict, GuestVerdict::Crash);
        assert_eq!(judged(GOOD, End::XenPanic("x".into())).verdict, GuestVerdict::Crash);
        assert_eq!(judged(GOOD, End::OtherReason("watchdog".into())).verdict, GuestVerdict::Crash);
        assert_eq!(judged(GOOD, End::Lost("x".into())).verdict, GuestVerdict::Error);
    }

    #[test]
    fn an_end_that_was_asked_for_is_no_crash() {
        let crash = judge(GOOD.lines(), &End::Crash, GuestExit::Crash);
        assert_eq!(crash.verdict, GuestVerdict::Success);
        let reboot = judge(GOOD.lines(), &End::Reboot, GuestExit::Reboot);
        assert_eq!(reboot.verdict, GuestVerdict::Success);
        let other = judge(GOOD.lines(), &End::PowerOff, GuestExit::Crash);
        assert_eq!(other.verdict, GuestVerdict::Crash);
    }

    #[test]
    fn silence_is_a_crash_however_it_ends() {
        for end in
            [End::PowerOff, End::Reboot, End::Crash, End::Vanished, End::OtherReason("9".into())]
        {
            let judgement = judged("KTAP version 1\n1..2\nok 1 a\n", end.clone());
            assert_eq!(judgement.verdict, GuestVerdict::Crash, "{end:?}");
            assert_eq!(judgement.counts.failed, 1);
        }
    }

    #[test]
    fn a_guest_whose_log_was_cut_is_an_error() {
        let mut cut = crate::guest::LogLines::default();
        cut.push_cut(5);
        let cut = cut.into_lines().remove(0);
        let whole = judged(&GOOD.replace("ok 2", &format!("{cut}\nok 2")), End::PowerOff);
        assert_eq!(whole.verdict, GuestVerdict::Error);
        assert!(whole.reasons[0].contains("5 bytes cut"), "{:?}", whole.reasons);
        let silent = judged(&format!("KTAP version 1\n{cut}\n# last words"), End::PowerOff);
        assert_eq!(silent.verdict, GuestVerdict::Error);
        let failed = judged(&BAD.replace("ok 1 a", &cut), End::PowerOff);
        assert_eq!(failed.verdict, GuestVerdict::Failure, "a cut excuses no failure");
        let crashed = judged(&format!("KTAP version 1\n{cut}"), End::Crash);
        assert_eq!(crashed.verdict, GuestVerdict::Crash, "Xen said so");
    }

    #[test]
    fn a_guest_without_a_verdict_leaves_its_last_words() {
        let panicked = judged("ok 1 a\npanic: no memory\n# trace #1 memory_op\n", End::Crash);
        assert!(panicked.reasons.iter().any(|line| line.contains("panic: no memory")));
        let silent = judged("booting\n\n", End::PowerOff);
        assert!(silent.reasons.iter().any(|line| line.contains("`booting`")));
    }

    #[test]
    fn running_on_is_a_timeout_verdict_or_not() {
        let silent = judged("", End::StillRunning);
        assert_eq!(silent.verdict, GuestVerdict::Timeout);
        assert!(silent.reasons[0].contains("no verdict"), "{:?}", silent.reasons);
        let held = judged(GOOD, End::StillRunning);
        assert_eq!(held.verdict, GuestVerdict::Timeout);
        assert!(held.reasons[0].contains("SUCCESS, yet kept running"), "{:?}", held.reasons);
    }

    #[test]
    fn a_failure_is_not_softened() {
        assert_eq!(judged(BAD, End::PowerOff).verdict, GuestVerdict::Failure);
        let torn = judged(&BAD.replace("1..2", "1..3"), End::PowerOff);
        assert_eq!(torn.verdict, GuestVerdict::Failure);
        let lied = judged(&BAD.replace("FAILURE", "SUCCESS"), End::PowerOff);
        assert_eq!(lied.verdict, GuestVerdict::Error);
    }

    #[test]
    fn error_and_skip_are_told_apart() {
        let error = judged("# bad seed\nKTAP version 1\n1..0\nTest result: ERROR", End::PowerOff);
        assert_eq!((error.verdict, error.counts.failed), (GuestVerdict::Error, 1));
        assert!(
            error.reasons.iter().any(|line| line.contains("# bad seed")),
            "{:?}",
            error.reasons
        );
        let skip = judged("# none ran\nKTAP version 1\n1..0\nTest result: SKIP", End::PowerOff);
        assert_eq!((skip.verdict, skip.counts.failed), (GuestVerdict::Skip, 0));
        assert!(skip.reasons.iter().any(|line| line.contains("# none ran")), "{:?}", skip.reasons);
    }

    #[test]
    fn a_domain_that_could_not_be_made_is_an_error() {
        let judgement = judged("", End::NotStarted("xl: not enough memory".into()));
        assert_eq!(judgement.verdict, GuestVerdict::Error);
        assert!(judgement.reasons[0].contains("not enough memory"));
    }

    #[test]
    fn the_exit_statuses_are_those_of_the_design() {
        use GuestVerdict::{Crash, Error, Failure, Skip, Success, Timeout};
        let statuses =
            [Success, Skip, Error, Failure, Crash, Timeout].map(GuestVerdict::exit_status);
        assert_eq!(statuses, [0, 3, 4, 5, 6, 7]);
    }
}
