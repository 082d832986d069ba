//! `bed soak`: many random operations of the allocator, as PV dom0 and as PV domU.
//!
//! The image keeps accounts of its own. The Linux dom0 is a second witness for the domU. It asks Xen for
//! the domain's memory before the domain runs, and again when it has ended and is preserved. Both times
//! it compares Xen's M2P with the P2M that the guest lists.

use std::path::Path;
use std::time::Duration;

use crate::boot::{Dom0Boot, Dom0Spec};
use crate::choice::{GuestMode, KernelArgs};
use crate::cli::Cli;
use crate::context::SuiteContext;
use crate::domu::{self, DomuJob, Goal, JobResult, SessionSpec};
use crate::error::Result;
use crate::findings::Findings;
use crate::guest::GuestVerdict;
use crate::outcome::GuestOutcome;
use crate::parallel::{self, Need, SuitePart};
use crate::progress::ProgressLog;
use crate::setup::{Bed, write};

/// Memory of the dom0's machine in MiB: small, so that it is nearly full soon.
const DOM0_MIB: u32 = 512;

/// The domU's default memory, in MiB.
const DOMU_MIB: u32 = 64;

/// A soak takes about a minute and a half on two processors without other work.
const LIMIT: Duration = Duration::from_secs(900);

/// Returns the time limit: at least [`LIMIT`].
fn limit(cli: &Cli) -> Duration {
    cli.timeout.max(LIMIT)
}

/// Returns a guest's command line; the user's own options come last.
fn args(tests: &str, more: &KernelArgs) -> Result<KernelArgs> {
    KernelArgs::new(&format!("{tests} {}", more.as_str()))
}

/// Runs both soaks on the chosen Xen and prints the last line.
pub fn run(context: &SuiteContext, progress: &mut ProgressLog) -> Result<GuestVerdict> {
    let bed = context.bed(progress)?;
    let mut findings = Findings::default();
    parallel::run(parts(context, &bed)?, progress, &mut findings)?;
    Ok(findings.close())
}

/// Returns the parts for both soaks on one Xen.
pub fn parts<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<Vec<SuitePart<'p>>> {
    Ok(vec![dom0(context, bed)?, domu(context, bed)?])
}

fn dom0<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<SuitePart<'p>> {
    let cli = &context.cli;
    let args = args("selftest=soak,accounts-balanced", &cli.args)?;
    let (memory, vcpus) = (DOM0_MIB, cli.vcpus.unwrap_or(1));
    let spec = Dom0Spec { memory, vcpus, ..Dom0Spec::new(GuestMode::PvDom0, args, limit(cli)) };
    Ok(SuitePart::new(Need::machine(vcpus, memory), move |progress, findings| {
        let dir = bed.log_dir("pv-dom0-soak")?;
        progress.step(format!("pv-dom0: the soak on Xen {}", bed.xen), "its verdict");
        let mut boot = Dom0Boot::run(bed, &spec, &context.image, &dir, progress, |_| false)?;
        boot.machine.stop();
        let seen = (&boot.log, &boot.end, boot.seconds);
        let exit = spec.args.expected_exit();
        let outcome = GuestOutcome::of_dom0(bed.xen, spec.mode, seen, exit, &dir)?;
        quote(&dir, progress);
        findings.judge(progress, outcome);
        Ok(())
    }))
}

fn domu<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<SuitePart<'p>> {
    let cli = &context.cli;
    let job = DomuJob {
        name: "pv-domu-soak".to_owned(),
        mode: GuestMode::PvDomu,
        memory: Some(cli.memory.unwrap_or(DOMU_MIB)),
        max_memory: None,
        reduced_to: None,
        vcpus: cli.vcpus,
        args: args("selftest=p2m-before,soak,p2m-after,accounts-balanced", &cli.args)?,
        limit: limit(cli),
        goal: Goal::Watch,
    };
    let (jobs, root) = (vec![job], context.root.clone());
    let session = SessionSpec { jobs, low_memory: None, root, name: "linux-dom0-soak" };
    Ok(SuitePart::new(session.need(), move |progress, findings| {
        let (results, mut machine) = domu::run(bed, &session, &context.image, progress)?;
        machine.stop();
        for result in &results {
            let dir = bed.log_dir(&result.job.name)?;
            let outcome = GuestOutcome::of_domu(bed.xen, result, &dir)?;
            quote(&dir, progress);
            findings.judge(progress, outcome);
            write(&dir.join("xen-view.log"), seen(result).as_bytes())?;
            for (what, view) in views(result) {
                let name = format!("seen from dom0: {what}");
                match view {
                    Ok(said) => findings.note(progress, &format!("{name}: {said}"), Ok(())),
                    Err(why) => {
                        let why = format!("{why}; see {}", dir.display());
                        findings.note(progress, &name, Err(why));
                    }
                }
            }
        }
        Ok(())
    }))
}

/// Prints the figures that a guest printed.
fn quote(dir: &Path, progress: &ProgressLog) {
    let console = std::fs::read_to_string(dir.join("console.log")).unwrap_or_default();
    let figures = console.lines().filter(|line| line.starts_with("# soak: "));
    figures.for_each(|line| progress.line(line));
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
