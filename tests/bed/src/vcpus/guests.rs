//! The guests with several vCPUs, and the tests that must have passed in each.

use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::error::Result;
use crate::expectation::Expectation;

/// What is tried on one Xen.
pub struct Guests {
    /// A machine each.
    pub dom0s: Vec<Expectation>,
    /// All in one boot of the Linux dom0.
    pub domus: Vec<Expectation>,
}

/// The tests that the number of vCPUs can make a difference to.
const CHOSEN: &str = "selftest=vmap-*,vcpus-*,storm-short,stale-alias,accounts-balanced";

/// A hundred thousand operations.
const STORM: &str = "selftest=storm,accounts-balanced";

/// A dom0's storm takes more than a minute on two processors that have nothing else to do.
const STORM_LIMIT: Duration = Duration::from_secs(1200);

/// Processors of a storming dom0's machine. With fewer of them than vCPUs, Xen takes a vCPU off its
/// processor at any place, and what runs side by side has a real processor to run on.
const STORM_PROCESSORS: u32 = 2;

/// MiB of a storming dom0's machine: what a storm leaves free is little in any case, and what it
/// takes first has to be found.
const STORM_MIB: u32 = 512;

/// In every guest.
const ALWAYS: [&str; 9] = [
    "vcpus-online",
    "vcpus-work",
    "vcpus-wake-ups",
    "vcpus-fault",
    "vcpus-masked",
    "vmap-shows-its-frames",
    "vmap-purge-flushes-nothing",
    "vmap-purge-is-exact",
    "accounts-balanced",
];

/// Where memory is exchanged.
const PV: [&str; 6] = [
    "vmap-leftover-purged",
    "vmap-in-use-named",
    "vmap-holders-named",
    "vmap-one-flush-per-exchange",
    "vmap-lazy-and-sync",
    "stale-alias",
];

/// Where there is a second vCPU.
const SEVERAL: [&str; 1] = ["vcpus-idle-blocks"];

/// A PVH guest takes less than a minute on a quiet machine, and it may have to be tried again. On a busy
/// machine 90 seconds were not enough for its DMA tests, twice.
const PVH_LIMIT: Duration = Duration::from_secs(180);

/// Where there is one, and memory is exchanged.
const SEVERAL_PV: [&str; 1] = ["vmap-other-vcpu-faults"];

/// Returns a guest with `vcpus` vCPUs and the tests that it must pass.
fn guest(
    mode: GuestMode,
    label: &'static str,
    vcpus: u32,
    args: &str,
    limit: Duration,
) -> Result<Expectation> {
    let is_pv = matches!(mode, GuestMode::PvDom0 | GuestMode::PvDomu);
    let mut passed = ALWAYS.to_vec();
    passed.push("storm-short");
    if is_pv {
        passed.extend(PV);
    } else {
        passed.push("vmap-refill-purges");
    }
    if vcpus > 1 {
        passed.extend(SEVERAL);
    }
    if vcpus > 1 && is_pv {
        passed.extend(SEVERAL_PV);
    }
    let good = Expectation::success(mode, label, KernelArgs::new(args)?, limit);
    Ok(Expectation { passed, ..good }.with(|guest| guest.vcpus = Some(vcpus)))
}

fn storm(mode: GuestMode, limit: Duration) -> Result<Expectation> {
    let args = KernelArgs::new(STORM)?;
    let good = Expectation::success(mode, "storm", args, limit.max(STORM_LIMIT));
    // A domU's machine has two processors anyway, and the domU as much memory as configured.
    let machine = |value| mode.is_dom0().then_some(value);
    let passed = vec!["storm", "accounts-balanced"];
    Ok(Expectation { passed, ..good }.with(|guest| {
        guest.vcpus = Some(4);
        (guest.memory, guest.processors) = (machine(STORM_MIB), machine(STORM_PROCESSORS));
    }))
}

/// All guests of one Xen. Each but the storms may take `limit`.
pub fn of(limit: Duration) -> Result<Guests> {
    let sync = format!("{CHOSEN} vmap=sync");
    let mut all = Vec::new();
    for mode in [GuestMode::PvDom0, GuestMode::PvDomu] {
        all.push(guest(mode, "1-vcpu", 1, CHOSEN, limit)?);
        all.push(guest(mode, "2-vcpus", 2, CHOSEN, limit)?);
        all.push(guest(mode, "2-vcpus-sync", 2, &sync, limit)?);
        all.push(guest(mode, "4-vcpus", 4, "", limit)?);
    }
    for mode in [GuestMode::PvhDom0, GuestMode::PvhDomu] {
        all.push(guest(mode, "4-vcpus", 4, "", limit.min(PVH_LIMIT))?);
    }
    let many =
        Expectation::success(GuestMode::PvDomu, "4-GiB-8-vcpus", KernelArgs::default(), limit);
    let many = Expectation { passed: ALWAYS.to_vec(), ..many };
    all.push(many.with(|guest| (guest.memory, guest.vcpus) = (Some(4096), Some(8))));
    for mode in [GuestMode::PvDom0, GuestMode::PvDomu] {
        all.push(storm(mode, limit)?);
    }
    let (dom0s, domus) = all.into_iter().partition(|it| it.guest.mode.is_dom0());
    Ok(Guests { dom0s, domus })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_says_what_must_have_passed() {
        let Guests { dom0s, domus } = of(Duration::from_secs(9)).unwrap();
        assert_eq!((dom0s.len(), domus.len()), (6, 7));
        let mut names: Vec<_> =
            dom0s.iter().chain(&domus).map(|it| it.guest.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 13);
        for guest in dom0s.iter().chain(&domus) {
            assert!(guest.passed.contains(&"accounts-balanced"), "{}", guest.guest.name);
        }
        let named = |name: &str| dom0s.iter().find(|it| it.guest.name == name).unwrap();
        assert!(!named("pv-dom0-1-vcpu").passed.contains(&"vmap-other-vcpu-faults"));
        assert!(named("pv-dom0-2-vcpus").passed.contains(&"vmap-other-vcpu-faults"));
        assert!(!named("pvh-dom0-4-vcpus").passed.contains(&"vmap-leftover-purged"));
        assert!(named("pv-dom0-storm").passed.contains(&"storm"));
        assert!(named("pv-dom0-storm").guest.limit >= STORM_LIMIT);
    }
}
