//! `bed test`: the image in every mode, guests that misbehave, wrong input, the witness, guests that
//! are saved and restored, the trace as others see it, several vCPUs, and drivers that others wrote.
//!
//! Machines with a single vCPU run two at a time. Each domU mode has one boot of the Linux dom0, in
//! which all its domains are made; a dom0 of our own boots in seconds.

mod guests;
mod traced;
mod wrong_input;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::domu::{self, SessionSpec};
use crate::drivers;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::{GuestVerdict, ProbeRequest};
use crate::low_memory;
use crate::modes;
use crate::own;
use crate::parallel::{self, SuitePart};
use crate::report::{GuestOutcome, Reporter};
use crate::saved;
use crate::setup::{Bed, NO_TOOLS, OtherKernels};
use crate::vcpus;
use crate::witness;

/// Runs everything and prints the last line.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let bed = context.bed(&mut reporter)?;
    let beds = context.beds(&mut reporter)?;
    reporter.step("wrong input", "the image as domU");
    wrong_input::check(&bed, &mut reporter)?;
    let others = match &bed.linux {
        Some(linux) => own::others::guests(&OtherKernels::prepare(linux, context, &mut reporter)?)?,
        None => Vec::new(),
    };
    // The long parts first, so that the short ones fill the time beside them.
    let mut parts = vec![
        domus(&bed, GuestMode::PvDomu, Vec::new(), "linux-dom0-pv")?,
        domus(&bed, GuestMode::PvhDomu, others, "linux-dom0-pvh")?,
    ];
    for bed in &beds {
        parts.push(traced::domus(bed, saved::guests()?)?);
    }
    let dom0s = [GuestMode::PvDom0, GuestMode::PvhDom0];
    parts.extend(modes::parts(&bed, &dom0s, &KernelArgs::default()));
    let guests = guests::dom0s()?.into_iter();
    parts.extend(guests.map(|guest| expected::dom0(&bed, guest)));
    parts.extend(traced::dom0s(&bed)?);
    parts.extend(low_memory::dom0s(&bed)?);
    parts.push(witness::dom0(&bed)?);
    parts.push(witness::device(&bed));
    let drivers = drivers::CostTable::default();
    parts.extend(drivers::some_parts(&beds, &drivers)?);
    // Machines that run alone come last.
    for bed in &beds {
        parts.extend(vcpus::parts(bed)?);
    }
    parallel::run(parts, &mut reporter);
    drivers.print();
    if let Some(faults) = fault_cases(Path::new("target/tmp/fault-cases")) {
        println!("\nbed: the host tests tried {faults} faults");
    }
    reporter.close(&context.settings.target)
}

/// Returns a part with a boot of the Linux dom0 for one domU mode: the image as configured, guests that
/// misbehave, `others`, and in PV the witness, which must be last.
fn domus<'p>(
    bed: &'p Bed,
    mode: GuestMode,
    others: Vec<Expectation>,
    name: &'static str,
) -> Result<SuitePart<'p>> {
    let mut expectations = guests::domus(mode)?;
    expectations.extend(others);
    let request = ProbeRequest { seed: witness::fresh_seed(), ..bed.context.settings.probe };
    let mut guests = vec![modes::guest(bed, mode, &KernelArgs::default())];
    guests.extend(expectations.iter().map(|expectation| expectation.guest.clone()));
    if mode == GuestMode::PvDomu {
        guests.push(witness::domu_guest(request)?);
    }
    let session = SessionSpec { name, guests };
    Ok(SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            reporter.skip(name, NO_TOOLS);
            return Ok(());
        }
        let (results, mut machine) = domu::run(bed, &session, reporter)?;
        if let Some(configured) = results.first() {
            reporter.judge(GuestOutcome::of_domu(bed, configured)?);
        }
        for (expectation, result) in expectations.iter().zip(results.iter().skip(1)) {
            expected::note(bed, expectation, &GuestOutcome::of_domu(bed, result)?, reporter);
        }
        for result in results.iter().skip(1 + expectations.len()) {
            let dir = bed.log_dir(&result.guest.name)?;
            let lines = result.report.guest_lines();
            let seen = witness::testify(result.guest.mode, &lines, request, &mut machine, &dir)?;
            seen.note(reporter);
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
