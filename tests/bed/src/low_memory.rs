//! Guests that return scarce memory to Xen, on a machine with memory on both sides of 4 GiB.

use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::context::SuiteContext;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::parallel::SuitePart;
use crate::setup::Bed;

/// The self-tests that release memory, and the one that counts what may have been lost.
const TESTS: [&str; 5] = [
    "dma-release-retained",
    "dma-release-nothing-retained",
    "dma-release-any-sequence",
    "dma-reclaimed-without-xen",
    "accounts-balanced",
];

/// MiB of the machine below 4 GiB. QEMU wants a whole number of GiB.
const LOW_MIB: u32 = 1024;

/// MiB of a dom0's machine: half a GiB is above 4 GiB.
const MACHINE_MIB: u32 = 1536;

/// The labels of the dom0s and their MiB.
///
/// Xen hands out high memory first. So the first dom0 has high memory only, and Xen keeps memory of both
/// kinds. The second dom0 has memory of both kinds.
const DOM0S: [(&str, u32); 2] = [("high-memory", 256), ("both-memories", 640)];

/// A guest takes seconds.
const LIMIT: Duration = Duration::from_secs(120);

fn guest(mode: GuestMode, label: &'static str) -> Result<Expectation> {
    let args = KernelArgs::new(&format!("selftest={}", TESTS.join(",")))?;
    let good = Expectation::success(mode, label, args, LIMIT);
    Ok(Expectation { low_memory: Some(LOW_MIB), passed: TESTS.to_vec(), ..good })
}

/// Returns the PV dom0s.
pub fn dom0s<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<Vec<SuitePart<'p>>> {
    let dom0 = |(label, mib)| {
        let dom0 = Expectation {
            memory: Some(MACHINE_MIB),
            dom0_memory: Some(mib),
            ..guest(GuestMode::PvDom0, label)?
        };
        Ok(expected::dom0(context, bed, dom0))
    };
    DOM0S.into_iter().map(dom0).collect()
}

/// Returns a part with a PV domU.
pub fn domu<'p>(context: &'p SuiteContext, bed: &'p Bed) -> Result<SuitePart<'p>> {
    let domu = guest(GuestMode::PvDomu, "high-memory")?;
    Ok(expected::domus(context, bed, "linux-dom0-low-memory", vec![domu]))
}
