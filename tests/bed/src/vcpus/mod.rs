//! `bed vcpus`: the image with one and with several vCPUs, on each Xen, and a long storm.

mod guests;

use std::sync::Arc;

use crate::context::Context;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::GuestVerdict;
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::Bed;

use guests::Guests;

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

/// Returns the parts for every guest on one Xen.
pub fn parts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    let Guests { dom0s, domus } = guests::of(bed.context.settings.timeout)?;
    let mut parts: Vec<_> = dom0s.into_iter().map(|guest| expected::dom0(bed, guest)).collect();
    // In a machine of their own: when QEMU stops one guest, it stops all guests of its machine.
    let (shaky, firm): (Vec<_>, Vec<_>) = domus.into_iter().partition(Expectation::may_stand_still);
    parts.push(expected::domus(bed, "linux-dom0-vcpus", firm));
    parts.push(expected::domus(bed, "linux-dom0-one-thread", shaky));
    Ok(parts)
}
