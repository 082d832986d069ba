//! `bed run`: the image in each of the chosen modes.

use std::path::PathBuf;
use std::time::Duration;

use crate::boot::{DEFAULT_MIB, Dom0Boot, Dom0Spec};
use crate::choice::{GuestMode, KernelArgs};
use crate::context::SuiteContext;
use crate::domu::{self, DomuJob, Goal, SessionSpec};
use crate::error::Result;
use crate::findings::Findings;
use crate::guest::GuestVerdict;
use crate::outcome::GuestOutcome;
use crate::parallel::{self, Need, SuitePart};
use crate::progress::ProgressLog;
use crate::setup::Bed;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The modes.
    pub modes: Vec<GuestMode>,
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

impl RunSpec {
    /// Returns what the command line asks for, in `modes`.
    pub fn chosen(context: &SuiteContext, modes: Vec<GuestMode>) -> Self {
        let cli = &context.cli;
        Self {
            modes,
            vcpus: cli.vcpus,
            memory: cli.memory,
            args: cli.args.clone(),
            limit: cli.timeout,
            root: context.root.clone(),
            gdb: cli.gdb,
        }
    }

    /// Returns the `xl create` of a domU mode.
    pub fn job(&self, mode: GuestMode) -> DomuJob {
        DomuJob {
            name: mode.to_string(),
            mode,
            memory: self.memory,
            max_memory: None,
            reduced_to: None,
            vcpus: self.vcpus,
            args: self.args.clone(),
            limit: self.limit,
            goal: Goal::of(&self.args),
        }
    }

    fn dom0(&self, mode: GuestMode) -> Dom0Spec {
        Dom0Spec {
            memory: self.memory.unwrap_or(DEFAULT_MIB),
            vcpus: self.vcpus.unwrap_or(1),
            gdb: self.gdb,
            ..Dom0Spec::new(mode, self.args.clone(), self.limit)
        }
    }
}

/// Boots the chosen modes and prints the verdicts.
pub fn run(context: &SuiteContext, progress: &mut ProgressLog) -> Result<GuestVerdict> {
    let bed = context.bed(progress)?;
    let spec = RunSpec::chosen(context, context.cli.modes.clone());
    let mut findings = Findings::default();
    parallel::run(parts(context, &bed, &spec), progress, &mut findings)?;
    Ok(findings.close())
}

/// Returns a part for each dom0 mode, and one for all domU modes, which share a boot of the Linux
/// dom0. Each guest is judged by its own tests.
pub fn parts<'p>(context: &'p SuiteContext, bed: &'p Bed, spec: &RunSpec) -> Vec<SuitePart<'p>> {
    let (dom0s, domus): (Vec<GuestMode>, Vec<GuestMode>) =
        spec.modes.iter().partition(|mode| mode.is_dom0());
    let mut parts: Vec<_> =
        dom0s.into_iter().map(|mode| dom0_part(context, bed, spec.dom0(mode))).collect();
    if !domus.is_empty() {
        let jobs = domus.into_iter().map(|mode| spec.job(mode)).collect();
        let session =
            SessionSpec { jobs, low_memory: None, root: spec.root.clone(), name: "linux-dom0" };
        parts.push(session_part(context, bed, session));
    }
    parts
}

fn dom0_part<'p>(context: &'p SuiteContext, bed: &'p Bed, spec: Dom0Spec) -> SuitePart<'p> {
    // Two debuggers can't share a port.
    let need = if spec.gdb { Need::alone() } else { Need::machine(spec.vcpus, spec.memory) };
    SuitePart::new(need, move |progress, findings| {
        let mode = spec.mode;
        let dir = bed.log_dir(mode.as_str())?;
        progress
            .step(format!("{mode}: booting the image as dom0 of Xen {}", bed.xen), "its verdict");
        let mut boot = Dom0Boot::run(bed, &spec, &context.image, &dir, progress, |_| false)?;
        boot.machine.stop();
        let seen = (&boot.log, &boot.end, boot.seconds);
        let exit = spec.args.expected_exit();
        findings.judge(progress, GuestOutcome::of_dom0(bed.xen, mode, seen, exit, &dir)?);
        Ok(())
    })
}

fn session_part<'p>(
    context: &'p SuiteContext,
    bed: &'p Bed,
    session: SessionSpec,
) -> SuitePart<'p> {
    SuitePart::new(session.need(), move |progress, findings| {
        let (results, mut machine) = domu::run(bed, &session, &context.image, progress)?;
        machine.stop();
        for result in &results {
            let dir = bed.log_dir(&result.job.name)?;
            findings.judge(progress, GuestOutcome::of_domu(bed.xen, result, &dir)?);
        }
        Ok(())
    })
}
