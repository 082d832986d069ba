//! Guests in configurations of Xen that are not the usual ones: every self-test either adapts or is
//! skipped with the cause, and none fails for want of something that this Xen does not offer.

use std::sync::Arc;
use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::guest::{Guest, GuestVerdict};
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::Bed;

/// A guest takes seconds, a large one a minute.
const LIMIT: Duration = Duration::from_secs(300);

/// The limits of the exchange's order that Xen can be booted with: every order that it knows.
const ORDER_LIMITS: std::ops::RangeInclusive<u32> = 0..=18;

/// MiB of a dom0 under a limit of the order.
const SMALL_DOM0_MIB: u32 = 256;

/// Tries every configuration on each Xen and prints the last line.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let beds = context.beds(&mut reporter)?;
    let parts = beds.iter().flat_map(parts).collect();
    parallel::run(parts, &mut reporter);
    reporter.close(&context.settings.target)
}

/// Returns the parts for all configurations on one Xen.
pub fn parts(bed: &Bed) -> Vec<SuitePart<'_>> {
    let dom0s = ORDER_LIMITS.map(order_limit).chain(machines());
    let mut parts: Vec<_> = dom0s.map(|guest| expected::dom0(bed, guest)).collect();
    let domus = [GuestMode::PvDomu, GuestMode::PvhDomu].into_iter().flat_map(domus);
    // In a machine of their own: when QEMU stops one guest, it stops all guests of its machine.
    let (shaky, firm) = domus.partition(Expectation::may_stand_still);
    parts.push(expected::domus(bed, "linux-dom0-configurations", firm));
    parts.push(expected::domus(bed, "linux-dom0-many-vcpus", shaky));
    parts
}

/// Returns a guest that runs all its tests and succeeds.
fn all_tests(mode: GuestMode, label: &str) -> Expectation {
    let good = Expectation::success(mode, label, KernelArgs::default(), LIMIT);
    Expectation { passed: vec!["accounts-balanced"], ..good }
}

/// Returns a PV dom0 that may exchange extents up to this order (`memop-max-order`).
fn order_limit(order: u32) -> Expectation {
    let mut passed = vec![
        "accounts-balanced",
        "dma-release-any-sequence",
        "exchange-order-0",
        "order-limit-refused",
    ];
    if order >= 1 {
        passed.extend(["dma-odd-sizes", "dma-constraints", "dma-release-retained"]);
    }
    if order >= 3 {
        passed.push("neighbours-unharmed");
    }
    let good = all_tests(GuestMode::PvDom0, &format!("max-order-{order}"));
    let guest = good.guest.with_max_order(order);
    let guest = Guest { dom0_memory: Some(SMALL_DOM0_MIB), ..guest };
    Expectation { guest, passed, ..all_tests(GuestMode::PvDom0, "") }
}

/// Returns dom0s of machines of other sizes.
fn machines() -> Vec<Expectation> {
    let mut all = Vec::new();
    for mode in [GuestMode::PvDom0, GuestMode::PvhDom0] {
        // Xen scrubs free memory at boot, which takes minutes in the emulator.
        let large = all_tests(mode, "12-GiB").with(|guest| {
            guest.memory = Some(12 << 10);
            guest.xen_args = "bootscrub=0".to_owned();
        });
        let high = all_tests(mode, "above-4-GiB").with(|guest| {
            (guest.memory, guest.low_memory) = (Some(5 << 10), Some(1 << 10));
            guest.dom0_memory = Some(3 << 10);
        });
        let full = all_tests(mode, "full-host").with(|guest| {
            guest.memory = Some(512);
            guest.xen_args = "dom0_mem=-1M".to_owned();
        });
        all.extend([large, high, full]);
    }
    all
}

/// Returns the domUs of one mode.
fn domus(mode: GuestMode) -> Vec<Expectation> {
    let sized = |label: &str, mib| all_tests(mode, label).with(|guest| guest.memory = Some(mib));
    let mut all = vec![
        sized("12-MiB", 12),
        sized("1-GiB", 1024),
        shaken(mode),
        sized("16-MiB-32-vcpus", 16).with(|guest| guest.vcpus = Some(32)),
    ];
    if mode.is_pvh() {
        // Xen populates these on demand.
        for (label, mib, most) in [("16-of-64-MiB", 16, 64), ("64-of-1024-MiB", 64, 1024)] {
            all.push(sized(label, mib).with(|guest| guest.max_memory = Some(most)));
        }
    }
    all
}

/// Returns a domU whose maximum dom0 lowers and raises again all the time while the tests run.
fn shaken(mode: GuestMode) -> Expectation {
    all_tests(mode, "mem-max").with(|guest| guest.is_shaken = true)
}
