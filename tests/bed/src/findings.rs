//! What a run of many guests found: checks counted, what failed kept for the end.

use std::path::PathBuf;

use crate::boot::Dom0Boot;
use crate::domu::JobResult;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::guest::{Counts, End, Verdict};
use crate::outcome::{self, Outcome};
use crate::progress::Progress;
use crate::setup::{Bed, make_dir};
use crate::witness::Testimony;

/// Collects what was found.
#[derive(Debug, Default)]
pub struct Findings {
    counts: Counts,
    failed: Vec<String>,
}

impl Findings {
    /// Notes one check; an error says what is wrong.
    pub fn note(&mut self, name: &str, result: std::result::Result<(), String>) {
        match result {
            Ok(()) => {
                self.counts.passed += 1;
                println!("ok      {name}");
            }
            Err(why) => {
                self.counts.failed += 1;
                println!("NOT OK  {name}: {why}");
                self.failed.push(format!("{name}: {why}"));
            }
        }
    }

    /// Notes what a witness saw.
    pub fn note_testimony(&mut self, seen: &Testimony) {
        let name = format!("witness of {}", seen.mode);
        match seen.told() {
            Ok(words) => self.note(&format!("{name}: {words}"), Ok(())),
            Err(words) => self.note(&name, Err(words)),
        }
    }

    /// Boots each of the dom0s and notes whether it is as expected.
    pub fn try_dom0s(
        &mut self,
        bed: &Bed,
        expectations: &[Expectation],
        image: &[u8],
        progress: &mut Progress,
    ) -> Result<()> {
        for expectation in expectations {
            let name = expectation.name();
            progress.step(format!("{name} on Xen {}", bed.xen), "the next guest");
            let dir = log_dir(bed, &name)?;
            let mut once =
                || Dom0Boot::run(bed, &expectation.dom0(), image, &dir, progress, |_| false);
            let mut boot = once()?;
            if expectation.may_stand_still() && boot.end == End::StillRunning {
                say_stood_still(&name);
                boot = once()?;
            }
            let told = (&boot.log, &boot.end, boot.seconds);
            let exit = expectation.args.expected_exit();
            let outcome = Outcome::of_dom0(bed.xen, expectation.mode, told, exit, &dir)?;
            self.note_guest(bed, &name, expectation.met_by(&outcome, &boot.log.guest));
        }
        Ok(())
    }

    /// Notes whether the domUs, made in the order of `expectations`, were as expected.
    pub fn note_domus(
        &mut self,
        bed: &Bed,
        expectations: &[Expectation],
        results: &[JobResult],
    ) -> Result<()> {
        for (expectation, result) in expectations.iter().zip(results) {
            let dir = log_dir(bed, &result.job.name)?;
            let outcome = Outcome::of_domu(bed.xen, result, &dir)?;
            let lines = result.report.guest_lines();
            self.note_guest(bed, &result.job.name, expectation.met_by(&outcome, &lines));
        }
        Ok(())
    }

    fn note_guest(&mut self, bed: &Bed, name: &str, result: std::result::Result<(), String>) {
        self.note(&format!("{name} on Xen {}", bed.xen), result);
    }

    /// Says everything once more that a reader must not miss, and the last line: of these checks
    /// and of guests that were judged each by its own tests.
    pub fn close(self, outcomes: &[Outcome]) -> Verdict {
        outcomes.iter().flat_map(Outcome::details).for_each(|line| println!("{line}"));
        self.failed.iter().for_each(|line| println!("NOT OK  {line}"));
        let mut counts = self.counts;
        outcomes.iter().for_each(|outcome| counts.add(outcome.judgement.counts));
        let guests = outcomes.iter().map(|outcome| outcome.judgement.verdict).max();
        let checks = match (self.counts.passed, self.counts.failed) {
            // No check was made.
            (0, 0) => Verdict::Error,
            (_, 0) => Verdict::Success,
            _ => Verdict::Failure,
        };
        let verdict = guests.map_or(checks, |guests| guests.max(checks));
        println!("bed: the verdict is {verdict} (exit status {})", verdict.exit_status());
        println!("{}", outcome::last_line(counts));
        verdict
    }
}

/// Says why a guest is tried once more.
pub fn say_stood_still(name: &str) {
    println!(
        "bed: {name} stood still, as QEMU lets a PVH guest of several vCPUs now and then (see \
         `Threads`): once more"
    );
}

/// The directory of a guest's logs.
pub fn log_dir(bed: &Bed, name: &str) -> Result<PathBuf> {
    let dir = bed.dir.join(name);
    make_dir(&dir)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_that_failed_is_a_failure() {
        let mut findings = Findings::default();
        findings.note("a", Ok(()));
        findings.note("b", Err("why".to_owned()));
        assert_eq!((findings.counts.passed, findings.counts.failed), (1, 1));
        assert_eq!(findings.failed, ["b: why"]);
        assert_eq!(findings.close(&[]), Verdict::Failure);
    }

    #[test]
    fn nothing_looked_at_is_no_success() {
        assert_eq!(Findings::default().close(&[]), Verdict::Error);
        let mut findings = Findings::default();
        findings.note("a", Ok(()));
        assert_eq!(findings.close(&[]), Verdict::Success);
    }
}
