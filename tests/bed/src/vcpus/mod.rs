//! `bed vcpus`: the image with one and with several vCPUs, on each Xen, and a long storm.

mod guests;

use crate::context::SuiteContext;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::findings::Findings;
use crate::guest::GuestVerdict;
use crate::parallel::{self, SuitePart};
use crate::progress::ProgressLog;
use crate::setup::Bed;

use guests::Guests;

/// Tries every guest on each Xen and prints the last line.
pub fn run(context: &SuiteContext, progress: &mut ProgressLog) -> Result<GuestVerdict> {
    let beds = context.beds(progress)?;
    let mut parts = Vec::new();
    for bed in &beds {
        parts.extend(self::parts(context, bed)?);
    }
    let mut findings = Findings::default();
    parallel::run(parts, progress, &mut findings)?;
    println!();
    Ok(findings.close())
}

/// Returns the parts for every guest on one Xen.
pub fn parts<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<Vec<SuitePart<'p>>> {
    let Guests { dom0s, domus } = guests::of(context.cli.timeout)?;
    let mut parts: Vec<_> =
        dom0s.into_iter().map(|guest| expected::dom0(context, bed, guest)).collect();
    // In a machine of their own: when QEMU stops one guest, it stops all guests of its machine.
    let (shaky, firm): (Vec<_>, Vec<_>) = domus.into_iter().partition(Expectation::may_stand_still);
    parts.push(expected::domus(context, bed, "linux-dom0-vcpus", firm));
    parts.push(expected::domus(context, bed, "linux-dom0-one-thread", shaky));
    Ok(parts)
}
