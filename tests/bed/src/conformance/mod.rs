//! `bed conformance`: what the model and each real Xen answer, row by row of
//! `docs/CONFORMANCE.md`.

mod report;
mod results;
mod rows;

use std::fs;
use std::path::Path;

use crate::choice::{KernelArgs, Mode};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::findings::log_dir;
use crate::guest::Verdict;
use crate::modes::{self, RunSpec};
use crate::outcome::{self, Outcome};
use crate::progress::Progress;
use crate::saved;
use crate::setup::{SetupOptions, prepare};

use report::{OnXen, Report};

/// The table, seen from the repository's root.
const TABLE: &str = "docs/CONFORMANCE.md";

/// The modes that see a difference; a PVH dom0 is to the exchange what a PVH domU is.
const MODES: [Mode; 3] = [Mode::PvDom0, Mode::PvDomu, Mode::PvhDomu];

/// The self-tests that are named after rows, and no others.
const TESTS: &str = "selftest=c0*,c1*,c2*,c3*,c4*,c5*,c6*,c7*,accounts-balanced";

/// Runs the self-tests on each Xen and prints the table.
pub fn run(
    cli: &Cli,
    options: &SetupOptions,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<Verdict> {
    let read =
        |path: &Path| fs::read_to_string(path).map_err(|error| Error::file("reading", path, error));
    let rows = rows::parse(&read(&root.join(TABLE))?);
    let model = cli.model.as_deref().map(read).transpose()?;
    let model = model.as_deref().map(results::of_cargo);
    let mut report = Report { rows: &rows, model, xens: Vec::new() };
    let mut outcomes = Vec::new();
    for xen in cli.xens() {
        let bed = prepare(xen, options, progress)?;
        let spec = RunSpec {
            modes: MODES.to_vec(),
            vcpus: cli.vcpus,
            memory: cli.memory,
            args: KernelArgs::new(TESTS)?,
            limit: cli.timeout,
            root: root.to_owned(),
            gdb: false,
        };
        let these = modes::run(&bed, &spec, image, progress)?;
        let mut modes = Vec::new();
        for outcome in &these {
            modes.push(results::of_guest(&read(&outcome.dir.join("console.log"))?));
        }
        let (_, saved) = saved::run(&bed, image, root, progress)?;
        for result in &saved {
            let lines = result.report.guest_lines();
            let mode = MODES.iter().zip(&mut modes).find(|(mode, _)| **mode == result.job.mode);
            mode.into_iter()
                .for_each(|(_, rows)| rows.extend(results::of_guest(&lines.join("\n"))));
            outcomes.push(Outcome::of_domu(xen, result, &log_dir(&bed, &result.job.name)?)?);
        }
        report.xens.push(OnXen { xen, modes });
        outcomes.extend(these);
    }
    Ok(close(&report, &outcomes))
}

fn close(report: &Report<'_>, outcomes: &[Outcome]) -> Verdict {
    println!("\n{}", report.text());
    outcomes.iter().flat_map(Outcome::details).for_each(|line| println!("{line}"));
    let mut verdict = outcome::worst(outcomes);
    if report.counts().failed > 0 {
        verdict = verdict.max(Verdict::Failure);
    }
    println!("bed: the verdict is {verdict} (exit status {})", verdict.exit_status());
    println!("{}", outcome::last_line(report.counts()));
    verdict
}
