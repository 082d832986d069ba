//! Boots the image as dom0 and has it measure.

use std::path::Path;

use super::line::{BenchLine, measured};
use crate::boot::{Dom0Boot, Dom0Spec, MachineClock};
use crate::choice::{GuestMode, KernelArgs};
use crate::context::SuiteContext;
use crate::error::Result;
use crate::outcome::GuestOutcome;
use crate::progress::ProgressLog;
use crate::setup::Bed;

/// What a boot of the image measured, and how it ended.
pub type Measured = (std::result::Result<Vec<BenchLine>, String>, GuestOutcome);

/// Boots the image in a machine with one CPU whose clock counts instructions.
pub fn run(
    context: &SuiteContext,
    bed: &Bed,
    entries: &str,
    dir: &Path,
    progress: &mut ProgressLog,
) -> Result<Measured> {
    let args = KernelArgs::new(&format!("bench={entries} {}", context.cli.args.as_str()))?;
    let spec = Dom0Spec {
        processors: Some(1),
        clock: MachineClock::Instructions,
        ..Dom0Spec::new(GuestMode::PvDom0, args, context.cli.timeout)
    };
    let mut boot = Dom0Boot::run(bed, &spec, &context.image, dir, progress, |_| false)?;
    boot.machine.stop();
    let lines = measured(&boot.log.guest.join("\n"));
    let seen = (&boot.log, &boot.end, boot.seconds);
    let exit = spec.args.expected_exit();
    Ok((lines, GuestOutcome::of_dom0(bed.xen, spec.mode, seen, exit, dir)?))
}
