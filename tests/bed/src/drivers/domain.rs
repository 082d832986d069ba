//! The drivers in the image as a driver domain: a PV domU, on devices that a Linux dom0 with an IOMMU
//! passes to it.

use std::time::Duration;

use super::costs::CostTable;
use super::kinds::Driver;
use super::setup::DriverSetup;
use crate::choice::{GuestMode, KernelArgs};
use crate::domu::{self, DRIVER_DOMAIN};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::PassedDevice;
use crate::parallel::SuitePart;
use crate::setup::{Bed, NO_TOOLS};

/// The name of the session, and of its directory.
const SESSION: &str = "linux-dom0-passes";

/// What the table calls such a guest.
const MODE: &str = "pv driver domain";

/// What must have passed with each device.
const PASSED: [&str; 3] = ["pci-devices", "pci-other-memory-refused", "accounts-balanced"];

/// What must have passed with the `edu` device.
const EDU: [&str; 6] = [
    "edu-found",
    "edu-dma-above-mask",
    "edu-dma-round-trip",
    "edu-dma-coherent-buffer",
    "edu-dma-typed-ring",
    "edu-dma-in-place",
];

/// What the kernel says at its end, once the backend has unmapped the page.
const CLOSED: &str = "pcifront: closed, and its page is no longer granted";

/// A guest takes seconds, and waits for its backend for 60 s at most.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Returns a part that tries, in a driver domain, all drivers whose devices can be passed, and that then
/// makes the domains of `others`.
pub fn part<'b>(
    bed: &'b Bed,
    table: &CostTable,
    others: Vec<Expectation>,
) -> Result<SuitePart<'b>> {
    let drivers: Vec<Driver> = passed_devices().map(|(driver, _)| driver).collect();
    let table = table.clone();
    let setup = DriverSetup::new(&drivers)?;
    let mut expected = vec![with_drivers(&setup)?];
    expected.extend(others);
    let session = expected::session(SESSION, &expected);
    Ok(SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            reporter.skip(&format!("driver domains on Xen {}", bed.xen), NO_TOOLS);
            return Ok(());
        }
        let devices = setup.prepare(&bed.fresh_log_dir(SESSION)?)?;
        let results = domu::judged_with_files(bed, &session, reporter)?;
        expected::note_all(bed, &expected, &results, reporter);
        let console = results.first().map_or(&[][..], |(outcome, _)| &outcome.console);
        let name = format!("driver domain on Xen {}", bed.xen);
        let costs = table.add(&bed.xen, MODE, console);
        devices.note(&name, GuestMode::PvDomu, costs, reporter)
    }))
}

/// Iterates over the drivers whose devices dom0 passes to a domU.
fn passed_devices() -> impl Iterator<Item = (Driver, PassedDevice)> {
    Driver::ALL.into_iter().filter_map(|driver| Some((driver, driver.passed_device()?)))
}

/// Returns a driver domain with devices, in which the self-tests of these patterns run.
pub fn domain(
    label: &str,
    patterns: &str,
    passed: &[&'static str],
    devices: Vec<PassedDevice>,
) -> Result<Expectation> {
    let args = KernelArgs::new(&format!("selftest=pci-*,{patterns},accounts-balanced"))?;
    let good = Expectation::success(GuestMode::PvDomu, label, args, LIMIT);
    let passed = PASSED.iter().chain(passed).copied().collect();
    Ok(Expectation { passed, words: CLOSED, ..good }.with(|guest| {
        guest.config = Some(DRIVER_DOMAIN);
        guest.passed = devices;
    }))
}

/// Returns a driver domain with the `edu` device.
pub fn with_edu() -> Result<Expectation> {
    domain("driver-domain-edu", "edu-*", &EDU, vec![PassedDevice::Edu])
}

/// Returns a driver domain with the devices of the drivers.
fn with_drivers(setup: &DriverSetup) -> Result<Expectation> {
    let devices = passed_devices().map(|(_, device)| device).collect();
    let domain = domain("driver-domain", &setup.patterns(), &setup.passed(), devices)?;
    let args = KernelArgs::new(&format!("{} {}", domain.guest.args.as_str(), setup.options()))?;
    Ok(domain.with(|guest| {
        guest.args = args;
        guest.devices = setup.devices();
    }))
}
