//! Guests that are saved and restored, on each Xen (row C75).

use std::path::Path;
use std::time::Duration;

use crate::choice::{KernelArgs, Mode};
use crate::cli::Cli;
use crate::domu::{self, JobResult, SessionSpec};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::findings::Findings;
use crate::progress::Progress;
use crate::setup::{Bed, SetupOptions, prepare};

/// The self-test in question, and the one that counts what may have been lost.
const TESTS: [&str; 2] = ["c75-save-and-restore", "accounts-balanced"];

/// For a guest that waits until it is saved, kept, saved again and restored.
const LIMIT: Duration = Duration::from_secs(120);

/// Tries the guests on each Xen: on all of them, unless one is chosen.
pub fn check(
    cli: &Cli,
    options: &SetupOptions,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
    findings: &mut Findings,
) -> Result<()> {
    for xen in cli.xens() {
        let bed = prepare(xen, options, progress)?;
        let (expectations, results) = run(&bed, image, root, progress)?;
        findings.note_domus(&bed, &expectations, &results)?;
    }
    Ok(())
}

/// Runs the guests on one Xen: what is expected of each, and what came of it.
pub fn run(
    bed: &Bed,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<(Vec<Expectation>, Vec<JobResult>)> {
    let expectations: Vec<_> =
        [Mode::PvDomu, Mode::PvhDomu].into_iter().map(guest).collect::<Result<_>>()?;
    let jobs = expectations.iter().map(Expectation::job).collect();
    let session = SessionSpec { jobs, root: root.to_owned(), name: "linux-dom0-saved" };
    let (results, mut machine) = domu::run(bed, &session, image, progress)?;
    machine.stop();
    Ok((expectations, results))
}

fn guest(mode: Mode) -> Result<Expectation> {
    let args = KernelArgs::new(&format!("selftest={}", TESTS.join(",")))?;
    let good = Expectation::success(mode, "saved", args, LIMIT);
    Ok(Expectation { words: "# c75: restored", passed: TESTS.to_vec(), ..good })
}
