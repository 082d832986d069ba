//! A driver domain that is started, used and destroyed again and again on a host whose low memory is
//! fragmented: does it start every time, and does Xen get all low memory back?

use std::time::Duration;

use super::domain::domain;
use super::kinds::Driver;
use super::setup::DriverSetup;
use crate::choice::{GuestMode, KernelArgs};
use crate::domu::{self, JobResult};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::{Goal, PassedDevice};
use crate::parallel::SuitePart;
use crate::report::GuestOutcome;
use crate::setup::{Bed, NO_TOOLS};

/// How many times a driver domain is started.
const STARTS: u32 = 20;

/// The name of the session, and of its directory.
const SESSION: &str = "linux-dom0-restarts";

/// The tests with the `edu` device, which reaches low memory alone.
const EDU: [&str; 3] = ["edu-found", "edu-dma-round-trip", "edu-dma-coherent-buffer"];

/// The test with the NVMe disk, whose queues get memory as low.
const NVME: [&str; 1] = ["nvme-identify"];

/// What the guest says that holds every second 64 KiB of low memory.
const HOLDS: &str =
    "regex:^fragment: holds [0-9]+ of [0-9]+ pieces of 64 KiB below 2\\^28; Xen has no larger one";

/// MiB of the guest that fragments the low memory: more than that memory.
const HOLDER_MIB: u32 = 320;

/// The last zone of low memory: it ends at 2^28.
const LOW_ZONE: u32 = 16;

/// How many pages of low memory may be free more or less at the end: 1 MiB.
const TOLERANCE: u64 = 256;

/// Fragmenting takes 4,096 exchanges.
const HOLDER_LIMIT: Duration = Duration::from_secs(180);

/// Returns a part that fragments the low memory and then starts the driver domains.
pub fn part(bed: &Bed) -> Result<SuitePart<'_>> {
    let setup = DriverSetup::new(&[Driver::Nvme])?;
    let mut expected = vec![holder()?];
    for number in 1..=STARTS {
        expected.push(start(number, &setup)?);
    }
    let session = expected::session(SESSION, &expected);
    Ok(SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            reporter.skip(&format!("restarts of a driver domain on Xen {}", bed.xen), NO_TOOLS);
            return Ok(());
        }
        // No driver domain writes to the disk.
        let _disk = setup.prepare(&bed.fresh_log_dir(SESSION)?)?;
        let results = domu::judged_with_files(bed, &session, reporter)?;
        expected::note_all(bed, &expected, &results, reporter);
        let name = format!("free low memory after {STARTS} driver domains on Xen {}", bed.xen);
        match same_low_memory(&results) {
            Ok(said) => reporter.note(&format!("{name}: {said}"), Ok(())),
            Err(why) => reporter.note(&name, Err(why)),
        }
        Ok(())
    }))
}

/// Returns the guest that holds every second 64 KiB of low memory.
fn holder() -> Result<Expectation> {
    let args = KernelArgs::new("selftest=fragment-low-memory")?;
    let good = Expectation::success(GuestMode::PvDomu, "fragment", args, HOLDER_LIMIT);
    let expect = HOLDS.parse()?;
    Ok(good.with(|guest| {
        (guest.memory, guest.goal, guest.expect) = (Some(HOLDER_MIB), Goal::Stay, expect);
    }))
}

/// Returns a driver domain that is destroyed while it has a device, of either kind in turn.
fn start(number: u32, setup: &DriverSetup) -> Result<Expectation> {
    let label = format!("driver-domain-start-{number}");
    let (device, tests): (_, &[&str]) = match number % 2 {
        0 => (PassedDevice::Nvme, &NVME),
        _ => (PassedDevice::Edu, &EDU),
    };
    let domain = domain(&label, &tests.join(","), tests, vec![device])?;
    let args = format!("{} {} exit=hold", domain.guest.args.as_str(), setup.options());
    let args = KernelArgs::new(&args)?;
    // It does not close the connection.
    let domain = Expectation { words: "", ..domain };
    Ok(domain.with(|guest| {
        (guest.args, guest.goal) = (args, Goal::Destroy);
        guest.devices = setup.devices();
    }))
}

/// Compares Xen's free low memory before the first driver domain with that after the last one.
fn same_low_memory(results: &[(GuestOutcome, JobResult)]) -> std::result::Result<String, String> {
    let low = |result: Option<&(GuestOutcome, JobResult)>| {
        result.and_then(|(_, job)| low_pages(job.report.section("heap")))
    };
    let (Some(before), Some(after)) = (low(results.first()), low(results.last())) else {
        return Err("dom0 did not report Xen's heap".to_owned());
    };
    same(before, after)
}

fn same(before: u64, after: u64) -> std::result::Result<String, String> {
    let said = format!("{before} pages before, {after} after");
    if before.abs_diff(after) <= TOLERANCE { Ok(said) } else { Err(said) }
}

/// Returns the free pages of all low zones, of lines like `(XEN) heap[node=0][zone=16] -> 8191 pages`.
fn low_pages(lines: &[String]) -> Option<u64> {
    let zone = |line: &String| {
        let (zone, pages) = line.split_once("[zone=")?.1.split_once("] -> ")?;
        let pages = pages.split_whitespace().next()?.parse::<u64>().ok()?;
        Some((zone.parse::<u32>().ok()?, pages))
    };
    let zones: Vec<_> = lines.iter().filter_map(zone).collect();
    let low = zones.iter().filter(|(zone, _)| *zone <= LOW_ZONE).map(|(_, pages)| pages);
    (!zones.is_empty()).then(|| low.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_zones_are_added_up() {
        let text = "(XEN) heap[node=0][zone=0] -> 0 pages\n(XEN) heap[node=0][zone=15] -> 100 pages\n\
                    (XEN) heap[node=0][zone=16] -> 20 pages\n(XEN) heap[node=0][zone=17] -> 7 pages";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(low_pages(&lines), Some(120));
        assert_eq!(low_pages(&lines[3..]), Some(0));
        assert_eq!(low_pages(&[]), None, "nothing seen is nothing shown");
    }

    #[test]
    fn a_mebibyte_may_be_missing_and_no_more() {
        assert!(same(1000, 744).is_ok() && same(744, 1000).is_ok());
        assert!(same(1000, 743).unwrap_err().contains("743 after"));
        assert!(same(743, 1000).is_err());
    }
}
