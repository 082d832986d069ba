//! The common part of the self-tests of drivers that others wrote.
//!
//! | file | what it does |
//! |---|---|
//! | [`watch`] | records the addresses that a driver got, and checks which memory they name |
//! | [`watched_dma`] | does that for drivers on the crate `dma-api` |
//! | [`tally`] | prints what a test has cost, as one line for the test bed |

pub mod tally;
pub mod watch;
pub mod watched_dma;

use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::frames::Candidate;

use self::watch::{AddressKind, HandedAddress};
use super::{Check, TestContext, TestOutcome, error, fail, skip};
use crate::drivers::memory::{Narrow, Wide, allocator, set_up};
use crate::drivers::{DeviceFunction, DeviceKind};
use crate::machine::Machine;

/// Finds a device, or skips the test if there is none. Forgets what earlier tests recorded.
pub fn find(context: &TestContext<'_>, kind: DeviceKind) -> Result<DeviceFunction, TestOutcome> {
    set_up(context.machine);
    watch::take();
    watched_dma::forget();
    match DeviceFunction::find(context.machine, kind) {
        Ok(device) => Ok(device),
        Err(why) if why.is_expected() => skip!("{why}"),
        Err(why) => error!("{why}"),
    }
}

/// Skips the test unless all memory of the narrow devices must be exchanged.
pub fn nothing_in_reach(machine: &Machine) -> Check {
    let constraints = Narrow::device().limits();
    let in_reach = |pfn| {
        let frame = machine.p2m.mfn(pfn).map(|mfn| mfn.number() << 12);
        frame.is_some_and(|start| constraints.admits(start, 1))
    };
    let found = machine.frames.lock().take_first(1, &mut |pfn| match in_reach(pfn) {
        true => Candidate::Fits,
        false => Candidate::TryFrom(pfn.add(1)),
    });
    match found {
        None => Ok(()),
        Some(run) => {
            let pfn = run.first();
            machine.give(run);
            skip!(
                "pfn {pfn} is within the mask without an exchange; give dom0 less memory (Xen: \
                 dom0_mem=512M)"
            )
        }
    }
}

/// Checks that an address names the guest's memory, and that the memory was exchanged if needed.
pub fn examine(machine: &Machine, one: &HandedAddress) -> Check {
    one.check()?;
    let exchanges = match one.how {
        AddressKind::InPlace => 0..=0,
        _ if machine.exchanger().is_none() => 0..=0,
        // Memory that an earlier exchange left in the reserve needs no exchange.
        _ => 0..=1,
    };
    if !exchanges.contains(&one.exchanges) {
        fail!("{one}, expected {exchanges:?} exchanges");
    }
    Ok(())
}

/// Checks that no buffer is in use, and that no scarce frame is lent to the kernel.
pub fn is_balanced() -> Check {
    let report = allocator().trim(u64::MAX);
    if let Some(error) = report.error {
        fail!("trimming: {error}, {report:?}");
    }
    let (narrow, wide, stats) = (Narrow::device(), Wide::device(), allocator().stats());
    if (narrow.live(), wide.live(), stats.lent, stats.refusals) != (0, 0, 0, 0) {
        fail!("expected no buffer in use and no lent frame: {narrow:?}, {wide:?}, {stats:?}");
    }
    Ok(())
}

/// Returns the byte at an offset of a disk that the test bed created, before any write.
pub fn original_byte(seed: u64, at: usize) -> u8 {
    seed.wrapping_add(at as u64 / 8).to_le_bytes()[at % 8]
}
