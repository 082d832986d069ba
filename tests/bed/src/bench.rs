//! `bed bench`: what things cost, in instructions and in hypercalls.
//!
//! QEMU counts instructions, Xen's and the guest's alike, in place of time: a figure is the same on
//! every host. Each mode is booted twice to show that.

use std::path::Path;
use std::time::Duration;

use crate::boot::{Clock, Dom0Boot, Dom0Spec};
use crate::choice::{KernelArgs, Mode};
use crate::cli::Cli;
use crate::error::Result;
use crate::findings::{Findings, log_dir};
use crate::guest::Verdict;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::setup::Bed;

/// The tests that print figures, and the one that sees to it that they lost nothing.
const TESTS: &str = "selftest=vmap-lazy-and-sync,vmap-purge-is-exact,vcpus-masked,dma-hypercalls,\
                     bench-*,accounts-balanced";

/// Dom0s alone: in a domU's machine a Linux runs as well, whose instructions would count.
const MODES: [Mode; 2] = [Mode::PvDom0, Mode::PvhDom0];

const BOOTS: [&str; 2] = ["first", "second"];

/// Prints the figures of each mode and says the last line.
pub fn run(bed: &Bed, cli: &Cli, image: &[u8], progress: &mut Progress) -> Result<Verdict> {
    let args = KernelArgs::new(&format!("{TESTS} {}", cli.args.as_str()))?;
    let mut findings = Findings::default();
    let mut outcomes = Vec::new();
    let mut report = String::new();
    for mode in MODES {
        let mut seen = Vec::new();
        for which in BOOTS {
            progress.step(format!("{mode} on Xen {}, {which} boot", bed.xen), "the next");
            let spec = spec(cli, mode, &args);
            let dir = log_dir(bed, &format!("{mode}-bench-{which}"))?;
            let outcome = boot(bed, &spec, image, &dir, progress, &mut seen)?;
            outcomes.push(outcome);
        }
        let lines: String = seen[0].iter().map(|line| format!("{line}\n")).collect();
        report.push_str(&format!("\n{mode} on Xen {}:\n{lines}", bed.xen));
        findings.note(&format!("{mode}: two boots, the same figures"), same(&seen[0], &seen[1]));
    }
    println!("{report}");
    Ok(findings.close(&outcomes))
}

fn spec(cli: &Cli, mode: Mode, args: &KernelArgs) -> Dom0Spec {
    let limit: Duration = cli.timeout;
    Dom0Spec {
        processors: Some(1),
        clock: Clock::Instructions,
        ..Dom0Spec::new(mode, args.clone(), limit)
    }
}

fn boot(
    bed: &Bed,
    spec: &Dom0Spec,
    image: &[u8],
    dir: &Path,
    progress: &mut Progress,
    seen: &mut Vec<Vec<String>>,
) -> Result<Outcome> {
    let boot = Dom0Boot::run(bed, spec, image, dir, progress, |_| false)?;
    seen.push(figures(&boot.log.guest));
    let told = (&boot.log, &boot.end, boot.seconds);
    Outcome::of_dom0(bed.xen, spec.mode, told, spec.args.expected_exit(), dir)
}

/// What the tests said besides their results.
fn figures(console: &[String]) -> Vec<String> {
    let tests = console.iter().skip_while(|line| !line.starts_with("1.."));
    tests.filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect()
}

/// Says the first figure that differs.
fn same(first: &[String], second: &[String]) -> std::result::Result<(), String> {
    if first.is_empty() {
        return Err("there are no figures".to_owned());
    }
    if first.len() != second.len() {
        return Err(format!("{} lines, then {}", first.len(), second.len()));
    }
    match first.iter().zip(second).find(|(first, second)| first != second) {
        Some((first, second)) => Err(format!("`{first}`, then `{second}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn figures_are_what_the_tests_said() {
        let console = lines("# vcpus: 1 of 1 up\nKTAP version 1\n1..1\n# a: 7\nok 1 a\n# b: 8");
        assert_eq!(figures(&console), ["a: 7", "b: 8"]);
    }

    #[test]
    fn a_figure_that_differs_is_named() {
        let (seven, eight) = (lines("a: 1\nb: 7"), lines("a: 1\nb: 8"));
        assert_eq!(same(&seven, &seven), Ok(()));
        assert_eq!(same(&seven, &eight), Err("`b: 7`, then `b: 8`".to_owned()));
        assert_eq!(same(&seven, &seven[..1]), Err("2 lines, then 1".to_owned()));
        assert!(same(&[], &[]).is_err(), "nothing measured is nothing shown");
    }
}
