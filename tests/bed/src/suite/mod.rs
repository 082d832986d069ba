//! `bed test`: the image in every mode, guests that misbehave, wrong input, the witness, guests that
//! are saved and restored, several vCPUs, and a virtio disk.
//!
//! All domains are made in one boot of the Linux dom0; a dom0 of our own boots in seconds.

mod guests;
mod wrong_input;

use std::path::Path;
use std::time::Duration;

use crate::choice::{KernelArgs, Mode};
use crate::cli::Cli;
use crate::domu::{self, SessionSpec};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::findings::{Findings, log_dir};
use crate::guest::Verdict;
use crate::modes::{self, RunSpec};
use crate::outcome::{self, Outcome};
use crate::progress::Progress;
use crate::saved;
use crate::setup::{Bed, SetupOptions};
use crate::vcpus;
use crate::virtio;
use crate::witness::{self, Request};

/// Runs everything and says the last line.
pub fn run(
    bed: &Bed,
    cli: &Cli,
    options: &SetupOptions,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<Verdict> {
    let mut findings = Findings::default();
    progress.step("wrong input", "the image as dom0");
    wrong_input::check(bed, &mut findings)?;
    let mut outcomes = dom0_modes(bed, cli, image, root, progress)?;
    findings.try_dom0s(bed, &guests::dom0s()?, image, progress)?;
    let request = Request { seed: witness::fresh_seed(), ..cli.probe };
    let seen = witness::dom0(bed, request, image, progress)?;
    findings.note_testimony(&seen);
    let seen = witness::device(bed, image, progress)?;
    findings.note("witness of the device behind the IOMMU, pvh-dom0", seen);
    outcomes.extend(domus(bed, cli, image, root, progress, &mut findings)?);
    outcomes.sort_by_key(|outcome| Mode::ALL.iter().position(|mode| *mode == outcome.mode));
    saved::check(cli, options, image, root, progress, &mut findings)?;
    vcpus::check(cli, options, image, root, progress, &mut findings)?;
    virtio::check(cli, options, image, progress, &mut findings)?;
    Ok(close(&outcomes, findings))
}

fn run_spec(cli: &Cli, modes: Vec<Mode>, root: &Path) -> RunSpec {
    RunSpec {
        modes,
        vcpus: cli.vcpus,
        memory: cli.memory,
        args: cli.args.clone(),
        limit: cli.timeout,
        root: root.to_owned(),
        gdb: false,
    }
}

fn dom0_modes(
    bed: &Bed,
    cli: &Cli,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<Vec<Outcome>> {
    let modes = Mode::ALL.into_iter().filter(|mode| mode.is_dom0()).collect();
    modes::run(bed, &run_spec(cli, modes, root), image, progress)
}

/// One Linux dom0 for the domU modes, the misbehaving domUs, and last the witness's.
fn domus(
    bed: &Bed,
    cli: &Cli,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
    findings: &mut Findings,
) -> Result<Vec<Outcome>> {
    let modes: Vec<Mode> = Mode::ALL.into_iter().filter(|mode| !mode.is_dom0()).collect();
    let run = run_spec(cli, modes.clone(), root);
    let expectations = guests::domus()?;
    let request = Request { seed: witness::fresh_seed(), ..cli.probe };
    let mut jobs: Vec<domu::Job> = modes.iter().map(|&mode| modes::job(&run, mode)).collect();
    jobs.extend(expectations.iter().map(Expectation::job));
    jobs.push(witness::domu_job(request)?);
    let session = SessionSpec { jobs, root: root.to_owned(), name: "linux-dom0" };
    let (results, mut machine) = domu::run(bed, &session, image, progress)?;
    let (in_modes, rest) = results.split_at(modes.len());
    let (odd, witnesses) = rest.split_at(expectations.len());
    let mut outcomes = Vec::new();
    for result in in_modes {
        let dir = log_dir(bed, &result.job.name)?;
        outcomes.push(Outcome::of_domu(bed.xen, result, &dir)?);
    }
    findings.note_domus(bed, &expectations, odd)?;
    for result in witnesses {
        let dir = log_dir(bed, &result.job.name)?;
        let lines = result.report.guest_lines();
        let seen = witness::testify(result.job.mode, &lines, request, &mut machine, &dir)?;
        findings.note_testimony(&seen);
    }
    Ok(outcomes)
}

fn close(outcomes: &[Outcome], findings: Findings) -> Verdict {
    println!("\n{}", outcome::table(outcomes));
    if let Some(faults) = fault_cases(Path::new("target/tmp/fault-cases")) {
        println!("bed: the host tests tried {faults} faults");
    }
    findings.close(outcomes)
}

/// How many faults the host tests tried, if `make test` ran them: each of their sweeps leaves a file
/// that begins with a number.
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
