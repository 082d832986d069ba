//! `bed driver-domain`: does a driver in a PV domU move data by a device that dom0 passes to it?
//!
//! A Linux dom0 with an IOMMU makes the device assignable, and `xl create` passes it to the image.

use std::sync::Arc;
use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::domu::DRIVER_DOMAIN;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::{GuestVerdict, PassedDevice};
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::Bed;

/// What must have passed in the domU with the `edu` device.
const EDU: [&str; 6] = [
    "pci-devices",
    "pci-other-memory-refused",
    "edu-found",
    "edu-dma-round-trip",
    "edu-dma-coherent-buffer",
    "accounts-balanced",
];

/// What the kernel says at its end, once the backend has unmapped the page.
const CLOSED: &str = "pcifront: closed, and its page is no longer granted";

/// A guest takes seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// Tries every guest on each Xen and prints the last line.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let beds = context.beds(&mut reporter)?;
    let mut parts = Vec::new();
    for bed in &beds {
        parts.extend(self::parts(bed)?);
    }
    parallel::run(parts, &mut reporter);
    reporter.close(&context.settings.target)
}

/// Returns the parts on one Xen.
pub fn parts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    let guests = vec![edu("driver-domain-edu")];
    Ok(vec![expected::domus(bed, "linux-dom0-passes", guests)])
}

/// Returns the domU of the configuration, with the `edu` device.
fn edu(label: &str) -> Expectation {
    let good = Expectation::success(GuestMode::PvDomu, label, KernelArgs::default(), LIMIT);
    Expectation { passed: EDU.to_vec(), words: CLOSED, ..good }.with(|guest| {
        guest.config = Some(DRIVER_DOMAIN);
        guest.passed = vec![PassedDevice::Edu];
    })
}
