//! `bed vcpus`: the image with one and with several vCPUs, on each Xen, and a long storm.

mod guests;

use std::path::Path;

use crate::choice::{Mode, XenVersion};
use crate::cli::Cli;
use crate::domu::{self, SessionSpec};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::findings::Findings;
use crate::guest::Verdict;
use crate::progress::Progress;
use crate::setup::{SetupOptions, prepare};

use guests::Guests;

/// Tries every guest on each Xen and says the last line.
pub fn run(
    cli: &Cli,
    options: &SetupOptions,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<Verdict> {
    let mut findings = Findings::default();
    check(cli, options, image, root, progress, &mut findings)?;
    println!();
    Ok(findings.close(&[]))
}

/// Tries every guest on each Xen: on all of them, unless one is chosen.
pub fn check(
    cli: &Cli,
    options: &SetupOptions,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
    findings: &mut Findings,
) -> Result<()> {
    let xens = cli.xens();
    for &xen in &xens {
        let bed = prepare(xen, options, progress)?;
        let Guests { dom0s, domus } = guests::of(&storms(&xens, xen), cli.timeout)?;
        findings.try_dom0s(&bed, &dom0s, image, progress)?;
        let jobs = domus.iter().map(Expectation::job).collect();
        let session = SessionSpec { jobs, root: root.to_owned(), name: "linux-dom0-vcpus" };
        let (results, mut machine) = domu::run(&bed, &session, image, progress)?;
        machine.stop();
        findings.note_domus(&bed, &domus, &results)?;
    }
    Ok(())
}

/// Who storms on one of the Xens: a storm is long, so each mode storms on one Xen.
fn storms(xens: &[XenVersion], xen: XenVersion) -> Vec<Mode> {
    let on = |chosen: Option<&XenVersion>, mode| (chosen == Some(&xen)).then_some(mode);
    [on(xens.first(), Mode::PvDom0), on(xens.last(), Mode::PvDomu)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_storms_once() {
        let [old, new] = XenVersion::ALL;
        assert_eq!(storms(&[old, new], old), [Mode::PvDom0]);
        assert_eq!(storms(&[old, new], new), [Mode::PvDomu]);
        assert_eq!(storms(&[new], new), [Mode::PvDom0, Mode::PvDomu]);
    }
}
