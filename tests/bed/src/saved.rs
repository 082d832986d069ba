//! Guests that are saved and restored, on each Xen.

use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::parallel::SuitePart;
use crate::setup::Bed;

/// The self-test of saving, and the one that counts what may have been lost.
const TESTS: [&str; 2] = ["c75-save-and-restore", "accounts-balanced"];

/// For a guest that waits until it is saved, kept, saved again and restored.
const LIMIT: Duration = Duration::from_secs(120);

/// What the name of each guest ends with.
pub const LABEL: &str = "saved";

/// Returns a part that saves and restores a PV and a PVH guest on one Xen.
pub fn part(bed: &Bed) -> Result<SuitePart<'_>> {
    Ok(expected::domus(bed, "linux-dom0-saved", guests()?))
}

/// Returns a PV and a PVH guest.
pub fn guests() -> Result<Vec<Expectation>> {
    [GuestMode::PvDomu, GuestMode::PvhDomu].into_iter().map(guest).collect()
}

fn guest(mode: GuestMode) -> Result<Expectation> {
    let args = KernelArgs::new(&format!("selftest={}", TESTS.join(",")))?;
    let good = Expectation::success(mode, LABEL, args, LIMIT);
    Ok(Expectation { words: "# c75: restored", passed: TESTS.to_vec(), ..good })
}
