//! `bed soak`: many random operations of the allocator, as PV dom0 and as PV domU.
//!
//! The image keeps accounts of its own. The Linux dom0 is a second witness for the domU. It asks Xen for
//! the domain's memory before the domain runs, and again when it has ended and is preserved. Both times
//! it compares Xen's M2P with the P2M that the guest lists.

use std::sync::Arc;
use std::time::Duration;

use crate::boot::Dom0Boot;
use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::domu::{self, JobResult, SessionSpec};
use crate::error::Result;
use crate::guest::{Goal, Guest, GuestVerdict};
use crate::parallel::{self, SuitePart};
use crate::report::{GuestOutcome, Reporter};
use crate::settings::Settings;
use crate::setup::{Bed, NO_TOOLS, write};

/// Memory of the dom0's machine in MiB: small, so that it is nearly full soon.
const DOM0_MIB: u32 = 512;

/// The domU's default memory, in MiB.
const DOMU_MIB: u32 = 64;

/// A soak takes about a minute and a half on two processors without other work.
const LIMIT: Duration = Duration::from_secs(900);

/// Returns a guest that soaks; the user's own options come last.
fn guest(settings: &Settings, mode: GuestMode, tests: &str) -> Result<Guest> {
    let args = KernelArgs::new(&format!("{tests} {}", settings.args.as_str()))?;
    let limit = settings.timeout.max(LIMIT);
    let guest = Guest::new(mode, format!("{mode}-soak"), args, limit);
    Ok(Guest { vcpus: settings.vcpus, ..guest })
}

/// Runs both soaks on the chosen Xen and prints the last line.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let bed = context.bed(&mut reporter)?;
    parallel::run(parts(&bed)?, &mut reporter);
    reporter.close(&context.settings.target)
}

/// Returns the parts for both soaks on one Xen.
pub fn parts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    Ok(vec![dom0(bed)?, domu(bed)?])
}

fn dom0(bed: &Bed) -> Result<SuitePart<'_>> {
    let tests = "selftest=soak,accounts-balanced";
    let guest = guest(&bed.context.settings, GuestMode::PvDom0, tests)?;
    let guest = Guest { memory: Some(DOM0_MIB), ..guest };
    Ok(SuitePart::new(guest.need(), move |reporter| {
        reporter.step(format!("pv-dom0: the soak on Xen {}", bed.xen), "its verdict");
        let outcome = Dom0Boot::judged(bed, &guest, reporter)?;
        quote(&outcome, reporter);
        reporter.judge(outcome);
        Ok(())
    }))
}

fn domu(bed: &Bed) -> Result<SuitePart<'_>> {
    let settings = &bed.context.settings;
    let tests = "selftest=p2m-before,soak,p2m-after,accounts-balanced";
    let guest = Guest {
        memory: Some(settings.memory.unwrap_or(DOMU_MIB)),
        goal: Goal::Watch,
        ..guest(settings, GuestMode::PvDomu, tests)?
    };
    let session = SessionSpec { name: "linux-dom0-soak", guests: vec![guest] };
    Ok(SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            reporter.skip("pv-domu-soak", NO_TOOLS);
            return Ok(());
        }
        for (outcome, result) in domu::judged(bed, &session, reporter)? {
            let dir = outcome.dir.clone();
            quote(&outcome, reporter);
            reporter.judge(outcome);
            write(&dir.join("xen-view.log"), seen(&result).as_bytes())?;
            for (what, view) in views(&result) {
                let name = format!("seen from dom0: {what}");
                match view {
                    Ok(said) => reporter.note(&format!("{name}: {said}"), Ok(())),
                    Err(why) => reporter.note(&name, Err(format!("{why}; see {}", dir.display()))),
                }
            }
        }
        Ok(())
    }))
}

/// Prints the figures that a guest printed.
fn quote(outcome: &GuestOutcome, reporter: &Reporter) {
    let figures = outcome.console.iter().filter(|line| line.starts_with("# soak: "));
    figures.for_each(|line| reporter.line(line));
}

/// All that dom0 saw, for the logs.
fn seen(JobResult { report, .. }: &JobResult) -> String {
    let names = ["list", "pages", "m2p", "mfndump"];
    let sections =
        names.iter().flat_map(|name| [format!("{name}-before"), format!("{name}-after")]);
    let mut text = String::new();
    for name in sections {
        text.push_str(&format!("{name}:\n"));
        report.section(&name).iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}

type View = std::result::Result<String, String>;

/// What Xen and its tools say of the domain's memory, and whether it is as it has to be.
fn views(JobResult { report, .. }: &JobResult) -> Vec<(&'static str, View)> {
    let both = |name: &str, read: fn(&[String]) -> Option<u64>| {
        [
            read(report.section(&format!("{name}-before"))),
            read(report.section(&format!("{name}-after"))),
        ]
    };
    let pages = both("pages", |lines| number(lines.last()?, "nr_pages="));
    vec![
        ("MiB by `xl list`", same(both("list", listed_mib))),
        (
            "free MiB by `xl info`",
            same(both("list", |lines| {
                let line = lines.iter().find(|line| line.starts_with("free_memory"))?;
                line.split_whitespace().last()?.parse().ok()
            })),
        ),
        ("pages by Xen's own count", same(pages)),
        ("frames in Xen's M2P before", agree(report.section("m2p-before"), pages[0])),
        ("frames in Xen's M2P after", agree(report.section("m2p-after"), pages[1])),
    ]
}

/// Returns the number that follows `name` in a line.
fn number(line: &str, name: &str) -> Option<u64> {
    let digits = line.split(name).nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The third column of the only domain that is not dom0.
fn listed_mib(lines: &[String]) -> Option<u64> {
    let rows = lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut domains = rows.filter(|row| row.len() >= 6 && !["Name", "Domain-0"].contains(&row[0]));
    let mib = domains.next()?[2].parse().ok()?;
    domains.next().is_none().then_some(mib)
}

fn same([before, after]: [Option<u64>; 2]) -> View {
    match (before, after) {
        (Some(before), Some(after)) if before == after => Ok(format!("{before} before and after")),
        (Some(before), Some(after)) => Err(format!("{before} before, {after} after")),
        (before, after) => Err(format!("not told: {before:?} before, {after:?} after")),
    }
}

/// Every frame that the guest listed must be in the M2P, and no page of the domain's unlisted.
fn agree(lines: &[String], pages: Option<u64>) -> View {
    let Some(last) = lines.last() else { return Err("dom0 told nothing".to_owned()) };
    let (listed, agree) = (number(last, "listed="), number(last, "agree="));
    match (listed, agree, pages) {
        (Some(listed), Some(agree), Some(pages))
            if listed > 0 && agree == listed && listed == pages =>
        {
            Ok(format!("{agree} of {listed} are what the guest's P2M says"))
        }
        _ => Err(format!("{} (Xen counts {pages:?} pages)", lines.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_the_tools_print_is_read() {
        let list = lines(
            "Name      ID   Mem VCPUs\tState\tTime(s)\nDomain-0   0   512     1     r-----     4.1\n\
             xen-contig-pv  1    64     1     --p---     0.0\nfree_memory            : 1321",
        );
        assert_eq!(listed_mib(&list), Some(64));
        assert_eq!(listed_mib(&list[..2]), None);
        let pages = "(XEN)     nr_pages=16384 xenheap_pages=5 shared_pages=0";
        assert_eq!(number(pages, "nr_pages="), Some(16384));
        assert_eq!(number("nothing", "nr_pages="), None);
    }

    #[test]
    fn a_difference_is_told() {
        assert!(same([Some(64), Some(64)]).is_ok());
        assert!(same([Some(64), Some(63)]).unwrap_err().contains("63 after"));
        assert!(same([None, None]).is_err(), "nothing seen is nothing shown");
        assert!(agree(&lines("listed=5 agree=5"), Some(5)).is_ok());
        for (told, pages) in [
            ("listed=5 agree=4", Some(5)),
            ("listed=5 agree=5", Some(6)),
            ("listed=5 agree=5", None),
            ("listed=0 agree=0", Some(0)),
            ("", Some(5)),
        ] {
            assert!(agree(&lines(told), pages).is_err(), "{told}");
        }
    }
}
