//! `bed test`: the image in every mode, guests that misbehave, wrong input, the witness, guests that
//! are saved and restored, several vCPUs, and a virtio disk.
//!
//! Machines with a single vCPU run two at a time. Each domU mode has one boot of the Linux dom0, in
//! which all its domains are made; a dom0 of our own boots in seconds.

mod guests;
mod wrong_input;

use std::path::Path;
use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::context::SuiteContext;
use crate::domu::{self, SessionSpec};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::findings::Findings;
use crate::guest::GuestVerdict;
use crate::low_memory;
use crate::modes::{self, RunSpec};
use crate::outcome::GuestOutcome;
use crate::parallel::{self, SuitePart};
use crate::progress::ProgressLog;
use crate::saved;
use crate::setup::Bed;
use crate::vcpus;
use crate::virtio;
use crate::witness::{self, ProbeRequest};

/// Runs everything and prints the last line.
pub fn run(context: &SuiteContext, progress: &mut ProgressLog) -> Result<GuestVerdict> {
    let mut findings = Findings::default();
    let bed = context.bed(progress)?;
    let beds = context.beds(progress)?;
    progress.step("wrong input", "the image as domU");
    wrong_input::check(&bed, progress, &mut findings)?;
    // The long parts first, so that the short ones fill the time beside them.
    let mut parts = vec![
        domus(context, &bed, GuestMode::PvDomu, "linux-dom0-pv")?,
        domus(context, &bed, GuestMode::PvhDomu, "linux-dom0-pvh")?,
    ];
    for bed in &beds {
        parts.push(saved::part(context, bed)?);
    }
    let dom0s = GuestMode::ALL.into_iter().filter(|mode| mode.is_dom0()).collect();
    parts.extend(modes::parts(context, &bed, &RunSpec::chosen(context, dom0s)));
    let guests = guests::dom0s()?.into_iter();
    parts.extend(guests.map(|guest| expected::dom0(context, &bed, guest)));
    parts.extend(low_memory::dom0s(context, &bed)?);
    parts.push(witness::dom0(context, &bed));
    parts.push(witness::device(context, &bed));
    for bed in &beds {
        parts.extend(virtio::parts(context, bed)?);
    }
    // Machines that run alone come last.
    for bed in &beds {
        parts.extend(vcpus::parts(context, bed)?);
    }
    parallel::run(parts, progress, &mut findings)?;
    if let Some(faults) = fault_cases(Path::new("target/tmp/fault-cases")) {
        println!("\nbed: the host tests tried {faults} faults");
    }
    Ok(findings.close())
}

/// Returns a part with a boot of the Linux dom0 for one domU mode: the image as configured, guests that
/// misbehave, and in PV the witness, which must be last.
fn domus<'p>(
    context: &'p SuiteContext,
    bed: &'p Bed,
    mode: GuestMode,
    name: &'static str,
) -> Result<SuitePart<'p>> {
    let run = RunSpec::chosen(context, vec![mode]);
    let expectations = guests::domus(mode)?;
    let request = ProbeRequest { seed: witness::fresh_seed(), ..context.cli.probe };
    let mut jobs = vec![run.job(mode)];
    jobs.extend(expectations.iter().map(Expectation::job));
    if mode == GuestMode::PvDomu {
        jobs.push(witness::domu_job(request)?);
    }
    let session = SessionSpec { jobs, low_memory: None, root: context.root.clone(), name };
    Ok(SuitePart::new(session.need(), move |progress, findings| {
        let (results, mut machine) = domu::run(bed, &session, &context.image, progress)?;
        if let Some(configured) = results.first() {
            let dir = bed.log_dir(&configured.job.name)?;
            findings.judge(progress, GuestOutcome::of_domu(bed.xen, configured, &dir)?);
        }
        let odd = results.iter().skip(1).take(expectations.len()).cloned().collect::<Vec<_>>();
        expected::note_domus(bed, &expectations, &odd, progress, findings)?;
        for result in results.iter().skip(1 + expectations.len()) {
            let dir = bed.log_dir(&result.job.name)?;
            let lines = result.report.guest_lines();
            let seen = witness::testify(result.job.mode, &lines, request, &mut machine, &dir)?;
            seen.note(progress, findings);
        }
        Ok(())
    }))
}

/// Returns how many faults the host tests tried, if `make test` ran them: each of their sweeps writes a
/// file that begins with a number.
fn fault_cases(dir: &Path) -> Option<u64> {
    let files = std::fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok());
    let contents = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    Some(contents.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).sum())
}

/// How long a guest that never ends is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

fn args(text: &str) -> Result<KernelArgs> {
    KernelArgs::new(text)
}
