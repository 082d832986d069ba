//! Guests that return scarce memory to Xen, on a machine with memory on both sides of 4 GiB.

use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
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
    let passed = TESTS.to_vec();
    Ok(Expectation { passed, ..good }.with(|guest| guest.low_memory = Some(LOW_MIB)))
}

/// Returns the PV dom0s.
pub fn dom0s(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    let dom0 = |(label, mib)| {
        let dom0 = guest(GuestMode::PvDom0, label)?.with(|guest| {
            (guest.memory, guest.dom0_memory) = (Some(MACHINE_MIB), Some(mib));
        });
        Ok(expected::dom0(bed, dom0))
    };
    DOM0S.into_iter().map(dom0).collect()
}

/// Returns a part with a PV domU.
pub fn domu(bed: &Bed) -> Result<SuitePart<'_>> {
    let domu = guest(GuestMode::PvDomu, "high-memory")?;
    Ok(expected::domus(bed, "linux-dom0-low-memory", vec![domu]))
}
