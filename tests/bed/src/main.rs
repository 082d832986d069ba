//! Builds the QEMU + Xen bed, boots guests in it and classifies their verdicts.

#![forbid(unsafe_code)]

mod bench;
mod boot;
mod choice;
mod command;
mod commands;
mod configurations;
mod conformance;
mod context;
mod domu;
mod drivers;
mod error;
mod expectation;
mod expected;
mod gdb;
mod guest;
mod image;
mod last_trace;
mod lock;
mod long;
mod low_memory;
mod memory;
mod modes;
mod own;
mod parallel;
mod report;
mod saved;
mod settings;
mod setup;
mod soak;
mod suite;
mod vcpus;
mod witness;
mod xen;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use context::Context;
use error::Result;
use guest::GuestVerdict;
use report::{Reporter, plain, results};
use settings::Settings;

fn main() -> ExitCode {
    match act() {
        Ok(verdict) => ExitCode::from(verdict.exit_status()),
        Err(error) => {
            let text = plain(&error.to_string());
            eprintln!("bed: error: {}", text.trim_end().trim_start_matches("error: "));
            ExitCode::from(GuestVerdict::Error.exit_status())
        }
    }
}

fn act() -> Result<GuestVerdict> {
    let Some((command, matches)) = commands::parse(std::env::args_os())? else {
        return Ok(GuestVerdict::Success);
    };
    let settings = Settings::of(&matches);
    // Before the bed is locked or set up: a wrong file is reported without waiting for another bed, and
    // before a download.
    settings.xen.as_ref().map_or(Ok(()), setup::check_hypervisor)?;
    (command.check)(&settings)?;
    let image = if command.needs_image { image::load(&settings.image)? } else { Vec::new() };
    memory::check_image(&settings, &image)?;
    let mut reporter = Reporter::start();
    let mut held = None;
    if !command.only_reads {
        held = Some(lock::take(&settings.target, &mut reporter)?);
        results::forget(&settings.target)?;
    }
    let context = Arc::new(Context { settings, image, root: PathBuf::from(".") });
    let verdict = (command.run)(&context, reporter);
    drop(held);
    verdict
}
