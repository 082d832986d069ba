//! Guests of which something else than SUCCESS is expected, or SUCCESS under odd conditions.

use std::time::Duration;

use super::{PATIENCE, args};
use crate::choice::GuestMode;
use crate::error::Result;
use crate::expectation::Expectation;
use crate::guest::GuestVerdict;

/// For guests that end by themselves, some of them in slow company.
const LIMIT: Duration = Duration::from_secs(120);

const MISBEHAVIOUR: [(&str, &str, GuestVerdict, &str); 9] = [
    ("panic", "selftest=misbehave-panic", GuestVerdict::Crash, "no verdict"),
    ("panic-in-console", "selftest=misbehave-panic-in-console", GuestVerdict::Crash, "no verdict"),
    ("panic-in-panic", "selftest=misbehave-panic-in-panic", GuestVerdict::Crash, "no verdict"),
    ("panic-thrice", "selftest=misbehave-panic-thrice", GuestVerdict::Crash, "no verdict"),
    (
        "panic-without-shared-page",
        "selftest=misbehave-panic-without-shared-page",
        GuestVerdict::Crash,
        "no verdict",
    ),
    ("hang", "selftest=misbehave-hang", GuestVerdict::Timeout, "no verdict and kept running"),
    ("triple-fault", "selftest=misbehave-triple-fault", GuestVerdict::Crash, "no verdict"),
    ("silent-poweroff", "selftest=misbehave-silent-poweroff", GuestVerdict::Crash, "powered off"),
    ("hold", "selftest=none exit=hold", GuestVerdict::Timeout, "yet kept running"),
];

const WRONG_OPTIONS: [(&str, &str, GuestVerdict, &str); 4] = [
    ("unknown-option", "selftest=none wibble=1", GuestVerdict::Error, "wibble"),
    (
        "unknown-test",
        "selftest=stale-alias,exchange-order4",
        GuestVerdict::Error,
        "exchange-order4",
    ),
    ("malformed-option", "selftest=none seed=many", GuestVerdict::Error, "many"),
    ("probe-too-narrow", "selftest=none probe=40:9", GuestVerdict::Error, "40:9"),
];

fn odd(
    mode: GuestMode,
    (label, text, verdict, words): (&'static str, &str, GuestVerdict, &'static str),
) -> Result<Expectation> {
    let limit = if verdict == GuestVerdict::Timeout { PATIENCE } else { LIMIT };
    let good = Expectation::success(mode, label, args(text)?, limit);
    Ok(Expectation { verdict, words, ..good })
}

fn sized(
    mode: GuestMode,
    label: &'static str,
    memory: u32,
    verdict: GuestVerdict,
    words: &'static str,
) -> Result<Expectation> {
    let expectation = odd(mode, (label, "", verdict, words))?;
    Ok(expectation.with(|guest| guest.memory = Some(memory)))
}

/// What the `edu` device must have been through.
const DEVICE_TESTS: [&str; 7] = [
    "edu-found",
    "edu-dma-above-mask",
    "edu-dma-round-trip",
    "edu-dma-mask-edge",
    "edu-dma-coherent-buffer",
    "edu-dma-typed-ring",
    "edu-dma-streaming",
];

/// A dom0 of 4 GiB, most of which a device of 28 address bits can't reach.
fn with_device(mode: GuestMode) -> Result<Expectation> {
    let expectation = odd(mode, ("device-4-GiB", "selftest=edu-*", GuestVerdict::Success, ""))?;
    let mut passed = DEVICE_TESTS.to_vec();
    if mode == GuestMode::PvDom0 {
        // In a translated guest, memory in use keeps the addresses that devices see.
        passed.push("edu-dma-in-place");
    }
    Ok(Expectation { passed, ..expectation }.with(|guest| guest.memory = Some(4096)))
}

/// Orders that a dom0 with the default memory can't be given, since Xen keeps too little.
const HIGH_ORDERS: [&str; 6] = [
    "exchange-order-13",
    "exchange-order-14",
    "exchange-order-15",
    "exchange-order-16",
    "exchange-order-17",
    "exchange-order-18",
];

/// A dom0 with room for a run of order 18, on a machine where Xen has such an extent to give.
fn every_order() -> Result<Expectation> {
    let args = "selftest=exchange-order-*,accounts-balanced";
    let expectation = odd(GuestMode::PvDom0, ("every-order", args, GuestVerdict::Success, ""))?;
    let sized = expectation.with(|guest| {
        (guest.memory, guest.dom0_memory) = (Some(6144), Some(1300));
    });
    Ok(Expectation { passed: HIGH_ORDERS.to_vec(), ..sized })
}

/// A guest with `maxmem` above `memory`, which Xen populates on demand. The kernel must return the
/// difference of 204 MiB before it touches a frame of it.
fn populated_on_demand() -> Result<Expectation> {
    let words = "populate on demand: 52224 frames (204 MiB)";
    let guest = sized(GuestMode::PvhDomu, "maxmem-300", 96, GuestVerdict::Success, words)?;
    let passed = vec!["memory-is-backed", "refill-order-0", "accounts-balanced"];
    Ok(Expectation { passed, ..guest }.with(|guest| guest.max_memory = Some(300)))
}

/// Tests that return frames to Xen and want them back, and the accounts.
const REFILLS: &str = "selftest=memory-is-backed,refill-*,neighbours-unharmed,vmap-refill-purges,c76-*,\
                       c77-*,same-script,accounts-balanced";

/// A guest that `xl mem-set` has reduced below what it has. Xen replaces no frame that it returns.
fn reduced(mode: GuestMode) -> Result<Expectation> {
    let words = "too many, so Xen replaces none";
    let guest = odd(mode, ("mem-set-48", REFILLS, GuestVerdict::Success, words))?;
    let passed = vec!["memory-is-backed", "accounts-balanced"];
    Ok(Expectation { passed, ..guest }.with(|guest| guest.reduced_to = Some(48)))
}

/// The command lines with which Xen's CI boots a test of XTF. dom0 gets every processor of the machine,
/// no options of its own, and whatever Xen itself adds.
const CI_LINES: [(GuestMode, &str); 2] = [
    (GuestMode::PvDom0, "loglvl=all noreboot console_timestamps=boot console=com1"),
    (
        GuestMode::PvhDom0,
        "loglvl=all noreboot console_timestamps=boot console=com1 dom0-iommu=none dom0=pvh",
    ),
];

/// Returns the guests that Xen's CI boots.
fn of_ci() -> Result<Vec<Expectation>> {
    let guest = |(mode, line)| {
        let expectation = odd(mode, ("xtf", "", GuestVerdict::Success, ""))?;
        Ok(expectation.with(|guest| (guest.xen_line, guest.vcpus) = (Some(line), Some(2))))
    };
    CI_LINES.into_iter().map(guest).collect()
}

/// A dom0 to whose command line Xen adds options of its own, as it does if the machine or its own
/// command line makes it.
fn with_options_of_xen() -> Result<Expectation> {
    let tests = "selftest=exchange-order-0,accounts-balanced";
    let guest = odd(GuestMode::PvDom0, ("acpi", tests, GuestVerdict::Success, ""))?;
    Ok(guest.with(|guest| guest.xen_args = "acpi=verbose".to_owned()))
}

/// A command line of the greatest length that a PV guest gets. Xen may have cut it.
fn too_long(mode: GuestMode) -> Result<Expectation> {
    const BYTES: usize = 1023;
    let text = format!("selftest=none seed={:0>1$}", 1, BYTES - "selftest=none seed=".len());
    odd(mode, ("long-command-line", &text, GuestVerdict::Error, "1023 bytes arrived"))
}

/// What is tried as dom0. A dom0 ends in other ways than a domU: Xen goes down with it.
pub fn dom0s() -> Result<Vec<Expectation>> {
    let mut all = Vec::new();
    for mode in [GuestMode::PvDom0, GuestMode::PvhDom0] {
        for which in MISBEHAVIOUR {
            all.push(odd(mode, which)?);
        }
    }
    all.push(odd(GuestMode::PvDom0, WRONG_OPTIONS[0])?);
    all.push(with_device(GuestMode::PvDom0)?);
    all.push(with_device(GuestMode::PvhDom0)?);
    all.push(every_order()?);
    all.extend(of_ci()?);
    all.push(with_options_of_xen()?);
    all.push(with_a_silent_xen()?);
    Ok(all)
}

/// A dom0 whose end Xen does not print, because its command line hides warnings. The guest's own verdict
/// is SUCCESS, but whether it then powered off or crashed is not known.
fn with_a_silent_xen() -> Result<Expectation> {
    let tests = "selftest=exchange-order-0";
    let words = "Xen printed no reason";
    let guest = odd(GuestMode::PvDom0, ("silent-xen", tests, GuestVerdict::Error, words))?;
    Ok(guest.with(|guest| guest.xen_args = "loglvl=none".to_owned()))
}

/// Returns the guests that are tried as domU in one mode. Guests with several vCPUs are in `bed vcpus`.
pub fn domus(mode: GuestMode) -> Result<Vec<Expectation>> {
    let mut all = Vec::new();
    for which in MISBEHAVIOUR.into_iter().chain(WRONG_OPTIONS) {
        all.push(odd(mode, which)?);
    }
    all.push(sized(mode, "16-MiB", 16, GuestVerdict::Success, "")?);
    all.push(reduced(mode)?);
    if mode == GuestMode::PvDomu {
        all.push(too_long(mode)?);
        // A PV guest of this size has no room for its page tables. The toolstack refuses smaller ones: what
        // it maps at the start, the image included, ends at a multiple of 4 MiB.
        all.push(sized(mode, "8-MiB", 8, GuestVerdict::Crash, "not enough memory")?);
    } else {
        all.push(populated_on_demand()?);
        all.push(sized(mode, "4-GiB", 4096, GuestVerdict::Success, "")?);
        // A PVH guest that is smaller than the image, which begins at 2 MiB, can't be made.
        all.push(sized(mode, "5-MiB", 5, GuestVerdict::Success, "")?);
        all.push(sized(mode, "1-MiB", 1, GuestVerdict::Error, "xl create failed")?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut guests = dom0s().unwrap();
        guests.extend(
            [GuestMode::PvDomu, GuestMode::PvhDomu]
                .into_iter()
                .flat_map(|mode| domus(mode).unwrap()),
        );
        let mut names: Vec<String> = guests.into_iter().map(|it| it.guest.name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
