//! The runs of `bench`, in order.

use super::{figures, peer, rows};
use crate::boot::DEFAULT_MIB;
use crate::context::SuiteContext;
use crate::error::Result;
use crate::findings::Findings;
use crate::guest::GuestVerdict;
use crate::parallel::{self, Need, SuitePart};
use crate::progress::ProgressLog;
use crate::setup::{Bed, LinuxPeer};

/// Prints what was measured on the chosen Xen and the last line.
pub fn run(context: &SuiteContext, progress: &mut ProgressLog) -> Result<GuestVerdict> {
    let bed = context.bed(progress)?;
    let peer = LinuxPeer::prepare(&context.options, progress)?;
    let mut parts = vec![linux(context, &bed, &peer)];
    parts.extend(figures::parts(context, &bed)?);
    let mut findings = Findings::default();
    parallel::run(parts, progress, &mut findings)?;
    Ok(findings.close())
}

/// Boots of Linux take longer than those of the image, by this factor.
const LINUX_LIMIT: u32 = 5;

fn linux<'p>(context: &'p SuiteContext, bed: &'p Bed, peer: &'p LinuxPeer) -> SuitePart<'p> {
    SuitePart::new(Need::machine(1, DEFAULT_MIB).with_linux(), move |progress, findings| {
        let rows = rows::all();
        let entries = rows::list(rows.iter().filter_map(|row| row.linux.as_ref()));
        progress.step(format!("Linux on Xen {}", bed.xen), "the image");
        let dir = bed.log_dir("linux-bench")?;
        let limit = context.cli.timeout * LINUX_LIMIT;
        let lines = peer::run(bed, peer, (&entries, 0), (&dir, limit), progress)?;
        for line in lines.iter().flatten() {
            let (entry, ticks) = (&line.entry, line.ticks());
            progress.line(&format!("{entry}: {ticks} ticks, {} exchanged", line.exchanged));
        }
        findings.note(progress, &format!("Linux on Xen {}", bed.xen), lines.map(drop));
        Ok(())
    })
}
