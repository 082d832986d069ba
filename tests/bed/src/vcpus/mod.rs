//! `bed vcpus`: the image with one and with several vCPUs, on each Xen, and a long storm.

mod guests;

use std::path::Path;

use crate::cli::Cli;
use crate::domu::{self, JobResult, SessionSpec};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::findings::{Findings, say_stood_still};
use crate::guest::{End, Verdict};
use crate::progress::Progress;
use crate::setup::{SetupOptions, prepare};

use guests::Guests;

/// Tries every guest on each Xen and says the last line.
pub fn run(
    cli: &Cli,
    options: &SetupOptions,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<Verdict> {
    let mut findings = Findings::default();
    check(cli, options, image, root, progress, &mut findings)?;
    println!();
    Ok(findings.close(&[]))
}

/// Tries every guest on each Xen: on all of them, unless one is chosen.
pub fn check(
    cli: &Cli,
    options: &SetupOptions,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
    findings: &mut Findings,
) -> Result<()> {
    for xen in cli.xens() {
        let bed = prepare(xen, options, progress)?;
        let Guests { dom0s, domus } = guests::of(cli.timeout)?;
        findings.try_dom0s(&bed, &dom0s, image, progress)?;
        // Apart: when a machine stands still, all guests in it do.
        let (shaky, firm): (Vec<_>, Vec<_>) =
            domus.into_iter().partition(Expectation::may_stand_still);
        let mut session = |domus: &[Expectation], name| -> Result<Vec<JobResult>> {
            let jobs = domus.iter().map(Expectation::job).collect();
            let session = SessionSpec { jobs, root: root.to_owned(), name };
            let (results, mut machine) = domu::run(&bed, &session, image, progress)?;
            machine.stop();
            Ok(results)
        };
        let results = session(&firm, "linux-dom0-vcpus")?;
        findings.note_domus(&bed, &firm, &results)?;
        let mut results = session(&shaky, "linux-dom0-vcpus-pvh")?;
        // The guest alone, or the whole machine.
        let stands = |result: &&JobResult| matches!(result.end, End::StillRunning | End::Lost(_));
        if let Some(still) = results.iter().find(stands) {
            say_stood_still(&still.job.name);
            results = session(&shaky, "linux-dom0-vcpus-pvh")?;
        }
        findings.note_domus(&bed, &shaky, &results)?;
    }
    Ok(())
}
