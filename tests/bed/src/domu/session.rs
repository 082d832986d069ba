//! One boot of the Linux dom0 and all jobs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::jobs::pack;
use super::report::{JobReport, SessionReport};
use crate::boot::{
    Devices, LINUX_MIB, MachineClock, MachineSpec, QemuMachine, SILENT_HALT, Threads, for_linux,
    pause,
};
use crate::choice::GuestMode;
use crate::error::{Error, Result};
use crate::guest::{End, Goal, Guest, MachineEnd, PassFault, PassedDevice, SerialLog};
use crate::parallel::Need;
use crate::report::{GuestOutcome, Reporter};
use crate::setup::{Bed, LinuxDom0, NO_TOOLS, resolve, write};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Names the directory of the boot's own logs below the bed's.
    pub name: &'static str,
    /// The `xl create`s, in order. A [`Goal::Probe`] comes last: its domain is left running.
    pub guests: Vec<Guest>,
}

impl SessionSpec {
    /// Returns the memory of the session's machine in MiB.
    fn mib(&self) -> u32 {
        let largest = self.guests.iter().filter_map(|guest| guest.memory).max().unwrap_or(0);
        LEAST_MIB.max(largest.saturating_add(LINUX_MIB + XEN_MIB))
    }

    /// Returns what the session needs while other parts of a suite run.
    pub fn need(&self) -> Need {
        let vcpus = self.guests.iter().filter_map(|guest| guest.vcpus).max().unwrap_or(1);
        Need::machine(vcpus, self.mib()).with_linux()
    }
}

/// A job that is over.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// The guest.
    pub guest: Guest,
    /// What dom0 reported of it.
    pub report: JobReport,
    /// How the domain ended, all things considered.
    pub end: End,
    /// How long it took.
    pub seconds: f64,
    /// The directory with the logs of the machine.
    pub machine_dir: PathBuf,
}

/// How long Linux may take to come up under software emulation.
const LINUX_LIMIT: Duration = Duration::from_secs(400);
/// What a job may take besides the domain's own time: `xl create`, cleaning up, sending logs.
const JOB_EXTRA: Duration = Duration::from_secs(150);
/// MiB that Xen and its tables need besides the domains.
pub const XEN_MIB: u32 = 512;
const LEAST_MIB: u32 = 2048;

/// Boots Linux, runs the jobs, and returns the verdict on each guest.
pub fn judged(
    bed: &Bed,
    session: &SessionSpec,
    reporter: &mut Reporter,
) -> Result<Vec<(GuestOutcome, JobResult)>> {
    bed.fresh_log_dir(session.name)?;
    judged_with_files(bed, session, reporter)
}

/// Like [`judged`], with the files that the boot's directory has.
pub fn judged_with_files(
    bed: &Bed,
    session: &SessionSpec,
    reporter: &mut Reporter,
) -> Result<Vec<(GuestOutcome, JobResult)>> {
    let (results, mut machine) = run_with_files(bed, session, reporter)?;
    machine.stop();
    let results = results.into_iter();
    results.map(|result| Ok((GuestOutcome::of_domu(bed, &result)?, result))).collect()
}

/// Boots Linux and runs the jobs. The machine is returned, too: after a probe it still runs.
pub fn run(
    bed: &Bed,
    session: &SessionSpec,
    reporter: &mut Reporter,
) -> Result<(Vec<JobResult>, QemuMachine)> {
    bed.fresh_log_dir(session.name)?;
    run_with_files(bed, session, reporter)
}

/// Like [`run`], with the files that the boot's directory has.
fn run_with_files(
    bed: &Bed,
    session: &SessionSpec,
    reporter: &mut Reporter,
) -> Result<(Vec<JobResult>, QemuMachine)> {
    let Some(linux) = &bed.linux else {
        let mode = session.guests.first().map(|guest| guest.mode);
        return Err(Error::NoTools {
            mode: mode.unwrap_or(GuestMode::PvDomu),
            why: NO_TOOLS.into(),
        });
    };
    for guest in &session.guests {
        bed.fresh_log_dir(&guest.name)?;
    }
    let dir = bed.log_dir(session.name)?;
    let machine = machine_of(bed, linux, session, &dir)?;
    reporter.step(
        format!("booting Xen {} with a Linux dom0", bed.xen),
        session.guests.first().map_or("", |guest| guest.name.as_str()),
    );
    let mut machine = QemuMachine::start(&machine, &dir, reporter)?;
    let mut watch =
        Watch { session, started: Vec::new(), finished: Vec::new(), ready: false, streamed: 0 };
    let (report, broken) = loop {
        let reading = Instant::now();
        let ended = machine.has_ended();
        let report = SessionReport::parse(&machine.serial(crate::boot::CONTROL));
        watch.follow(&report, machine.elapsed(), reporter);
        if report.done || watch.probe_is_up(&report) {
            break (report, None);
        }
        if let Some(why) = broken(&mut machine, ended) {
            break (report, Some(why));
        }
        let waits_for_gdb = session.guests.iter().any(|guest| guest.gdb);
        if !report.ready && !waits_for_gdb && machine.elapsed() > LINUX_LIMIT {
            break (report, Some(End::Lost("the Linux dom0 did not come up in time".to_owned())));
        }
        reporter.tick();
        pause(reading);
    };
    let elapsed = machine.elapsed();
    Ok((watch.results(&report, broken.as_ref(), elapsed, &dir), machine))
}

/// Writes what the machine loads into `dir`, and returns the machine.
fn machine_of(
    bed: &Bed,
    linux: &LinuxDom0,
    session: &SessionSpec,
    dir: &Path,
) -> Result<MachineSpec> {
    let mut initramfs =
        fs::read(&linux.initramfs).map_err(|e| Error::file("reading", &linux.initramfs, e))?;
    initramfs.extend(pack(&session.guests, &bed.context.image, &bed.context.root)?);
    write(&dir.join("initramfs"), &initramfs)?;
    fs::copy(&linux.kernel, dir.join("vmlinuz"))
        .map_err(|e| Error::file("copying", &linux.kernel, e))?;
    let shaky = |guest: &Guest| Threads::may_lose_a_wakeup(guest.mode, guest.vcpus);
    let mut guests = session.guests.iter();
    let has_iommu = guests
        .clone()
        .any(|guest| !guest.passed.is_empty() && guest.pass_fault != Some(PassFault::NoIommu));
    let devices = guests.clone().map(|guest| &guest.devices).find(|it| **it != Devices::default());
    Ok(MachineSpec {
        hypervisor: resolve(&bed.hypervisor)?,
        xen_args: for_linux(has_iommu, &bed.context.settings.xen_args),
        modules: vec![
            ("vmlinuz".to_owned(), "console=hvc0 quiet panic=-1".to_owned()),
            ("initramfs".to_owned(), String::new()),
        ],
        memory: session.mib(),
        low_memory: guests.clone().find_map(|guest| guest.low_memory),
        // With two processors, a Linux dom0 on an emulated IOMMU stood still for 60 s in one boot of two.
        cpus: if has_iommu { 1 } else { 2 },
        clock: MachineClock::Time,
        threads: if guests.clone().any(shaky) { Threads::OneWithTimers } else { Threads::Each },
        iommu: has_iommu,
        edu: guests.clone().any(|guest| guest.passed.contains(&PassedDevice::Edu)),
        devices: devices.cloned().unwrap_or_default(),
        report_port: true,
        limit: session.guests.iter().fold(LINUX_LIMIT, |sum, guest| sum + guest.limit + JOB_EXTRA),
        gdb: guests.any(|guest| guest.gdb),
    })
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
    if machine.has_halted() {
        return Some(End::Lost(format!("under the Linux dom0, {SILENT_HALT}")));
    }
    machine.is_overdue().then(|| End::Lost("the whole boot took too long".to_owned()))
}

/// Says what goes on with a job.
fn phase(job: &JobReport) -> String {
    let doing = match (job.running, &job.end) {
        (false, None) => "xl create",
        (true, None) => "the guest runs",
        (_, Some(_)) if job.finished => "dom0 has sent the logs",
        (_, Some(_)) => "the guest has ended, and dom0 sends the logs",
    };
    format!("{}: {doing}", job.name)
}

/// Follows the jobs as they come and go.
struct Watch<'a> {
    session: &'a SessionSpec,
    started: Vec<Duration>,
    finished: Vec<Duration>,
    ready: bool,
    /// How many lines of the last job's console were printed while it ran.
    streamed: usize,
}

impl Watch<'_> {
    fn follow(&mut self, report: &SessionReport, now: Duration, reporter: &mut Reporter) {
        if report.ready && !self.ready {
            self.ready = true;
            reporter.say("Linux and Xen's daemons are up");
        }
        for (index, job) in report.jobs.iter().enumerate() {
            if index == self.started.len() {
                self.started.push(now);
                self.streamed = 0;
                let next = self
                    .session
                    .guests
                    .get(index + 1)
                    .map_or("the verdict", |guest| guest.name.as_str());
                reporter.step(format!("{}: xl create", job.name), next);
            }
            if index + 1 == report.jobs.len() {
                reporter.phase(&phase(job));
                let new = job.live.get(self.streamed..).unwrap_or_default();
                new.iter().for_each(|line| reporter.line(&format!("  | {line}")));
                self.streamed = job.live.len();
            }
            if index == self.finished.len() && job.finished {
                self.finished.push(now);
                if let Some(command) = job.section("command").first() {
                    let end = job.end.as_ref().map_or_else(String::new, End::describe);
                    reporter.say(&format!("{}: `{command}`; the guest {end}", job.name));
                }
            }
        }
    }

    fn probe_is_up(&self, report: &SessionReport) -> bool {
        let last = self.session.guests.last().is_some_and(|guest| guest.goal == Goal::Probe);
        last && report.jobs.len() == self.session.guests.len()
            && report.jobs.last().is_some_and(|job| job.finished)
    }

    fn results(
        self,
        report: &SessionReport,
        broken: Option<&End>,
        now: Duration,
        machine_dir: &Path,
    ) -> Vec<JobResult> {
        let why = broken.cloned().unwrap_or_else(|| End::Lost("dom0 did not report it".to_owned()));
        let guests = self.session.guests.iter().enumerate();
        guests
            .map(|(index, guest)| {
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
                let machine_dir = machine_dir.to_owned();
                JobResult { guest: guest.clone(), report: told, end, seconds, machine_dir }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_says_what_a_job_does() {
        let mut text = "begin x\n".to_owned();
        let mut after = |more: &str| {
            text.push_str(more);
            phase(&SessionReport::parse(&text).jobs[0])
        };
        assert_eq!(after("section create\n|Parsing\nend\n"), "x: xl create");
        assert_eq!(after("running\n>hello\n"), "x: the guest runs");
        assert!(after("end-of-domain shutdown 0\nsection console\n").contains("dom0 sends"));
        assert_eq!(after("end\nfinish\n"), "x: dom0 has sent the logs");
    }
}
