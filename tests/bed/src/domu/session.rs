//! One boot of the Linux dom0 and all jobs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::jobs::{DomuJob, Goal, pack};
use super::report::{JobReport, SessionReport};
use crate::boot::{LINUX_MIB, MachineClock, MachineSpec, QemuMachine, Threads, for_linux};
use crate::error::{Error, Result};
use crate::guest::{End, MachineEnd, SerialLog};
use crate::parallel::Need;
use crate::progress::ProgressLog;
use crate::setup::{Bed, make_dir, write};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// The `xl create`s, in order. A [`Goal::Probe`] comes last: its domain is left running.
    pub jobs: Vec<DomuJob>,
    /// MiB of the machine below 4 GiB, where not as much as fits.
    pub low_memory: Option<u32>,
    /// The repository's root, where `xen-configs/` is.
    pub root: PathBuf,
    /// Names the directory of the boot's own logs below the bed's.
    pub name: &'static str,
}

impl SessionSpec {
    /// Returns the memory of the session's machine in MiB.
    fn mib(&self) -> u32 {
        let largest = self.jobs.iter().filter_map(|job| job.memory).max().unwrap_or(0);
        LEAST_MIB.max(largest.saturating_add(LINUX_MIB + XEN_MIB))
    }

    /// Returns what the session needs while other parts of a suite run.
    pub fn need(&self) -> Need {
        let vcpus = self.jobs.iter().filter_map(|job| job.vcpus).max().unwrap_or(1);
        Need::machine(vcpus, self.mib()).with_linux()
    }
}

/// A job that is over.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// The job.
    pub job: DomuJob,
    /// What dom0 reported of it.
    pub report: JobReport,
    /// How the domain ended, all things considered.
    pub end: End,
    /// How long it took.
    pub seconds: f64,
}

/// How long Linux may take to come up under software emulation.
const LINUX_LIMIT: Duration = Duration::from_secs(150);
/// What a job may take besides the domain's own time: `xl create`, cleaning up, sending logs.
const JOB_EXTRA: Duration = Duration::from_secs(150);
/// MiB that Xen and its tables need besides the domains.
const XEN_MIB: u32 = 512;
const LEAST_MIB: u32 = 2048;

/// Boots Linux and runs the jobs. The machine is handed back too: after a probe it still runs.
pub fn run(
    bed: &Bed,
    spec: &SessionSpec,
    image: &[u8],
    progress: &mut ProgressLog,
) -> Result<(Vec<JobResult>, QemuMachine)> {
    let dir = bed.dir.join(spec.name);
    make_dir(&dir)?;
    let mut initramfs =
        fs::read(&bed.initramfs).map_err(|e| Error::file("reading", &bed.initramfs, e))?;
    initramfs.extend(pack(&spec.jobs, image, &spec.root)?);
    write(&dir.join("initramfs"), &initramfs)?;
    let linux = dir.join("vmlinuz");
    fs::copy(&bed.linux, &linux).map_err(|e| Error::file("copying", &bed.linux, e))?;
    let resolve =
        |path: &Path| fs::canonicalize(path).map_err(|e| Error::file("resolving", path, e));
    let machine = MachineSpec {
        hypervisor: resolve(&bed.hypervisor)?,
        xen_args: for_linux(),
        modules: vec![
            ("vmlinuz".to_owned(), "console=hvc0 quiet panic=-1".to_owned()),
            ("initramfs".to_owned(), String::new()),
        ],
        memory: spec.mib(),
        low_memory: spec.low_memory,
        cpus: 2,
        clock: MachineClock::Time,
        threads: match spec.jobs.iter().any(|job| Threads::may_lose_a_wakeup(job.mode, job.vcpus)) {
            true => Threads::OneWithTimers,
            false => Threads::Each,
        },
        iommu: false,
        edu: false,
        disk: None,
        report_port: true,
        limit: spec.jobs.iter().fold(LINUX_LIMIT, |sum, job| sum + job.limit + JOB_EXTRA),
        gdb: false,
    };
    progress.step(
        format!("booting Xen {} with a Linux dom0", bed.xen),
        spec.jobs.first().map_or("", |job| job.name.as_str()),
    );
    let mut machine = QemuMachine::start(&machine, &dir, progress)?;
    let mut watch = Watch { spec, started: Vec::new(), finished: Vec::new(), ready: false };
    let (report, broken) = loop {
        let ended = machine.has_ended();
        let report = SessionReport::parse(&machine.serial(crate::boot::CONTROL));
        watch.follow(&report, machine.elapsed(), progress);
        if report.done || watch.probe_is_up(&report) {
            break (report, None);
        }
        if let Some(why) = broken(&mut machine, ended) {
            break (report, Some(why));
        }
        if !report.ready && machine.elapsed() > LINUX_LIMIT {
            break (report, Some(End::Lost("the Linux dom0 did not come up in time".to_owned())));
        }
        progress.tick();
        thread::sleep(Duration::from_millis(200));
    };
    let elapsed = machine.elapsed();
    Ok((watch.results(&report, broken.as_ref(), elapsed), machine))
}

/// Whether the machine under the jobs is gone.
fn broken(machine: &mut QemuMachine, ended: bool) -> Option<End> {
    let log = SerialLog::split(&machine.serial(crate::boot::SERIAL));
    match log.machine_end() {
        Some(MachineEnd::Panic(line)) => return Some(End::XenPanic(line)),
        Some(other) => return Some(End::Lost(format!("the Linux dom0 went down: {other:?}"))),
        None => {}
    }
    if ended {
        return Some(End::Lost("QEMU ended under the Linux dom0".to_owned()));
    }
    machine.is_overdue().then(|| End::Lost("the whole boot took too long".to_owned()))
}

/// Follows the jobs as they come and go.
struct Watch<'a> {
    spec: &'a SessionSpec,
    started: Vec<Duration>,
    finished: Vec<Duration>,
    ready: bool,
}

impl Watch<'_> {
    fn follow(&mut self, report: &SessionReport, now: Duration, progress: &mut ProgressLog) {
        if report.ready && !self.ready {
            self.ready = true;
            progress.say("Linux and Xen's daemons are up");
        }
        for (index, job) in report.jobs.iter().enumerate() {
            if index == self.started.len() {
                self.started.push(now);
                let next =
                    self.spec.jobs.get(index + 1).map_or("the verdict", |job| job.name.as_str());
                progress.step(format!("{}: xl create", job.name), next);
            }
            if index == self.finished.len() && job.finished {
                self.finished.push(now);
                if let Some(command) = job.section("command").first() {
                    let end = job.end.as_ref().map_or_else(String::new, End::describe);
                    progress.say(&format!("{}: `{command}`; the guest {end}", job.name));
                }
            }
        }
    }

    fn probe_is_up(&self, report: &SessionReport) -> bool {
        let last = self.spec.jobs.last().is_some_and(|job| job.goal == Goal::Probe);
        last && report.jobs.len() == self.spec.jobs.len()
            && report.jobs.last().is_some_and(|job| job.finished)
    }

    fn results(
        self,
        report: &SessionReport,
        broken: Option<&End>,
        now: Duration,
    ) -> Vec<JobResult> {
        let why = broken.cloned().unwrap_or_else(|| End::Lost("dom0 did not report it".to_owned()));
        let jobs = self.spec.jobs.iter().enumerate();
        jobs.map(|(index, job)| {
            let told = report.jobs.get(index).cloned().unwrap_or_default();
            let end = match (&told.end, &why) {
                (Some(end), _) if told.finished => end.clone(),
                // Only the job that was on can have brought Xen down.
                (_, End::XenPanic(_)) if told.name.is_empty() => {
                    End::NotStarted("Xen had panicked before".to_owned())
                }
                _ => why.clone(),
            };
            let from = self.started.get(index).copied().unwrap_or(now);
            let until = self.finished.get(index).copied().unwrap_or(now);
            let seconds = until.saturating_sub(from).as_secs_f64();
            JobResult { job: job.clone(), report: told, end, seconds }
        })
        .collect()
    }
}
