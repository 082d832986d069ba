//! Driver domains that are configured wrongly: each must get an error that says what is wrong.

use super::domain::{LIMIT, domain};
use crate::choice::{GuestMode, KernelArgs};
use crate::domu::DRIVER_DOMAIN;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::{GuestVerdict, PassFault, PassedDevice};
use crate::parallel::SuitePart;
use crate::setup::Bed;

/// Returns the parts with all wrong configurations.
pub fn parts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    let guests = vec![no_device()?, not_assignable()?, no_backend()?];
    Ok(vec![
        expected::domus(bed, "linux-dom0-passes-wrongly", guests),
        expected::domus(bed, "linux-dom0-without-iommu", vec![no_iommu()?]),
    ])
}

/// A domU whose configuration has no device.
fn no_device() -> Result<Expectation> {
    let args = KernelArgs::new("selftest=pci-devices")?;
    let good = Expectation::success(GuestMode::PvDomu, "no-device", args, LIMIT);
    let words = "no PCI device is passed to this domU; name one in pci=[…]";
    Ok(Expectation { verdict: GuestVerdict::Error, words, ..good })
}

/// A domU with a device that the machine does not have, as the shipped configuration names it.
fn not_assignable() -> Result<Expectation> {
    let label = "driver-domain-not-assignable";
    let good = Expectation::success(GuestMode::PvDomu, label, KernelArgs::default(), LIMIT);
    let failed = Expectation { verdict: GuestVerdict::Error, words: "is not assignable", ..good };
    Ok(failed.with(|guest| guest.config = Some(DRIVER_DOMAIN)))
}

/// A domU whose backend does not connect, because dom0 takes it from its driver before the guest runs.
fn no_backend() -> Result<Expectation> {
    let words = "the PCI backend in dom0 does not connect: its state is";
    faulty("driver-domain-no-backend", PassFault::NoBackend, words)
}

/// A domU with a device on a machine without an IOMMU.
fn no_iommu() -> Result<Expectation> {
    let words = "passthrough not supported on this platform";
    faulty("driver-domain-no-iommu", PassFault::NoIommu, words)
}

/// Returns a domU to which a device is passed, on a machine that lacks something for that.
fn faulty(label: &str, fault: PassFault, words: &'static str) -> Result<Expectation> {
    let guest = domain(label, "edu-found", &[], vec![PassedDevice::Edu])?;
    let failed = Expectation { verdict: GuestVerdict::Error, words, passed: Vec::new(), ..guest };
    Ok(failed.with(|guest| guest.pass_fault = Some(fault)))
}
