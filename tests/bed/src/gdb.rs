//! `bed gdb`: the image in a machine that waits for a debugger.

use std::sync::Arc;
use std::time::Duration;

use crate::choice::GuestMode;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::guest::{Guest, GuestVerdict};
use crate::modes;
use crate::parallel;
use crate::report::Reporter;

/// How long a debugger may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// Boots the image in the chosen mode, PV dom0 if none was chosen.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let mode = match context.settings.modes.as_deref() {
        None => GuestMode::PvDom0,
        Some([mode]) => *mode,
        Some(_) => return Err(Error::OneMode),
    };
    let bed = context.bed(&mut reporter)?;
    let guest = modes::guest(&bed, mode, &context.settings.args);
    let guest = Guest { gdb: true, limit: LIMIT, ..guest };
    reporter.line(&advice(mode));
    parallel::run(vec![modes::part(&bed, guest)], &mut reporter)?;
    reporter.close(&context.settings.target)
}

/// Says what to type in another terminal.
fn advice(mode: GuestMode) -> String {
    let symbol = "xen_contig::main";
    let when =
        if mode.is_dom0() { "Xen and the image boot" } else { "Xen, Linux and the image boot" };
    format!(
        "\nThe machine is stopped at its first instruction and waits for a debugger. In another \
         terminal:\n\n  gdb target/image/xen-contig.debug -ex 'target remote localhost:1234' \\\n    \
         -ex 'hbreak {symbol}' -ex continue\n\n{when}, and gdb stops at the image's first \
         function. Hardware breakpoints work from the start; others only after the image is \
         loaded. The time limit is an hour.\n"
    )
}
