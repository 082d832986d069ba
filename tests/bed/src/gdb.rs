//! `bed gdb`: a guest in a machine that waits for a debugger.

use std::sync::Arc;
use std::time::Duration;

use crate::choice::GuestMode;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::guest::{Goal, Guest, GuestVerdict};
use crate::modes;
use crate::own;
use crate::parallel;
use crate::report::Reporter;
use crate::settings::Settings;

/// How long a debugger may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// Checks that the command line names one mode, or a kernel of the user's own that can be booted.
pub fn check(settings: &Settings) -> Result<()> {
    let own = own::chosen(settings)?;
    mode(own.as_ref(), settings).map(drop)
}

/// Boots the image in the chosen mode, PV dom0 if none was chosen, or a kernel of the user's own.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let settings = &context.settings;
    let own = own::chosen(settings)?;
    let mode = mode(own.as_ref(), settings)?;
    own.iter().for_each(|guest| own::say_notices(guest, &reporter));
    let bed = context.bed(&mut reporter)?;
    let symbols = match (&settings.kernel, &settings.config) {
        (Some(kernel), _) => kernel.display().to_string(),
        (None, Some(_)) => "YOUR-KERNEL".to_owned(),
        (None, None) => "target/image/xen-contig.debug".to_owned(),
    };
    reporter.line(&advice(&symbols));
    let guest = own.unwrap_or_else(|| modes::guest(&bed, mode, &settings.args));
    let guest = Guest { gdb: true, limit: LIMIT, goal: Goal::End, ..guest };
    parallel::run(vec![modes::part(&bed, guest)], &mut reporter);
    reporter.close(&settings.target)
}

/// Returns the mode of the guest.
fn mode(own: Option<&Guest>, settings: &Settings) -> Result<GuestMode> {
    match (own, settings.modes.as_deref()) {
        (Some(guest), _) => Ok(guest.mode),
        (None, None) => Ok(GuestMode::PvDom0),
        (None, Some([mode])) => Ok(*mode),
        (None, Some(_)) => Err(Error::OneMode),
    }
}

/// Says what to type in another terminal.
fn advice(symbols: &str) -> String {
    format!(
        "\nThe machine is stopped at its first instruction and waits for a debugger. In another \
         terminal:\n\n  gdb {symbols} -ex 'target remote localhost:1234' -ex 'hbreak main' -ex continue\n\n\
         Then the machine boots, and gdb stops when it comes to the function. Use hardware \
         breakpoints until the guest is loaded. The time limit is an hour.\n"
    )
}
