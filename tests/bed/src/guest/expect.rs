//! How a guest says that it succeeded.

use std::str::FromStr;

use regex_lite::Regex;

use super::ktap::{Ktap, VERDICT};
use super::probe::ProbeClaim;
use super::verdict::{self, End, GuestVerdict, Judgement};
use crate::choice::GuestExit;
use crate::error::Error;

/// How a guest says that it succeeded.
#[derive(Clone, Debug, Default)]
pub enum Expect {
    /// By a whole KTAP report that ends with a verdict, like the image.
    #[default]
    Image,
    /// Like the image, or by the `probe:` line after which the image holds.
    Probe,
    /// By KTAP. The verdict is optional, and other lines may follow it.
    Ktap,
    /// By a line `Test result: …`, like the tests of XTF.
    Xtf,
    /// By any line that matches.
    Line(Regex),
}

impl Expect {
    /// Returns an extended regular expression for the line after which a guest is not waited for.
    pub fn pattern(&self) -> Option<&str> {
        match self {
            Self::Probe => Some("^probe: order=.* pfn=0x"),
            Self::Line(pattern) => Some(pattern.as_str()),
            Self::Image | Self::Ktap | Self::Xtf => None,
        }
    }

    /// Returns true if a guest that prints this line has done what it is booted for.
    pub fn is_met_by(&self, line: &str) -> bool {
        match self {
            Self::Probe => ProbeClaim::parse(line).is_ok(),
            Self::Line(pattern) => pattern.is_match(line),
            Self::Image | Self::Ktap | Self::Xtf => false,
        }
    }

    /// Weighs what the guest said against how it ended.
    pub fn judge(&self, console: &[String], end: &End, exit: GuestExit) -> Judgement {
        let lines: Vec<&str> = console.iter().map(String::as_str).collect();
        match self {
            Self::Image => verdict::judge(lines, end, exit),
            Self::Probe
                if *end == End::StillRunning && lines.iter().any(|line| self.is_met_by(line)) =>
            {
                let verdict = Some(GuestVerdict::Success);
                let report = Ktap { verdict, ..Ktap::default() };
                verdict::weigh(report, &lines, &End::PowerOff, GuestExit::PowerOff)
            }
            Self::Probe => verdict::judge(lines, end, exit),
            Self::Ktap => verdict::judge(whole(lines).iter().map(String::as_str), end, exit),
            Self::Xtf => {
                let said = lines.iter().rev().find_map(|line| line.trim().strip_prefix(VERDICT));
                let verdict = said.and_then(|word| GuestVerdict::from_guest(word.trim()));
                verdict::weigh(Ktap { verdict, ..Ktap::default() }, &lines, end, exit)
            }
            Self::Line(pattern) => matched(pattern, &lines, end),
        }
    }
}

/// Adds the verdict that KTAP lines amount to, if there is none, and drops what follows a verdict.
fn whole(lines: Vec<&str>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    if let Some(at) = lines.iter().position(|line| line.starts_with(VERDICT)) {
        lines.truncate(at + 1);
        return lines;
    }
    let report = Ktap::parse(lines.iter().map(String::as_str));
    let counts = report.counts();
    let word = match (counts.passed, counts.failed, counts.skipped) {
        (0, 0, 0) => return lines,
        (_, 0, _) if report.planned.is_some_and(|planned| planned > counts.total()) => {
            return lines;
        }
        (0, 0, _) => "SKIP",
        (_, 0, _) => "SUCCESS",
        _ => "FAILURE",
    };
    lines.push(format!("{VERDICT}{word}"));
    lines
}

/// A guest that printed what was waited for has succeeded, however it ended.
fn matched(pattern: &Regex, lines: &[&str], end: &End) -> Judgement {
    let found = lines.iter().any(|line| pattern.is_match(line));
    let exit = match end {
        End::Reboot => GuestExit::Reboot,
        End::Crash if found => GuestExit::Crash,
        _ => GuestExit::PowerOff,
    };
    let (verdict, end) = match (found, end) {
        (true, End::StillRunning) => (Some(GuestVerdict::Success), &End::PowerOff),
        (true, end) => (Some(GuestVerdict::Success), end),
        (false, End::PowerOff | End::Reboot) => (Some(GuestVerdict::Failure), end),
        (false, end) => (None, end),
    };
    let mut judgement = verdict::weigh(Ktap { verdict, ..Ktap::default() }, lines, end, exit);
    if !found {
        judgement.reasons.insert(0, format!("no line of its console matches `{pattern}`"));
    }
    judgement
}

impl FromStr for Expect {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match (text, text.strip_prefix("regex:")) {
            ("ktap", _) => Ok(Self::Ktap),
            ("xtf", _) => Ok(Self::Xtf),
            (_, Some(pattern)) => Regex::new(pattern).map(Self::Line).map_err(|error| {
                Error::BadPattern { given: text.to_owned(), why: error.to_string() }
            }),
            _ => Err(Error::BadExpect { given: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expect: &str, console: &str, end: End) -> GuestVerdict {
        let lines: Vec<String> = console.lines().map(str::to_owned).collect();
        let expect: Expect = expect.parse().unwrap();
        expect.judge(&lines, &end, GuestExit::PowerOff).verdict
    }

    #[test]
    fn ktap_of_others_needs_no_verdict() {
        use GuestVerdict::{Crash, Error, Failure, Skip, Success, Timeout};
        let good = "boot\nKTAP version 1\n1..2\nok 1 a\nok 2 b\nbye";
        assert_eq!(verdict("ktap", good, End::PowerOff), Success);
        assert_eq!(verdict("ktap", good, End::StillRunning), Timeout);
        assert_eq!(verdict("ktap", good, End::Crash), Crash);
        assert_eq!(verdict("ktap", &good.replace("ok 2", "not ok 2"), End::PowerOff), Failure);
        assert_eq!(verdict("ktap", &good.replace("ok 2 b\n", ""), End::PowerOff), Crash);
        assert_eq!(verdict("ktap", &good.replace("ok 2", "ok 7"), End::PowerOff), Error);
        let skip = good.replace("a\n", "a # SKIP x\n").replace("b\n", "b # SKIP x\n");
        assert_eq!(verdict("ktap", &skip, End::PowerOff), Skip);
        let said = format!("{good}\nTest result: SUCCESS\nmore");
        assert_eq!(verdict("ktap", &said, End::PowerOff), Success);
        assert_eq!(verdict("ktap", "hello", End::PowerOff), Crash);
    }

    #[test]
    fn xtf_has_its_last_line() {
        use GuestVerdict::{Crash, Failure, Skip, Success, Timeout};
        let test = |word: &str| format!("--- Xen Test Framework ---\nTest result: {word}\n");
        assert_eq!(verdict("xtf", &test("SUCCESS"), End::PowerOff), Success);
        assert_eq!(verdict("xtf", &test("SKIP"), End::PowerOff), Skip);
        assert_eq!(verdict("xtf", &test("FAILURE"), End::PowerOff), Failure);
        assert_eq!(verdict("xtf", &test("SUCCESS"), End::Crash), Crash);
        assert_eq!(verdict("xtf", "no result", End::PowerOff), Crash);
        assert_eq!(verdict("xtf", "no result", End::StillRunning), Timeout);
    }

    #[test]
    fn a_probe_that_holds_is_a_success() {
        let judge = |text: &str, end: End| {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            Expect::Probe.judge(&lines, &end, GuestExit::Hold).verdict
        };
        let probe = "probe: order=2 bits=32 seed=7 pages=4 maddr=0x3c000 pfn=0x1f";
        assert!(Expect::Probe.is_met_by(probe) && !Expect::Probe.is_met_by("probe: refused"));
        assert!(
            !Expect::Probe.is_met_by(&probe.replace("0x1f", "0x")),
            "the line has more to come"
        );
        assert_eq!(judge(probe, End::StillRunning), GuestVerdict::Success);
        assert_eq!(judge("# no memory", End::StillRunning), GuestVerdict::Timeout);
        assert_eq!(judge("# no memory", End::Crash), GuestVerdict::Crash);
        let refused = "KTAP version 1\n1..0\nTest result: ERROR";
        assert_eq!(judge(refused, End::PowerOff), GuestVerdict::Crash, "it was to hold");
    }

    #[test]
    fn a_line_that_matches_is_a_success() {
        use GuestVerdict::{Crash, Failure, Success, Timeout};
        let login = "regex:^\\w+ login:";
        assert_eq!(verdict(login, "debian login: ", End::StillRunning), Success);
        assert_eq!(verdict(login, "debian login: ", End::Crash), Success);
        assert_eq!(verdict(login, "debian login: ", End::XenPanic("x".into())), Crash);
        assert_eq!(verdict(login, "the end", End::PowerOff), Failure);
        assert_eq!(verdict(login, "panic", End::Crash), Crash);
        assert_eq!(verdict(login, "", End::StillRunning), Timeout);
        assert!("regex:(".parse::<Expect>().unwrap_err().to_string().contains("regex:("));
        assert!("tap".parse::<Expect>().unwrap_err().to_string().contains("`tap`"));
    }
}
