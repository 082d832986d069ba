//! Reads a guest's buffer from below Xen. The guest's own view of its memory proves nothing; the bytes
//! in the machine's memory at the address that it prints do.

mod check;
mod device;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::boot::{Dom0Boot, QemuMachine};
use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::domu::{self, SessionSpec};
use crate::error::{Error, Result};
use crate::guest::{Goal, Guest, GuestVerdict, PROBE, ProbeClaim, ProbeRequest};
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::{Bed, NO_TOOLS, resolve, write};

pub use device::device;

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
    pub fn note(&self, reporter: &mut Reporter) {
        let name = format!("witness of {}", self.mode);
        match self.result() {
            Ok(words) => reporter.note(&format!("{name}: {words}"), Ok(())),
            Err(words) => reporter.note(&name, Err(words)),
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

/// A seed that no earlier boot can have left in memory.
pub fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 & 0x0fff_ffff_ffff_ffff
}

/// `bed witness`: reads the buffers of a dom0 and of a domU, and finds the writes of a device.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let bed = context.bed(&mut reporter)?;
    let parts = vec![dom0(&bed)?, domu(&bed)?, device(&bed)];
    parallel::run(parts, &mut reporter);
    reporter.close(&context.settings.target)
}

/// Returns a part that boots the image as PV dom0 with a probe and checks the buffer.
pub fn dom0(bed: &Bed) -> Result<SuitePart<'_>> {
    let request = request(bed);
    let guest = probing(GuestMode::PvDom0, request)?;
    Ok(SuitePart::new(guest.need(), move |reporter| {
        let doing = "witness: booting the image as dom0 with a probe";
        reporter.step(doing, "reading the machine's memory");
        let dir = bed.fresh_log_dir(&guest.name)?;
        let mut boot =
            Dom0Boot::run(bed, &guest, reporter, |line| ProbeClaim::parse(line).is_ok())?;
        write(&dir.join("console.log"), boot.log.guest.join("\n").as_bytes())?;
        let lines = &boot.log.guest;
        testify(guest.mode, lines, request, &mut boot.machine, &dir)?.note(reporter);
        Ok(())
    }))
}

/// Returns a part that boots the image as PV domU with a probe and checks the buffer.
fn domu(bed: &Bed) -> Result<SuitePart<'_>> {
    let request = request(bed);
    let guests = vec![domu_guest(request)?];
    let session = SessionSpec { name: "linux-dom0-witness", guests };
    Ok(SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            reporter.skip("witness of pv-domu", NO_TOOLS);
            return Ok(());
        }
        let (results, mut machine) = domu::run(bed, &session, reporter)?;
        let lines = results.first().map(|result| result.report.guest_lines()).unwrap_or_default();
        let dir = bed.log_dir(session.name)?;
        testify(GuestMode::PvDomu, &lines, request, &mut machine, &dir)?.note(reporter);
        Ok(())
    }))
}

/// Returns what the command line asks the guest for, with a seed of its own.
fn request(bed: &Bed) -> ProbeRequest {
    ProbeRequest { seed: fresh_seed(), ..bed.context.settings.probe }
}

/// Returns a guest that allocates what `request` asks for, and holds.
fn probing(mode: GuestMode, request: ProbeRequest) -> Result<Guest> {
    let ProbeRequest { order, bits, seed } = request;
    let args = KernelArgs::new(&format!("selftest=none probe={order}:{bits} seed={seed}"))?;
    let guest = Guest::new(mode, format!("witness-{mode}"), args, LIMIT);
    Ok(Guest { goal: Goal::Probe, ..guest })
}

/// Returns the PV domU with a probe, which must be the last of its session.
pub fn domu_guest(request: ProbeRequest) -> Result<Guest> {
    probing(GuestMode::PvDomu, request)
}

/// Finds the guest's claim and holds it against the memory of the machine, which still runs.
pub fn testify(
    mode: GuestMode,
    lines: &[String],
    request: ProbeRequest,
    machine: &mut QemuMachine,
    dir: &Path,
) -> Result<Testimony> {
    let said = lines.iter().find(|line| line.starts_with(PROBE));
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
    let path = resolve(dir)?.join("memory.bin");
    machine.monitor.save_memory(address, size, &path)?;
    fs::read(&path).map_err(|e| Error::file("reading", &path, e))
}
