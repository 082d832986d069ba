//! `bed guest`: boots a kernel of the user's own under `xl create`, and classifies its end.

mod config;
mod kernel;
pub mod others;

use std::sync::Arc;
use std::time::Duration;

use crate::choice::KernelArgs;
use crate::context::Context;
use crate::domu::{self, SessionSpec};
use crate::error::{Error, Result};
use crate::guest::{Goal, Guest, GuestVerdict};
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::{Bed, NO_TOOLS};

pub use kernel::{OwnKernel, Source};

/// Boots the kernel that the command line names.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let settings = &context.settings;
    let source = Source {
        kernel: settings.kernel.clone(),
        config: settings.config.clone(),
        kind: settings.kind,
    };
    // Before the setup, so that a wrong file is reported before a download.
    let kernel = OwnKernel::read(&source)?;
    kernel.notices().iter().for_each(|notice| reporter.line(&format!("bed: {notice}")));
    let bed = context.bed(&mut reporter)?;
    if bed.linux.is_none() {
        return Err(Error::NoTools { mode: kernel.mode, why: NO_TOOLS.to_owned() });
    }
    let guest = Guest {
        memory: settings.memory,
        vcpus: settings.vcpus,
        expect: settings.expect.clone(),
        streams: true,
        ..guest(&kernel, "guest", &settings.args, settings.timeout)
    };
    parallel::run(vec![part(&bed, guest)], &mut reporter)?;
    reporter.close(&settings.target)
}

/// Returns a guest with a kernel of its own.
pub fn guest(kernel: &Arc<OwnKernel>, name: &str, args: &KernelArgs, limit: Duration) -> Guest {
    let guest = Guest::new(kernel.mode, name, args.clone(), limit);
    Guest { kernel: Some(Arc::clone(kernel)), goal: Goal::End, ..guest }
}

fn part(bed: &Bed, guest: Guest) -> SuitePart<'_> {
    let session = SessionSpec { name: "linux-dom0-guest", guests: vec![guest] };
    SuitePart::new(session.need(), move |reporter| {
        for (outcome, _) in domu::judged(bed, &session, reporter)? {
            reporter.judge(outcome);
        }
        Ok(())
    })
}
