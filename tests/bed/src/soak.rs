//! `bed soak`: random operations of the allocator for long, as PV dom0 and as PV domU.
//!
//! The image keeps accounts of its own. For the domU there is a witness besides: the Linux dom0 asks
//! Xen for the domain's memory before the domain has run one instruction and again when it has ended
//! and is preserved, and has its M2P hold against the P2M that the guest lists on either side.

use std::path::Path;

use crate::choice::{KernelArgs, Mode};
use crate::cli::Cli;
use crate::domu::{self, Goal, Job, JobResult, SessionSpec};
use crate::error::Result;
use crate::guest::{Counts, Verdict};
use crate::modes::{self, RunSpec};
use crate::outcome::{self, Outcome};
use crate::progress::Progress;
use crate::setup::{Bed, make_dir, write};

/// What a dom0 soaks: small, so that it is nearly full soon.
const DOM0_MIB: u32 = 512;

/// The domU's default memory, in MiB.
const DOMU_MIB: u32 = 64;

/// The guests' command lines; what the user adds comes last.
fn args(tests: &str, more: &KernelArgs) -> Result<KernelArgs> {
    KernelArgs::new(&format!("{tests} {}", more.as_str()))
}

/// Runs both soaks and says the last line.
pub fn run(
    bed: &Bed,
    cli: &Cli,
    image: &[u8],
    root: &Path,
    progress: &mut Progress,
) -> Result<Verdict> {
    let spec = RunSpec {
        modes: vec![Mode::PvDom0],
        vcpus: cli.vcpus,
        memory: Some(DOM0_MIB),
        args: args("selftest=soak,accounts-balanced", &cli.args)?,
        limit: cli.timeout,
        root: root.to_owned(),
        gdb: false,
    };
    let mut outcomes = modes::run(bed, &spec, image, progress)?;
    outcomes.iter().for_each(|outcome| quote(&outcome.dir));

    let job = Job {
        name: "pv-domu-soak".to_owned(),
        mode: Mode::PvDomu,
        memory: Some(cli.memory.unwrap_or(DOMU_MIB)),
        vcpus: cli.vcpus,
        args: args("selftest=p2m-before,soak,p2m-after,accounts-balanced", &cli.args)?,
        limit: cli.timeout,
        goal: Goal::Watch,
    };
    let session = SessionSpec { jobs: vec![job], root: root.to_owned(), name: "linux-dom0-soak" };
    let (results, mut machine) = domu::run(bed, &session, image, progress)?;
    machine.stop();
    let mut counts = Counts::default();
    for result in &results {
        let dir = bed.dir.join(&result.job.name);
        make_dir(&dir)?;
        outcomes.push(Outcome::of_domu(bed.xen, result, &dir)?);
        quote(&dir);
        write(&dir.join("xen-view.log"), seen(result).as_bytes())?;
        for (what, view) in views(result) {
            match view {
                Ok(said) => {
                    counts.passed += 1;
                    println!("ok      seen from dom0: {what}: {said}");
                }
                Err(why) => {
                    counts.failed += 1;
                    println!("NOT OK  seen from dom0: {what}: {why}; see {}", dir.display());
                }
            }
        }
    }
    println!("\n{}", outcome::table(&outcomes));
    outcomes.iter().flat_map(Outcome::details).for_each(|line| println!("{line}"));
    let mut verdict = outcome::worst(&outcomes);
    if counts.failed > 0 {
        verdict = verdict.max(Verdict::Failure);
    }
    outcomes.iter().for_each(|outcome| counts.add(outcome.judgement.counts));
    println!("bed: the verdict is {verdict} (exit status {})", verdict.exit_status());
    println!("{}", outcome::last_line(counts));
    Ok(verdict)
}

/// Shows the figures that a guest printed.
fn quote(dir: &Path) {
    let console = std::fs::read_to_string(dir.join("console.log")).unwrap_or_default();
    console.lines().filter(|line| line.starts_with("# soak: ")).for_each(|line| println!("{line}"));
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
