//! `bed drivers`: do drivers that others wrote, on the library's adapters, move data between real devices and
//! memory that Xen exchanged?
//!
//! The devices are QEMU's, which do not know Xen: as PV dom0 they take machine addresses, as PVH dom0 guest
//! addresses, which the IOMMU translates. The bed makes the content of disks. The guest checks it, and the
//! bed checks it again after the guest has ended.
//!
//! | file | what it has |
//! |---|---|
//! | `kinds` | the drivers: which self-tests try each, with which device |
//! | `content` | the words of disks and transfers |
//! | `disk` | what a disk contains before and after |
//! | `server` | the TCP server with which a network card exchanges data |
//! | `setup` | all of that for a guest |
//! | `dom0` | the drivers in the image as dom0 |
//! | `domain` | the drivers in the image as a driver domain |
//! | `refusals` | driver domains that are configured wrongly |
//! | `restarts` | a driver domain, again and again, on a host with fragmented low memory |
//! | `costs` | what each driver moved and cost, as a table |

mod content;
mod costs;
mod disk;
mod dom0;
mod domain;
mod kinds;
mod refusals;
mod restarts;
mod server;
mod setup;

use std::sync::Arc;

use crate::choice::GuestMode;
use crate::context::Context;
use crate::error::Result;
use crate::guest::GuestVerdict;
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::Bed;

pub use costs::CostTable;
use kinds::Driver;

/// The modes in which the image has the machine's devices.
const MODES: [GuestMode; 2] = [GuestMode::PvDom0, GuestMode::PvhDom0];

/// Tries all drivers on each Xen, prints the table and the last line.
pub fn run(context: &Arc<Context>, reporter: Reporter) -> Result<GuestVerdict> {
    try_these(context, reporter, parts)
}

/// Tries the drivers in a driver domain alone.
pub fn domain(context: &Arc<Context>, reporter: Reporter) -> Result<GuestVerdict> {
    try_these(context, reporter, domains)
}

/// Tries the driver for virtio disks alone.
pub fn virtio(context: &Arc<Context>, reporter: Reporter) -> Result<GuestVerdict> {
    try_these(context, reporter, |bed, table| of_bed(bed, &[Driver::Virtio], table))
}

fn try_these(
    context: &Arc<Context>,
    mut reporter: Reporter,
    parts: impl for<'b> Fn(&'b Bed, &CostTable) -> Result<Vec<SuitePart<'b>>>,
) -> Result<GuestVerdict> {
    let beds = context.beds(&mut reporter)?;
    let table = CostTable::default();
    let mut all = Vec::new();
    for bed in &beds {
        all.extend(parts(bed, &table)?);
    }
    parallel::run(all, &mut reporter);
    table.print();
    reporter.close(&context.settings.target)
}

/// Returns the parts that try all drivers in every mode on one Xen. They add to the table.
pub fn parts<'b>(bed: &'b Bed, table: &CostTable) -> Result<Vec<SuitePart<'b>>> {
    let mut parts = of_bed(bed, &Driver::ALL, table)?;
    parts.extend(domains(bed, table)?);
    Ok(parts)
}

/// Returns the parts with driver domains on one Xen.
fn domains<'b>(bed: &'b Bed, table: &CostTable) -> Result<Vec<SuitePart<'b>>> {
    let others = vec![domain::with_edu()?];
    let mut parts = vec![domain::part(bed, table, others)?, restarts::part(bed)?];
    parts.extend(refusals::parts(bed)?);
    Ok(parts)
}

fn of_bed<'b>(bed: &'b Bed, drivers: &[Driver], table: &CostTable) -> Result<Vec<SuitePart<'b>>> {
    MODES.into_iter().map(|mode| dom0::part(bed, mode, drivers, table)).collect()
}

/// Returns the parts that `bed test` has time for: dom0s with all drivers, so that each mode and each Xen
/// has one, and a driver domain.
pub fn some_parts<'b>(beds: &'b [Bed], table: &CostTable) -> Result<Vec<SuitePart<'b>>> {
    let chosen = beds.iter().cycle().zip(MODES.into_iter().cycle());
    let count = beds.len().max(MODES.len());
    let part = |(bed, mode)| dom0::part(bed, mode, &Driver::ALL, table);
    let mut parts: Vec<_> = chosen.take(count).map(part).collect::<Result<_>>()?;
    if let Some(bed) = beds.first() {
        parts.push(domain::part(bed, table, Vec::new())?);
    }
    Ok(parts)
}
