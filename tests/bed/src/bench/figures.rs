//! What self-tests say that things cost. Each mode is booted twice, to show that the figures are the
//! same in each boot.

use crate::boot::{Dom0Boot, MachineClock};
use crate::choice::{GuestMode, KernelArgs};
use crate::error::Result;
use crate::guest::Guest;
use crate::parallel::SuitePart;
use crate::setup::Bed;

/// The tests that print figures, and the one that sees to it that they lost nothing.
const TESTS: &str = "selftest=vmap-lazy-and-sync,vmap-purge-is-exact,vcpus-masked,dma-hypercalls,\
                     dma-streaming-cost,\
                     bench-*,accounts-balanced";

/// Dom0s alone: in a domU's machine a Linux runs as well, whose instructions would count.
const MODES: [GuestMode; 2] = [GuestMode::PvDom0, GuestMode::PvhDom0];

const BOOTS: [&str; 2] = ["first", "second"];

/// Returns a part for each mode on one Xen. Counted instructions do not depend on what else runs.
pub fn parts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    MODES.into_iter().map(|mode| part(bed, mode)).collect()
}

fn part(bed: &Bed, mode: GuestMode) -> Result<SuitePart<'_>> {
    let settings = &bed.context.settings;
    let args = KernelArgs::new(&format!("{TESTS} {}", settings.args.as_str()))?;
    let guest = |which| Guest {
        processors: Some(1),
        clock: MachineClock::Instructions,
        ..Guest::new(mode, format!("{mode}-bench-{which}"), args.clone(), settings.timeout)
    };
    let guests = BOOTS.map(guest);
    Ok(SuitePart::new(guests[0].need(), move |reporter| {
        let mut seen = Vec::new();
        for guest in &guests {
            reporter.step(format!("{} on Xen {}", guest.name, bed.xen), "the next");
            let outcome = Dom0Boot::judged(bed, guest, reporter)?;
            seen.push(figures(&outcome.console));
            reporter.judge(outcome);
        }
        reporter.line(&format!("\n{mode} on Xen {}:", bed.xen));
        seen[0].iter().for_each(|line| reporter.line(line));
        reporter.line("");
        let name = format!("{mode} on Xen {}: two boots, the same figures", bed.xen);
        reporter.note(&name, same(&seen[0], &seen[1]));
        Ok(())
    }))
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
