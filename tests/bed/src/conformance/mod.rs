//! `bed conformance`: what the model and each real Xen answer, row by row of
//! `docs/CONFORMANCE.md`.

mod answers;
mod json;
mod report;
mod results;
mod rows;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::guest::GuestVerdict;
use crate::modes;
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::saved;
use crate::setup::{Bed, write};

use report::{ConformanceReport, OnXen};
use results::{ModelResults, Results};
use rows::ConformanceRow;

/// The table, as a path from the repository's root.
const TABLE: &str = "docs/CONFORMANCE.md";

/// The file with all answers, in the directory of the logs.
const ANSWERS: &str = "conformance.json";

/// The modes that see a difference; a PVH dom0 is to the exchange what a PVH domU is.
const MODES: [GuestMode; 3] = [GuestMode::PvDom0, GuestMode::PvDomu, GuestMode::PvhDomu];

/// The self-tests that are named after rows, and no others, with the answers of Xen.
const ARGS: &str = "trace=full selftest=c0*,c1*,c2*,c3*,c4*,c5*,c6*,c7*,accounts-balanced";

/// Runs the self-tests on each Xen, prints the table, and counts its answers.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let table = Table::read(context)?;
    let beds = context.beds(&mut reporter)?;
    let mut parts = Vec::new();
    for bed in &beds {
        parts.extend(self::parts(bed)?);
    }
    parallel::run(parts, &mut reporter);
    let report = table.report(&beds)?;
    println!("{}", published(&report, context)?);
    let counts = report.counts();
    let of_rows = if counts.failed > 0 { GuestVerdict::Failure } else { GuestVerdict::Success };
    let verdict = reporter.findings().verdict().max(of_rows);
    reporter.close_as(&context.settings.target, verdict, counts)
}

/// Returns the parts that answer the rows on one Xen.
pub fn parts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    let mut parts = modes::parts(bed, &MODES, &KernelArgs::new(ARGS)?);
    parts.push(saved::part(bed)?);
    Ok(parts)
}

/// Prints the table for parts that ran, and notes whether all answers are those of the table.
pub fn note(beds: &[Bed], reporter: &mut Reporter) -> Result<()> {
    let Some(bed) = beds.first() else { return Ok(()) };
    let table = Table::read(&bed.context)?;
    let report = table.report(beds)?;
    reporter.line(&published(&report, &bed.context)?);
    let result = match report.counts().failed {
        0 => Ok(()),
        failed => Err(format!("{failed} answers differ; see the lines after the table")),
    };
    reporter.note("every row of the conformance table is answered as it says", result);
    Ok(())
}

/// Writes every answer into the file for other programs, and returns the table.
fn published(report: &ConformanceReport<'_>, context: &Context) -> Result<String> {
    let file = context.settings.target.join(ANSWERS);
    write(&file, format!("{:#}\n", json::of(report)).as_bytes())?;
    Ok(format!("\n{}\nevery answer is in {}", report.text(), file.display()))
}

/// The table, and what the model answers.
struct Table {
    rows: Vec<ConformanceRow>,
    model: Option<ModelResults>,
}

impl Table {
    fn read(context: &Context) -> Result<Self> {
        let rows = rows::parse(&read(&context.root.join(TABLE))?);
        let model = context.settings.model.as_deref().map(read).transpose()?;
        Ok(Self { rows, model: model.as_deref().map(results::of_cargo) })
    }

    /// Adds what the guests answered, from their logs.
    fn report(&self, beds: &[Bed]) -> Result<ConformanceReport<'_>> {
        let mut xens = Vec::new();
        for bed in beds {
            let modes = MODES.iter().map(|mode| answers(bed, *mode)).collect::<Result<_>>()?;
            xens.push(OnXen { xen: bed.xen.clone(), modes });
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
