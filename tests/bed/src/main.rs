//! Builds the QEMU + Xen bed, boots the image in it and classifies its verdict.

#![forbid(unsafe_code)]

mod bench;
mod boot;
mod choice;
mod cli;
mod command;
mod conformance;
mod domu;
mod error;
mod expectation;
mod findings;
mod guest;
mod image;
mod lock;
mod modes;
mod outcome;
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

use cli::{Action, Cli};
use error::Result;
use guest::{Counts, Verdict};
use outcome::Outcome;
use progress::Progress;
use setup::SetupOptions;
use witness::Request;

fn main() -> ExitCode {
    let result = Cli::parse(lexopt::Parser::from_env()).and_then(|cli| act(&cli));
    match result {
        Ok(verdict) => ExitCode::from(verdict.exit_status()),
        Err(error) => {
            eprintln!("bed: error: {error}");
            ExitCode::from(Verdict::Error.exit_status())
        }
    }
}

fn act(cli: &Cli) -> Result<Verdict> {
    if cli.action == Action::Help {
        print!("{}", cli::HELP);
        return Ok(Verdict::Success);
    }
    let mut progress = Progress::start();
    let options = SetupOptions { target: cli.target.clone(), mirror: cli.mirror.clone() };
    if cli.action == Action::Setup {
        let _held = lock::take(&cli.target, &mut progress)?;
        setup::prepare(cli.xen, &options, &mut progress)?;
        progress.say(&format!("the bed of Xen {} is ready", cli.xen));
        return Ok(Verdict::Success);
    }
    // Before the setup, so that a wrong path is reported before a download.
    let image = image::load(&cli.image)?;
    let _held = lock::take(&cli.target, &mut progress)?;
    let root = PathBuf::from(".");
    if cli.action == Action::Conformance {
        return conformance::run(cli, &options, &image, &root, &mut progress);
    }
    if cli.action == Action::Vcpus {
        return vcpus::run(cli, &options, &image, &root, &mut progress);
    }
    if cli.action == Action::Virtio {
        return virtio::run(cli, &options, &image, &mut progress);
    }
    let bed = setup::prepare(cli.xen, &options, &mut progress)?;
    match cli.action {
        Action::Run => {
            let spec = modes::RunSpec {
                modes: cli.modes.clone(),
                vcpus: cli.vcpus,
                memory: cli.memory,
                args: cli.args.clone(),
                limit: cli.timeout,
                root,
                gdb: cli.gdb,
            };
            let outcomes = modes::run(&bed, &spec, &image, &mut progress)?;
            Ok(close(&outcomes))
        }
        Action::Witness => {
            let request = Request { seed: witness::fresh_seed(), ..cli.probe };
            let seen = [
                witness::dom0(&bed, request, &image, &mut progress)?,
                witness::domu(&bed, request, &image, &root, &mut progress)?,
            ];
            let device = witness::device(&bed, &image, &mut progress)?;
            let device = device.map(|()| "wrote where the IOMMU sent it".to_owned());
            let mut counts = Counts::default();
            let told = seen.iter().map(|testimony| (testimony.mode.to_string(), testimony.told()));
            for (whom, told) in told.chain([("pvh-dom0's device".to_owned(), device)]) {
                let (word, said) = match told {
                    Ok(said) => ("ok", said),
                    Err(said) => ("not ok", said),
                };
                println!("{word} witness of {whom}: {said}");
                counts.passed += u32::from(word == "ok");
                counts.failed += u32::from(word != "ok");
            }
            println!("{}", outcome::last_line(counts));
            Ok(if counts.failed == 0 { Verdict::Success } else { Verdict::Failure })
        }
        Action::Soak => soak::run(&bed, cli, &image, &root, &mut progress),
        Action::Bench => bench::run(&bed, cli, &image, &mut progress),
        Action::Test => suite::run(&bed, cli, &options, &image, &root, &mut progress),
        Action::Conformance | Action::Vcpus | Action::Virtio | Action::Setup | Action::Help => {
            Ok(Verdict::Success)
        }
    }
}

/// Prints the table, what failed, and the last line.
fn close(outcomes: &[Outcome]) -> Verdict {
    println!("\n{}", outcome::table(outcomes));
    for line in outcomes.iter().flat_map(Outcome::details) {
        println!("{line}");
    }
    let mut counts = Counts::default();
    outcomes.iter().for_each(|outcome| counts.add(outcome.judgement.counts));
    let verdict = outcome::worst(outcomes);
    println!("bed: the verdict is {verdict} (exit status {})", verdict.exit_status());
    println!("{}", outcome::last_line(counts));
    verdict
}
