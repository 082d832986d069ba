//! `bed test-long`: what takes too long for `bed test`, on both Xens unless one is chosen.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bench;
use crate::choice::{GuestMode, KernelArgs};
use crate::command;
use crate::configurations;
use crate::conformance;
use crate::context::Context;
use crate::drivers;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::GuestVerdict;
use crate::low_memory;
use crate::parallel::{self, Need, SuitePart};
use crate::report::Reporter;
use crate::setup::Bed;
use crate::soak;
use crate::vcpus;

/// Runs everything and prints how long it took.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let started = Instant::now();
    let beds = context.beds(&mut reporter)?;
    let settings = &context.settings;
    let mut parts = match &settings.fuzz {
        Some(program) => fuzz(settings.seconds, program)?,
        None => Vec::new(),
    };
    let drivers = drivers::CostTable::default();
    for bed in &beds {
        parts.extend(drivers::parts(bed, &drivers)?);
        parts.extend(conformance::parts(bed)?);
        parts.extend(soak::parts(bed)?);
        parts.extend(bench::parts(bed)?);
        parts.extend(configurations::parts(bed));
        parts.extend(restarts(bed)?);
        parts.extend(low_memory::dom0s(bed)?);
        parts.push(low_memory::domu(bed)?);
    }
    // Machines that run alone come last.
    for bed in &beds {
        parts.extend(vcpus::parts(bed)?);
    }
    parallel::run(parts, &mut reporter);
    drivers.print();
    conformance::note(&beds, &mut reporter)?;
    let seconds = started.elapsed().as_secs();
    println!("\nbed: test-long took {} min {} s", seconds / 60, seconds % 60);
    reporter.close(&settings.target)
}

/// Memory that a part with a fuzzer may use, in MiB.
const FUZZ_MIB: u32 = 1024;

/// Time that a fuzzer gets to start and to shorten what it found, besides its own.
const FUZZ_EXTRA: u32 = 300;

/// Returns a part for each target of the fuzzer.
fn fuzz(seconds: u32, program: &Path) -> Result<Vec<SuitePart<'_>>> {
    let targets = command::succeed(Command::new(program).arg("list"))?;
    let parts = targets.lines().map(|target| {
        let target = target.to_owned();
        SuitePart::new(Need::machine(1, FUZZ_MIB), move |reporter| {
            reporter.step(format!("fuzzing {target} for {seconds} s"), "the next target");
            let result = fuzz_one(program, &target, seconds, reporter)?;
            reporter.note(&format!("fuzz {target}, {seconds} s"), result);
            Ok(())
        })
    });
    Ok(parts.collect())
}

fn fuzz_one(
    program: &Path,
    target: &str,
    seconds: u32,
    reporter: &Reporter,
) -> Result<std::result::Result<(), String>> {
    let limit = (seconds + FUZZ_EXTRA).to_string();
    let mut fuzzer = Command::new("timeout");
    fuzzer.args(["--kill-after=5", &limit]).arg(program).arg(target);
    fuzzer.args(["--seconds", &seconds.to_string()]);
    reporter.echo(&command::shown(&fuzzer));
    let out = command::output(&mut fuzzer)?;
    let said = command::both(&out);
    said.lines().for_each(|line| reporter.line(line));
    Ok(if out.status.success() { Ok(()) } else { Err(format!("the fuzzer's {}", out.status)) })
}

/// A guest takes seconds.
const LIMIT: Duration = Duration::from_secs(240);

/// How many times each kind of guest is started.
const STARTS: u32 = 10;

/// Returns parts that start every kind of guest [`STARTS`] times, with all its tests.
fn restarts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    let guest = |mode, number| {
        let label = format!("start-{number}");
        Expectation::success(mode, &label, KernelArgs::default(), LIMIT)
    };
    let mut parts = Vec::new();
    for mode in [GuestMode::PvDom0, GuestMode::PvhDom0] {
        parts.extend((1..=STARTS).map(|n| expected::dom0(bed, guest(mode, n))));
    }
    for (mode, name) in
        [(GuestMode::PvDomu, "linux-dom0-starts-pv"), (GuestMode::PvhDomu, "linux-dom0-starts-pvh")]
    {
        let guests = (1..=STARTS).map(|n| guest(mode, n)).collect();
        parts.push(expected::domus(bed, name, guests));
    }
    Ok(parts)
}
