//! What came of one guest: its row of the closing table, the details, and its logs on disk.

use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};

use super::results;
use crate::boot::{Dom0Boot, SERIAL};
use crate::choice::GuestExit;
use crate::domu::JobResult;
use crate::error::{Error, Result};
use crate::guest::{End, Goal, Guest, GuestVerdict, Judgement, LISTED_TEST, TestOutcome};
use crate::setup::{Bed, make_dir, write};
use crate::xen::Xen;

/// The name of the copy of Xen's log.
const XEN_LOG: &str = "xl-dmesg.log";

/// One guest's boot, judged.
#[derive(Clone, Debug)]
pub struct GuestOutcome {
    /// The Xen.
    pub xen: Xen,
    /// The name of the guest.
    pub name: String,
    /// How it ended.
    pub end: End,
    /// The verdict and why.
    pub judgement: Judgement,
    /// What the guest printed.
    pub console: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Where its logs are.
    pub dir: PathBuf,
    /// The logs that say why it ended so.
    pub evidence: Vec<Evidence>,
}

/// A log that says why a guest ended as it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What is in it.
    what: &'static str,
    /// Where it is.
    path: PathBuf,
}

impl Evidence {
    /// Returns the logs to read first. `machine_dir` has those of the machine.
    fn of(end: &End, dir: &Path, machine_dir: &Path, xl_ran: bool, silent: bool) -> Vec<Self> {
        let log = |what, path| Self { what, path };
        let console = log("its console", dir.join("console.log"));
        let xen = log("what Xen printed", dir.join("xl-dmesg.log"));
        let machine = log("what the machine printed", machine_dir.join(SERIAL));
        match end {
            End::NotStarted(_) if xl_ran => vec![log("what xl printed", dir.join("xl.log"))],
            End::NotStarted(_) | End::Lost(_) | End::XenPanic(_) | End::Vanished => vec![machine],
            _ if silent => vec![xen],
            End::Crash => vec![console, xen],
            _ => vec![console],
        }
    }
}

impl GuestOutcome {
    /// Judges a dom0 boot and writes its logs.
    pub fn of_dom0(bed: &Bed, guest: &Guest, boot: Dom0Boot) -> Result<Self> {
        let dir = bed.log_dir(&guest.name)?;
        let exit = guest.args.expected_exit();
        let judgement = guest.expect.judge(&boot.log.guest, &boot.end, exit);
        let silent = boot.log.guest.is_empty();
        let outcome = Self {
            evidence: Evidence::of(&boot.end, &dir, &dir, false, silent),
            xen: bed.xen.clone(),
            name: guest.name.clone(),
            end: boot.end,
            judgement,
            console: boot.log.guest,
            seconds: boot.seconds,
            dir,
        };
        outcome.write_logs(&boot.log.whole)?;
        Ok(outcome)
    }

    /// Judges a domU and writes its logs.
    pub fn of_domu(bed: &Bed, result: &JobResult) -> Result<Self> {
        let dir = bed.log_dir(&result.guest.name)?;
        let console = result.report.guest_lines();
        let (end, exit) = match (result.guest.goal, &result.end) {
            // It was destroyed once it had printed its verdict.
            (Goal::Destroy, End::StillRunning) => (&End::PowerOff, GuestExit::PowerOff),
            (_, end) => (end, result.guest.args.expected_exit()),
        };
        let judgement = result.guest.expect.judge(&console, end, exit);
        let xl_ran = !result.report.section("create").is_empty();
        let (end, machine_dir) = (&result.end, &result.machine_dir);
        let outcome = Self {
            evidence: Evidence::of(end, &dir, machine_dir, xl_ran, console.is_empty()),
            xen: bed.xen.clone(),
            name: result.guest.name.clone(),
            end: result.end.clone(),
            judgement,
            console,
            seconds: result.seconds,
            dir,
        };
        outcome.write_logs(result.report.section("dmesg"))?;
        write(&outcome.dir.join("xl.log"), joined(&xl_words(result)).as_bytes())?;
        Ok(outcome)
    }

    /// Returns the place in the order of the closing table: by Xen, in the order of the boots.
    pub fn place(&self) -> usize {
        self.xen.place()
    }

    /// Returns true if the test ran and passed.
    pub fn has_passed(&self, test: &str) -> bool {
        let mut tests = self.judgement.tests.iter();
        tests.any(|result| result.name == test && result.outcome == TestOutcome::Passed)
    }

    /// Reads the copy of Xen's log.
    pub fn xen_log(&self) -> Result<Vec<String>> {
        let path = self.dir.join(XEN_LOG);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file("reading", &path, e))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn write_logs(&self, xen: &[String]) -> Result<()> {
        make_dir(&self.dir)?;
        write(&self.dir.join("console.log"), joined(&self.console).as_bytes())?;
        write(&self.dir.join(XEN_LOG), joined(xen).as_bytes())?;
        results::write_guest(self, &self.dir)
    }

    /// Returns what a person needs to know of a guest: why it did not succeed, and what was skipped.
    pub fn details(&self) -> Vec<String> {
        let name = format!("{} on Xen {}", self.name, self.xen);
        let words = self.judgement.reasons.iter().chain(&self.judgement.failures);
        let mut lines: Vec<String> = words.map(|line| format!("{name}: {line}")).collect();
        if self.judgement.verdict != GuestVerdict::Success {
            let logs = self.evidence.iter();
            lines.extend(
                logs.map(|log| format!("{name}: {} is in {}", log.what, log.path.display())),
            );
        }
        lines.extend(self.listed(&name));
        lines.extend(self.skips().into_iter().map(|line| format!("{name}: {line}")));
        lines
    }

    /// Returns the names of the self-tests if the image was asked to list them (`selftest=list`).
    fn listed(&self, name: &str) -> Vec<String> {
        let console = self.console.iter();
        let tests = console.filter_map(|line| line.strip_prefix(LISTED_TEST));
        let mut lines: Vec<String> = tests.map(|test| format!("  {test}")).collect();
        if !lines.is_empty() {
            lines.insert(0, format!("{name} has these self-tests:"));
        }
        lines
    }

    /// Returns a line for each reason for which tests were skipped.
    fn skips(&self) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        let tests = self.judgement.tests.iter();
        for test in tests.filter(|test| test.outcome == TestOutcome::Skipped) {
            match reasons.iter_mut().find(|(reason, _)| *reason == test.reason) {
                Some((_, names)) => names.push(&test.name),
                None => reasons.push((&test.reason, vec![&test.name])),
            }
        }
        let line = |(reason, names): (&str, Vec<&str>)| {
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            match names[..] {
                [first, _, _, _, ..] => {
                    format!("skipped {first} and {} more: {reason}", names.len() - 1)
                }
                _ => format!("skipped {}: {reason}", names.join(", ")),
            }
        };
        reasons.into_iter().map(line).collect()
    }
}

fn xl_words(result: &JobResult) -> Vec<String> {
    ["command", "create", "list", "destroy", "xl"]
        .into_iter()
        .flat_map(|name| result.report.section(name).iter().cloned())
        .collect()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns the closing table, a line per guest.
pub fn table(outcomes: &[GuestOutcome]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["xen", "guest", "verdict", "ok", "not ok", "skipped", "seconds", "logs"]);
    for outcome in outcomes {
        let counts = outcome.judgement.counts;
        table.add_row([
            outcome.xen.to_string(),
            outcome.name.clone(),
            outcome.judgement.verdict.to_string(),
            counts.passed.to_string(),
            counts.failed.to_string(),
            counts.skipped.to_string(),
            format!("{:.1}", outcome.seconds),
            format!("{}/", outcome.dir.display()),
        ]);
    }
    for column in 3..=6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::guest::judge;

    pub fn outcome(console: &str, end: End) -> GuestOutcome {
        let dir = PathBuf::from("target/bed/4.17/pv-domu");
        let machine = Path::new("target/bed/4.17/linux-dom0");
        GuestOutcome {
            evidence: Evidence::of(&end, &dir, machine, true, console.is_empty()),
            xen: Xen::default_release(),
            name: "pv-domu".to_owned(),
            judgement: judge(console.lines(), &end, GuestExit::PowerOff),
            end,
            console: console.lines().map(str::to_owned).collect(),
            seconds: 12.34,
            dir,
        }
    }

    pub const GOOD: &str = "KTAP version 1\n1..1\nok 1 a\nTest result: SUCCESS";
    pub const BAD: &str = "KTAP version 1\n1..1\nnot ok 1 a # why\nTest result: FAILURE";

    #[test]
    fn a_failure_says_what_and_where() {
        let details = outcome(BAD, End::PowerOff).details().join("\n");
        assert!(details.contains("not ok 1 a # why"), "{details}");
        assert!(details.contains("target/bed/4.17/pv-domu/console.log"), "{details}");
        assert!(outcome(GOOD, End::PowerOff).details().is_empty());
    }

    #[test]
    fn the_log_that_says_why_is_named() {
        let logs = |console: &str, end: End| {
            let details = outcome(console, end).details();
            let logs = details.iter().filter_map(|line| line.split_once(" is in target/bed/4.17/"));
            logs.map(|(_, log)| log.to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(logs("hello", End::PowerOff), "pv-domu/console.log");
        assert_eq!(logs("hello", End::Crash), "pv-domu/console.log pv-domu/xl-dmesg.log");
        assert_eq!(logs("", End::PowerOff), "pv-domu/xl-dmesg.log");
        assert_eq!(logs("", End::NotStarted("no memory".into())), "pv-domu/xl.log");
        assert_eq!(logs("hello", End::XenPanic("x".into())), "linux-dom0/serial.log");
        assert_eq!(logs("", End::Lost("x".into())), "linux-dom0/serial.log");
        let (end, dir) = (End::NotStarted("Xen had panicked".into()), Path::new("a"));
        let before = Evidence::of(&end, dir, Path::new("b"), false, true);
        assert_eq!(before[0].path, Path::new("b/serial.log"));
    }

    #[test]
    fn a_list_of_the_self_tests_is_printed() {
        let text = "# selftest: exchange-order-0\n# selftest: storm (not by default)\n\
                    # the tests were listed, and none ran\nKTAP version 1\n1..0\nTest result: SKIP";
        let details = outcome(text, End::PowerOff).details();
        let at = details.iter().position(|line| line.ends_with("has these self-tests:")).unwrap();
        assert_eq!(details[at + 1..], ["  exchange-order-0", "  storm (not by default)"]);
        let remarks = details.iter().filter(|line| line.contains("remarked")).count();
        assert_eq!(remarks, 1, "{details:?}");
    }

    #[test]
    fn skipped_tests_are_listed_by_reason() {
        let text = "KTAP version 1\n1..7\nok 1 a\nok 2 b # SKIP PV only\nok 3 c # SKIP no room\n\
                    ok 4 d # SKIP PV only\nok 5 e # SKIP PV only\nok 6 f # SKIP PV only\n\
                    ok 7 g # SKIP no room\nTest result: SUCCESS";
        let details = outcome(text, End::PowerOff).details();
        let lines: Vec<_> = details.iter().map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(lines, ["skipped b and 3 more: PV only", "skipped c, g: no room"]);
    }

    #[test]
    fn only_a_test_that_ran_has_passed() {
        let text =
            "KTAP version 1\n1..2\nok 1 a # time=2ms\nok 2 b # SKIP no edu\nTest result: SUCCESS";
        let outcome = outcome(text, End::PowerOff);
        assert!(outcome.has_passed("a") && !outcome.has_passed("b") && !outcome.has_passed("c"));
    }

    #[test]
    fn the_table_has_a_line_per_guest() {
        let text = table(&[outcome(GOOD, End::PowerOff)]).to_string();
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..7], ["4.17", "pv-domu", "SUCCESS", "1", "0", "0", "12.3"]);
    }
}
