//! Builds the QEMU + Xen bed, boots the image in it and classifies its verdict.

#![forbid(unsafe_code)]

mod bench;
mod boot;
mod choice;
mod cli;
mod command;
mod conformance;
mod context;
mod domu;
mod error;
mod expectation;
mod expected;
mod findings;
mod guest;
mod image;
mod lock;
mod long;
mod low_memory;
mod modes;
mod outcome;
mod output;
mod parallel;
mod progress;
mod saved;
mod setup;
mod soak;
mod suite;
mod vcpus;
mod virtio;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use cli::{Action, Cli, Suite};
use context::SuiteContext;
use error::Result;
use guest::GuestVerdict;
use progress::ProgressLog;
use setup::SetupOptions;

fn main() -> ExitCode {
    let result = Cli::parse(lexopt::Parser::from_env()).and_then(act);
    match result {
        Ok(verdict) => ExitCode::from(verdict.exit_status()),
        Err(error) => {
            eprintln!("bed: error: {error}");
            ExitCode::from(GuestVerdict::Error.exit_status())
        }
    }
}

fn act(cli: Cli) -> Result<GuestVerdict> {
    match cli.action {
        Action::Help => {
            print!("{}", cli::HELP);
            Ok(GuestVerdict::Success)
        }
        Action::Setup => set_up(&cli),
        Action::Boot(suite) => boot(cli, suite),
    }
}

fn options(cli: &Cli) -> SetupOptions {
    SetupOptions { target: cli.target.clone(), mirror: cli.mirror.clone() }
}

fn set_up(cli: &Cli) -> Result<GuestVerdict> {
    let mut progress = ProgressLog::start();
    let _held = lock::take(&cli.target, &mut progress)?;
    setup::prepare(cli.xen, &options(cli), &mut progress)?;
    progress.say(&format!("the bed of Xen {} is ready", cli.xen));
    Ok(GuestVerdict::Success)
}

fn boot(cli: Cli, suite: Suite) -> Result<GuestVerdict> {
    let mut progress = ProgressLog::start();
    // Before the setup, so that a wrong path is reported before a download.
    let image = image::load(&cli.image)?;
    let _held = lock::take(&cli.target, &mut progress)?;
    let (options, root) = (options(&cli), PathBuf::from("."));
    let context = SuiteContext { cli, options, image, root };
    match suite {
        Suite::Run => modes::run(&context, &mut progress),
        Suite::Test => suite::run(&context, &mut progress),
        Suite::Long => long::run(&context, &mut progress),
        Suite::Witness => witness::run(&context, &mut progress),
        Suite::Conformance => conformance::run(&context, &mut progress),
        Suite::Soak => soak::run(&context, &mut progress),
        Suite::Vcpus => vcpus::run(&context, &mut progress),
        Suite::Virtio => virtio::run(&context, &mut progress),
        Suite::Bench => bench::run(&context, &mut progress),
    }
}
