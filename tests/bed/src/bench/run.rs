//! The runs of `bench`: two boots of Linux and two of the image with the same entries, and the boots
//! with self-tests that print figures.

use std::sync::{Arc, Mutex, PoisonError};

use super::document::BenchDocument;
use super::line::BenchLine;
use super::peer::Request;
use super::report::BenchReport;
use super::saved::SavedBench;
use super::{figures, image, peer, rows};
use crate::boot::DEFAULT_MIB;
use crate::context::Context;
use crate::error::Result;
use crate::guest::GuestVerdict;
use crate::parallel::{self, Need, SuitePart};
use crate::report::Reporter;
use crate::settings::Settings;
use crate::setup::{Bed, LinuxPeer, write};

/// Each side is booted twice, to show that a figure is the same in each boot. With each boot comes what
/// follows it.
const BOOTS: [(&str, &str); 2] = [("first", "the second boot"), ("second", "the table")];

/// Boots of Linux may take longer than those of the image, by this factor.
const LINUX_LIMIT: u32 = 5;

/// How far apart the ticks of two boots may lie.
#[derive(Clone, Copy, Debug)]
struct Spread {
    /// Of a row with the same number of exchanges.
    same: f64,
    /// Of a row in which one boot exchanged more often than the other.
    more_exchanges: f64,
}

/// The boots of the image do the same.
const NONE: Spread = Spread { same: 0.0, more_exchanges: 0.0 };

/// An interrupt of Linux may come an instruction sooner or later. Then its free lists differ a little.
/// Where it exchanges only what is not contiguous by chance, it exchanges more or less often: 43 to 46
/// times of 64 were seen.
const LINUX: Spread = Spread { same: 0.03, more_exchanges: 0.2 };

/// The lines of each boot.
#[derive(Debug, Default)]
struct Lines {
    linux: Vec<Vec<BenchLine>>,
    here: Vec<Vec<BenchLine>>,
}

/// Checks the files of `compare` and `into`.
pub fn check(settings: &Settings) -> Result<()> {
    settings.compare.as_deref().map_or(Ok(()), |path| SavedBench::load(path).map(drop))?;
    settings.into.as_deref().map_or(Ok(()), |path| BenchDocument::open(path).map(drop))
}

/// Measures on the chosen Xen and prints the table, the comparison and the last line.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let saved = context.settings.compare.as_deref().map(SavedBench::load).transpose()?;
    let document = context.settings.into.as_deref().map(BenchDocument::open).transpose()?;
    let bed = context.bed(&mut reporter)?;
    let peer = LinuxPeer::prepare(context, &mut reporter)?;
    let lines = Mutex::new(Lines::default());
    let mut parts = vec![linux(&bed, &peer, &lines), here(&bed, &lines)];
    parts.extend(figures::parts(&bed)?);
    parallel::run(parts, &mut reporter);
    let lines = lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    let measured = lines.linux.first().zip(lines.here.first());
    let report = measured
        .ok_or_else(|| "a side measured nothing".to_owned())
        .and_then(|(linux, here)| BenchReport::new(&bed.xen, rows::all(), linux, here));
    match &report {
        Ok(report) => conclude(&bed, report, (saved.as_ref(), document.as_ref()), &mut reporter)?,
        Err(_) => reporter.note("the table is whole", report.map(drop)),
    }
    reporter.close(&context.settings.target)
}

fn conclude(
    bed: &Bed,
    report: &BenchReport,
    (saved, document): (Option<&SavedBench>, Option<&BenchDocument>),
    reporter: &mut Reporter,
) -> Result<()> {
    reporter.line(&format!("\n{}", report.table()));
    let path = bed.dir.join("bench.json");
    write(&path, report.json().as_bytes())?;
    reporter.line(&format!("the figures are in {}", path.display()));
    if let Some(document) = document {
        document.write(&report.table())?;
    }
    if let Some(saved) = saved {
        let (said, result) = saved.compare(report);
        said.iter().for_each(|line| reporter.line(line));
        reporter.note("no row is worse than in the saved run", result);
    }
    Ok(())
}

fn linux<'p>(bed: &'p Bed, peer: &'p LinuxPeer, lines: &'p Mutex<Lines>) -> SuitePart<'p> {
    SuitePart::new(Need::machine(1, DEFAULT_MIB).with_linux(), move |reporter| {
        let rows = rows::all();
        let entries = rows::list(rows.iter().filter_map(|row| row.linux.as_ref()));
        let limit = bed.context.settings.timeout * LINUX_LIMIT;
        let mut boots = Vec::new();
        for (which, next) in BOOTS {
            reporter.step(format!("Linux on Xen {}, {which} boot", bed.xen), next);
            let name = format!("linux-bench-{which}");
            let request = Request { name: &name, entries: &entries, seed: 0, limit };
            match peer::run(bed, peer, request, reporter)? {
                Ok(lines) => boots.push(lines),
                Err(why) => reporter.note(&format!("Linux, {which} boot"), Err(why)),
            }
        }
        if let [first, second] = &boots[..] {
            let name = format!("Linux on Xen {}: two boots agree within 3 %", bed.xen);
            reporter.note(&name, agree(first, second, LINUX));
        }
        lines.lock().unwrap_or_else(PoisonError::into_inner).linux = boots;
        Ok(())
    })
}

fn here<'p>(bed: &'p Bed, lines: &'p Mutex<Lines>) -> SuitePart<'p> {
    SuitePart::new(Need::machine(1, DEFAULT_MIB), move |reporter| {
        let rows = rows::all();
        let entries = rows::list(rows.iter().map(|row| &row.here));
        let mut boots = Vec::new();
        for (which, next) in BOOTS {
            reporter.step(format!("the image on Xen {}, {which} boot", bed.xen), next);
            let name = format!("pv-dom0-bench-rows-{which}");
            let (lines, outcome) = image::run(bed, &entries, &name, reporter)?;
            reporter.judge(outcome);
            match lines {
                Ok(lines) => boots.push(lines),
                Err(why) => reporter.note(&format!("the image, {which} boot"), Err(why)),
            }
        }
        if let [first, second] = &boots[..] {
            let name = format!("the image on Xen {}: two boots agree to the tick", bed.xen);
            reporter.note(&name, agree(first, second, NONE));
        }
        lines.lock().unwrap_or_else(PoisonError::into_inner).here = boots;
        Ok(())
    })
}

/// Names the first line in which the ticks of two boots lie further apart than they may.
fn agree(
    first: &[BenchLine],
    second: &[BenchLine],
    spread: Spread,
) -> std::result::Result<(), String> {
    if first.is_empty() || first.len() != second.len() {
        return Err(format!("{} lines, then {}", first.len(), second.len()));
    }
    let differs = |(first, second): &(&BenchLine, &BenchLine)| {
        let apart = first.ticks().abs_diff(second.ticks()) as f64;
        let may = match first.exchanged == second.exchanged {
            true => spread.same,
            false => spread.more_exchanges,
        };
        first.entry != second.entry || apart > may * first.ticks() as f64
    };
    match first.iter().zip(second).find(differs) {
        Some((first, second)) => Err(format!(
            "{}: {} ticks, then {}: {}",
            first.entry,
            first.ticks(),
            second.entry,
            second.ticks()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(exchanged: u64, ticks: u64) -> BenchLine {
        let fields = format!("ok=64 exchanged={exchanged} alloc={ticks} free=0 max=0");
        format!("bench: pattern=hold order=2 bits=32 count=64 {fields}").parse().unwrap()
    }

    #[test]
    fn two_boots_agree_within_the_spread() {
        let (one, other) = ([line(9, 1000), line(9, 1000)], [line(9, 1000), line(9, 1030)]);
        assert_eq!(agree(&one, &other, LINUX), Ok(()));
        assert_eq!(agree(&one, &one, NONE), Ok(()));
        let why = agree(&one, &other, NONE).unwrap_err();
        assert_eq!(why, "hold:2:32:64: 1000 ticks, then hold:2:32:64: 1030");
        assert!(agree(&one, &[line(9, 1000), line(9, 969)], LINUX).is_err());
        assert_eq!(agree(&one, &one[..1], LINUX), Err("2 lines, then 1".to_owned()));
        assert!(agree(&[], &[], LINUX).is_err(), "nothing was measured");
    }

    #[test]
    fn a_boot_that_exchanged_more_often_may_differ_more() {
        assert_eq!(agree(&[line(43, 1000)], &[line(46, 1200)], LINUX), Ok(()));
        assert!(agree(&[line(43, 1000)], &[line(46, 1201)], LINUX).is_err());
        assert!(agree(&[line(43, 1000)], &[line(44, 1001)], NONE).is_err());
    }
}
