//! The drivers in the image as dom0.

use std::time::Duration;

use super::costs::CostTable;
use super::kinds::Driver;
use super::setup::DriverSetup;
use crate::boot::Dom0Boot;
use crate::choice::{GuestMode, KernelArgs};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::parallel::SuitePart;
use crate::setup::Bed;

/// MiB of the machine, and of dom0: Xen serves dom0 from the top and keeps memory that a device with
/// 28 address bits reaches.
const MACHINE_MIB: u32 = 1024;
const DOM0_MIB: u32 = 512;

/// What the name of such a guest ends with.
const LABEL: &str = "drivers";

/// Returns a part that tries drivers in one guest.
pub fn part<'b>(
    bed: &'b Bed,
    mode: GuestMode,
    drivers: &[Driver],
    table: &CostTable,
) -> Result<SuitePart<'b>> {
    let table = table.clone();
    let setup = DriverSetup::new(drivers)?;
    let expected = expectation(mode, &setup, bed.context.settings.timeout)?;
    Ok(SuitePart::new(expected.guest.need(), move |reporter| {
        let guest = &expected.guest;
        let name = format!("{} on Xen {}", guest.name, bed.xen);
        reporter.step(&name, "what the devices have");
        let devices = setup.prepare(&bed.fresh_log_dir(&guest.name)?)?;
        let outcome = Dom0Boot::judged_with_files(bed, guest, reporter)?;
        reporter.note(&name, expected.met_by(&outcome));
        let costs = table.add(&bed.xen, &mode.to_string(), &outcome.console);
        devices.note(&name, mode, costs, reporter)
    }))
}

fn expectation(mode: GuestMode, setup: &DriverSetup, limit: Duration) -> Result<Expectation> {
    let text = format!("selftest={},accounts-balanced {}", setup.patterns(), setup.options());
    let good = Expectation::success(mode, LABEL, KernelArgs::new(&text)?, limit);
    let mut passed = setup.passed();
    passed.push("accounts-balanced");
    Ok(Expectation { passed, ..good }.with(|guest| {
        (guest.memory, guest.dom0_memory) = (Some(MACHINE_MIB), Some(DOM0_MIB));
        guest.devices = setup.devices();
    }))
}
