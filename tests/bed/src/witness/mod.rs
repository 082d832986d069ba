//! Reads a guest's buffer from below Xen. The guest's own view of its memory proves nothing; the bytes
//! in the machine's memory at the address that it prints do.

mod check;
mod device;
mod probe;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::boot::{DEFAULT_MIB, Dom0Boot, Dom0Spec, QemuMachine};
use crate::choice::{GuestMode, KernelArgs};
use crate::context::SuiteContext;
use crate::domu::{self, DomuJob, Goal, SessionSpec};
use crate::error::{Error, Result};
use crate::findings::Findings;
use crate::guest::GuestVerdict;
use crate::parallel::{self, Need, SuitePart};
use crate::progress::ProgressLog;
use crate::setup::{Bed, write};

pub use device::device;
pub use probe::{PREFIX, ProbeClaim, ProbeRequest};

/// What a witness found out about one guest.
#[derive(Clone, Debug)]
pub struct Testimony {
    /// The mode.
    pub mode: GuestMode,
    /// What the guest claims, or why there is no claim.
    pub claim: std::result::Result<ProbeClaim, String>,
    /// What is wrong, if anything.
    pub fault: Option<String>,
}

impl Testimony {
    /// Notes what was seen.
    pub fn note(&self, progress: &ProgressLog, findings: &mut Findings) {
        let name = format!("witness of {}", self.mode);
        match self.result() {
            Ok(words) => findings.note(progress, &format!("{name}: {words}"), Ok(())),
            Err(words) => findings.note(progress, &name, Err(words)),
        }
    }

    /// Returns what was seen, or what is wrong, in words.
    fn result(&self) -> std::result::Result<String, String> {
        match (&self.claim, &self.fault) {
            (Err(why), _) => Err(why.clone()),
            (Ok(claim), Some(fault)) => Err(format!("{fault} (the guest says `{claim}`)")),
            (Ok(claim), None) => Ok(format!("seen from below Xen: `{claim}`")),
        }
    }
}

/// How long a guest may take to its `probe:` line.
pub const LIMIT: Duration = Duration::from_secs(90);

/// The kernel command line that asks for a probe, and for nothing else.
pub fn probe_args(request: ProbeRequest) -> Result<KernelArgs> {
    let ProbeRequest { order, bits, seed } = request;
    KernelArgs::new(&format!("selftest=none probe={order}:{bits} seed={seed}"))
}

/// A seed that no earlier boot can have left in memory.
pub fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 & 0x0fff_ffff_ffff_ffff
}

/// `bed witness`: reads the buffers of a dom0 and of a domU, and finds the writes of a device.
pub fn run(context: &SuiteContext, progress: &mut ProgressLog) -> Result<GuestVerdict> {
    let bed = context.bed(progress)?;
    let parts = vec![dom0(context, &bed), domu(context, &bed)?, device(context, &bed)];
    let mut findings = Findings::default();
    parallel::run(parts, progress, &mut findings)?;
    Ok(findings.close())
}

/// Returns a part that boots the image as PV dom0 with a probe and checks the buffer.
pub fn dom0<'p>(context: &'p SuiteContext, bed: &'p Bed) -> SuitePart<'p> {
    SuitePart::new(Need::machine(1, DEFAULT_MIB), move |progress, findings| {
        let request = ProbeRequest { seed: fresh_seed(), ..context.cli.probe };
        let dir = bed.log_dir("witness-pv-dom0")?;
        let spec = Dom0Spec::new(GuestMode::PvDom0, probe_args(request)?, LIMIT);
        progress.step(
            "witness: booting the image as dom0 with a probe",
            "reading the machine's memory",
        );
        let mut boot = Dom0Boot::run(bed, &spec, &context.image, &dir, progress, is_claim)?;
        write(&dir.join("console.log"), boot.log.guest.join("\n").as_bytes())?;
        let lines = &boot.log.guest;
        testify(GuestMode::PvDom0, lines, request, &mut boot.machine, &dir)?
            .note(progress, findings);
        Ok(())
    })
}

/// Returns a part that boots the image as PV domU with a probe and checks the buffer.
fn domu<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<SuitePart<'p>> {
    let request = ProbeRequest { seed: fresh_seed(), ..context.cli.probe };
    let jobs = vec![domu_job(request)?];
    let session = SessionSpec {
        jobs,
        low_memory: None,
        root: context.root.clone(),
        name: "linux-dom0-witness",
    };
    Ok(SuitePart::new(session.need(), move |progress, findings| {
        let (results, mut machine) = domu::run(bed, &session, &context.image, progress)?;
        let lines = results.first().map(|result| result.report.guest_lines()).unwrap_or_default();
        let dir = bed.log_dir(session.name)?;
        testify(GuestMode::PvDomu, &lines, request, &mut machine, &dir)?.note(progress, findings);
        Ok(())
    }))
}

/// The job of a probe in a PV domU, which must be the last of its session.
pub fn domu_job(request: ProbeRequest) -> Result<DomuJob> {
    Ok(DomuJob {
        name: "witness-pv-domu".to_owned(),
        mode: GuestMode::PvDomu,
        memory: None,
        max_memory: None,
        reduced_to: None,
        vcpus: None,
        args: probe_args(request)?,
        limit: LIMIT,
        goal: Goal::Probe,
    })
}

fn is_claim(line: &str) -> bool {
    line.starts_with(PREFIX) && ProbeClaim::parse(line).is_ok()
}

/// Finds the guest's claim and holds it against the memory of the machine, which still runs.
pub fn testify(
    mode: GuestMode,
    lines: &[String],
    request: ProbeRequest,
    machine: &mut QemuMachine,
    dir: &Path,
) -> Result<Testimony> {
    let said = lines.iter().find(|line| line.starts_with(PREFIX));
    let claim = match said {
        None => {
            let last = lines.iter().rev().find(|line| !line.trim().is_empty());
            let last = last.map_or("nothing", String::as_str);
            Err(format!("the guest printed no `probe:` line; its last words: `{last}`"))
        }
        Some(line) => ProbeClaim::parse(line),
    };
    let mut testimony = Testimony { mode, claim, fault: None };
    let Ok(claim) = &testimony.claim else { return Ok(testimony) };
    testimony.fault = match check::claim(claim, request) {
        Err(fault) => Some(fault.to_string()),
        Ok(size) => {
            let dump = dump(machine, claim.maddr, size, dir)?;
            check::memory(claim, &dump).err().map(|fault| fault.to_string())
        }
    };
    Ok(testimony)
}

fn dump(machine: &mut QemuMachine, address: u64, size: u64, dir: &Path) -> Result<Vec<u8>> {
    let dir = fs::canonicalize(dir).map_err(|e| Error::file("resolving", dir, e))?;
    let path = dir.join("memory.bin");
    machine.monitor.save_memory(address, size, &path)?;
    fs::read(&path).map_err(|e| Error::file("reading", &path, e))
}
