//! `bed test`: the image in every mode, guests that misbehave, wrong input, and the witness.
//!
//! All domains are made in one boot of the Linux dom0; a dom0 of our own boots in seconds.

mod guests;
mod wrong_input;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::boot::{DEFAULT_MIB, Dom0Boot, Dom0Spec};
use crate::choice::{KernelArgs, Mode};
use crate::cli::Cli;
use crate::domu::{self, SessionSpec};
use crate::error::Result;
use crate::guest::{Counts, Verdict};
use crate::modes::{self, RunSpec};
use crate::outcome::{self, Outcome};
use crate::progress::Progress;
use crate::setup::{Bed, make_dir};
use crate::witness::{self, Request, Testimony};

use guests::Expectation;

/// Collects what was found.
#[derive(Debug, Default)]
struct Findings {
    counts: Counts,
    failed: Vec<String>,
}

impl Findings {
    /// Notes one check; an error says what is wrong.
    fn note(&mut self, name: &str, result: std::result::Result<(), String>) {
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
}

impl Findings {
    fn note_testimony(&mut self, seen: &Testimony) {
        let name = format!("witness of {}", seen.mode);
        match seen.told() {
            Ok(words) => self.note(&format!("{name}: {words}"), Ok(())),
            Err(words) => self.note(&name, Err(words)),
        }
    }
}

/// Runs everything and says the last line.
pub fn run(
    bed: &Bed,
    cli: &Cli,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<Verdict> {
    let mut findings = Findings::default();
    progress.step("wrong input", "the image as dom0");
    wrong_input::check(bed, &mut findings)?;
    let mut outcomes = dom0_modes(bed, cli, image, root, progress)?;
    misbehaving_dom0s(bed, image, progress, &mut findings)?;
    let request = Request { seed: witness::fresh_seed(), ..cli.probe };
    let seen = witness::dom0(bed, request, image, progress)?;
    findings.note_testimony(&seen);
    outcomes.extend(domus(bed, cli, image, root, progress, &mut findings)?);
    outcomes.sort_by_key(|outcome| Mode::ALL.iter().position(|mode| *mode == outcome.mode));
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

fn misbehaving_dom0s(
    bed: &Bed,
    image: &[u8],
    progress: &mut Progress,
    findings: &mut Findings,
) -> Result<()> {
    for expectation in guests::dom0s()? {
        let name = expectation.name();
        progress.step(name.clone(), "the next guest");
        let dir = bed.dir.join(&name);
        make_dir(&dir)?;
        let spec = Dom0Spec {
            mode: expectation.mode,
            memory: expectation.memory.unwrap_or(DEFAULT_MIB),
            dom0_memory: expectation.dom0_memory,
            vcpus: 1,
            args: expectation.args.clone(),
            limit: expectation.limit,
            gdb: false,
        };
        let boot = Dom0Boot::run(bed, &spec, image, &dir, progress, |_| false)?;
        let told = (&boot.log, &boot.end, boot.seconds);
        let expected = expectation.args.expected_exit();
        let outcome = Outcome::of_dom0(bed.xen, expectation.mode, told, expected, &dir)?;
        findings.note(&name, expectation.met_by(&outcome, &boot.log.guest));
    }
    Ok(())
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
    let mut results = results.iter();
    let mut outcomes = Vec::new();
    for result in results.by_ref().take(modes.len()) {
        let dir = log_dir(bed, &result.job.name)?;
        outcomes.push(Outcome::of_domu(bed.xen, result, &dir)?);
    }
    for (expectation, result) in expectations.iter().zip(results.by_ref()) {
        let dir = log_dir(bed, &result.job.name)?;
        let outcome = Outcome::of_domu(bed.xen, result, &dir)?;
        let lines = result.report.guest_lines();
        findings.note(&result.job.name, expectation.met_by(&outcome, &lines));
    }
    for result in results {
        let dir = log_dir(bed, &result.job.name)?;
        let lines = result.report.guest_lines();
        let seen = witness::testify(result.job.mode, &lines, request, &mut machine, &dir)?;
        findings.note_testimony(&seen);
    }
    Ok(outcomes)
}

fn log_dir(bed: &Bed, name: &str) -> Result<PathBuf> {
    let dir = bed.dir.join(name);
    make_dir(&dir)?;
    Ok(dir)
}

fn close(outcomes: &[Outcome], findings: Findings) -> Verdict {
    println!("\n{}", outcome::table(outcomes));
    outcomes.iter().flat_map(Outcome::details).for_each(|line| println!("{line}"));
    findings.failed.iter().for_each(|line| println!("NOT OK  {line}"));
    let mut counts = findings.counts;
    outcomes.iter().for_each(|outcome| counts.add(outcome.judgement.counts));
    let mut verdict = outcome::worst(outcomes);
    if !findings.failed.is_empty() {
        verdict = verdict.max(Verdict::Failure);
    }
    if let Some(faults) = fault_cases(Path::new("target/tmp/fault-cases")) {
        println!("bed: the host tests tried {faults} faults");
    }
    println!("bed: the verdict is {verdict} (exit status {})", verdict.exit_status());
    println!("{}", outcome::last_line(counts));
    verdict
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
