//! Boots the image as dom0 and has it measure.

use super::line::{BenchLine, measured};
use crate::boot::{Dom0Boot, MachineClock};
use crate::choice::{GuestMode, KernelArgs};
use crate::error::Result;
use crate::guest::Guest;
use crate::report::{GuestOutcome, Reporter};
use crate::setup::Bed;

/// What a boot of the image measured, and how it ended.
pub type Measured = (std::result::Result<Vec<BenchLine>, String>, GuestOutcome);

/// Boots the image in a machine with one CPU whose clock counts instructions.
pub fn run(bed: &Bed, entries: &str, name: &str, reporter: &mut Reporter) -> Result<Measured> {
    let settings = &bed.context.settings;
    let args = KernelArgs::new(&format!("bench={entries} {}", settings.args.as_str()))?;
    let guest = Guest {
        processors: Some(1),
        clock: MachineClock::Instructions,
        ..Guest::new(GuestMode::PvDom0, name, args, settings.timeout)
    };
    let outcome = Dom0Boot::judged(bed, &guest, reporter)?;
    Ok((measured(&outcome.console.join("\n")), outcome))
}
