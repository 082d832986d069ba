//! `bed run`: the image in each of the chosen modes.

use std::path::PathBuf;
use std::time::Duration;

use crate::boot::{DEFAULT_MIB, Dom0Boot, Dom0Spec};
use crate::choice::{KernelArgs, Mode};
use crate::domu::{self, Goal, Job, SessionSpec};
use crate::error::Result;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::setup::{Bed, make_dir};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The modes.
    pub modes: Vec<Mode>,
    /// vCPUs, if chosen.
    pub vcpus: Option<u32>,
    /// MiB, if chosen: of the domain in domU modes, of the machine in dom0 modes.
    pub memory: Option<u32>,
    /// The kernel command line.
    pub args: KernelArgs,
    /// The time limit of each guest.
    pub limit: Duration,
    /// The repository's root.
    pub root: PathBuf,
    /// Whether dom0 modes wait for a debugger.
    pub gdb: bool,
}

/// Runs the modes, all domU modes in one boot of the Linux dom0, and judges each.
pub fn run(
    bed: &Bed,
    spec: &RunSpec,
    image: &[u8],
    progress: &mut Progress,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let (dom0s, domus): (Vec<Mode>, Vec<Mode>) = spec.modes.iter().partition(|mode| mode.is_dom0());
    for (index, &mode) in dom0s.iter().enumerate() {
        let next = dom0s.get(index + 1).or(domus.first()).map_or("the table", |mode| mode.as_str());
        progress.step(format!("{mode}: booting the image as dom0 of Xen {}", bed.xen), next);
        let outcome = run_dom0(bed, spec, mode, image, progress)?;
        progress.say(&format!("{mode}: {}", outcome.judgement.verdict));
        outcomes.push(outcome);
    }
    if !domus.is_empty() {
        let jobs = domus.iter().map(|&mode| job(spec, mode)).collect();
        let session = SessionSpec { jobs, root: spec.root.clone(), name: "linux-dom0" };
        let (results, mut machine) = domu::run(bed, &session, image, progress)?;
        machine.stop();
        for result in &results {
            let dir = bed.dir.join(result.job.mode.as_str());
            make_dir(&dir)?;
            let outcome = Outcome::of_domu(bed.xen, result, &dir)?;
            progress.say(&format!("{}: {}", outcome.mode, outcome.judgement.verdict));
            outcomes.push(outcome);
        }
    }
    outcomes.sort_by_key(|outcome| Mode::ALL.iter().position(|mode| *mode == outcome.mode));
    Ok(outcomes)
}

fn run_dom0(
    bed: &Bed,
    spec: &RunSpec,
    mode: Mode,
    image: &[u8],
    progress: &mut Progress,
) -> Result<Outcome> {
    let dir = bed.dir.join(mode.as_str());
    make_dir(&dir)?;
    let dom0 = Dom0Spec {
        memory: spec.memory.unwrap_or(DEFAULT_MIB),
        vcpus: spec.vcpus.unwrap_or(1),
        gdb: spec.gdb,
        ..Dom0Spec::new(mode, spec.args.clone(), spec.limit)
    };
    let boot = Dom0Boot::run(bed, &dom0, image, &dir, progress, |_| false)?;
    let told = (&boot.log, &boot.end, boot.seconds);
    Outcome::of_dom0(bed.xen, mode, told, spec.args.expected_exit(), &dir)
}

/// The `xl create` of a domU mode.
pub fn job(spec: &RunSpec, mode: Mode) -> Job {
    Job {
        name: mode.to_string(),
        mode,
        memory: spec.memory,
        vcpus: spec.vcpus,
        args: spec.args.clone(),
        limit: spec.limit,
        goal: Goal::of(&spec.args),
    }
}
