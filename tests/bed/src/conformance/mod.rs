//! `bed conformance`: what the model and each real Xen answer, row by row of
//! `docs/CONFORMANCE.md`.

mod report;
mod results;
mod rows;

use std::fs;
use std::path::Path;

use crate::choice::{GuestMode, KernelArgs};
use crate::context::SuiteContext;
use crate::error::{Error, Result};
use crate::findings::Findings;
use crate::guest::GuestVerdict;
use crate::modes::{self, RunSpec};
use crate::outcome::{self, GuestOutcome};
use crate::parallel::{self, SuitePart};
use crate::progress::ProgressLog;
use crate::saved;
use crate::setup::Bed;

use report::{ConformanceReport, OnXen};
use results::{ModelResults, Results};
use rows::ConformanceRow;

/// The table, as a path from the repository's root.
const TABLE: &str = "docs/CONFORMANCE.md";

/// The modes that see a difference; a PVH dom0 is to the exchange what a PVH domU is.
const MODES: [GuestMode; 3] = [GuestMode::PvDom0, GuestMode::PvDomu, GuestMode::PvhDomu];

/// The self-tests that are named after rows, and no others.
const TESTS: &str = "selftest=c0*,c1*,c2*,c3*,c4*,c5*,c6*,c7*,accounts-balanced";

/// Runs the self-tests on each Xen, prints the table, and counts its answers.
pub fn run(context: &SuiteContext, progress: &mut ProgressLog) -> Result<GuestVerdict> {
    let table = Table::read(context)?;
    let beds = context.beds(progress)?;
    let mut parts = Vec::new();
    for bed in &beds {
        parts.extend(self::parts(context, bed)?);
    }
    let mut guests = Findings::default();
    parallel::run(parts, progress, &mut guests)?;
    let report = table.report(&beds)?;
    println!("\n{}", report.text());
    guests.outcomes().iter().flat_map(GuestOutcome::details).for_each(|line| println!("{line}"));
    let counts = report.counts();
    let of_rows = if counts.failed > 0 { GuestVerdict::Failure } else { GuestVerdict::Success };
    Ok(outcome::close(guests.verdict().max(of_rows), counts))
}

/// Returns the parts that answer the rows on one Xen.
pub fn parts<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<Vec<SuitePart<'p>>> {
    let chosen = RunSpec::chosen(context, MODES.to_vec());
    let spec = RunSpec { args: KernelArgs::new(TESTS)?, ..chosen };
    let mut parts = modes::parts(context, bed, &spec);
    parts.push(saved::part(context, bed)?);
    Ok(parts)
}

/// Prints the table for parts that ran, and notes whether all answers are those of the table.
pub fn note(
    context: &SuiteContext,
    beds: &[Bed],
    progress: &ProgressLog,
    findings: &mut Findings,
) -> Result<()> {
    let table = Table::read(context)?;
    let report = table.report(beds)?;
    progress.line(&format!("\n{}", report.text()));
    let result = match report.counts().failed {
        0 => Ok(()),
        failed => Err(format!("{failed} answers differ; see the lines after the table")),
    };
    findings.note(progress, "every row of the conformance table is answered as it says", result);
    Ok(())
}

/// The table, and what the model answers.
struct Table {
    rows: Vec<ConformanceRow>,
    model: Option<ModelResults>,
}

impl Table {
    fn read(context: &SuiteContext) -> Result<Self> {
        let rows = rows::parse(&read(&context.root.join(TABLE))?);
        let model = context.cli.model.as_deref().map(read).transpose()?;
        Ok(Self { rows, model: model.as_deref().map(results::of_cargo) })
    }

    /// Adds what the guests answered, from their logs.
    fn report(&self, beds: &[Bed]) -> Result<ConformanceReport<'_>> {
        let mut xens = Vec::new();
        for bed in beds {
            let modes = MODES.iter().map(|mode| answers(bed, *mode)).collect::<Result<_>>()?;
            xens.push(OnXen { xen: bed.xen, modes });
        }
        Ok(ConformanceReport { rows: &self.rows, model: self.model.clone(), xens })
    }
}

fn answers(bed: &Bed, mode: GuestMode) -> Result<Results> {
    let console = |name: String| read(&bed.dir.join(name).join("console.log"));
    let mut answers = results::of_guest(&console(mode.to_string())?);
    if !mode.is_dom0() {
        answers.extend(results::of_guest(&console(format!("{mode}-{}", saved::LABEL))?));
    }
    Ok(answers)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Error::file("reading", path, error))
}
