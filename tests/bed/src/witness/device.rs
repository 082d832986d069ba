//! Which machine frame does a device write to that is given guest frame numbers?
//!
//! A PVH dom0 has QEMU's `edu` device write a pattern and prints the address that it gave the device.
//! The IOMMU translates it to a machine address that the guest does not know. So the pattern must be
//! in the machine's memory once, at another address.

use super::{LIMIT, dump, fresh_seed};
use crate::boot::Dom0Boot;
use crate::choice::{GuestMode, KernelArgs};
use crate::error::Result;
use crate::guest::Guest;
use crate::parallel::{Need, SuitePart};
use crate::report::Reporter;
use crate::setup::{Bed, write};

/// MiB of the machine: all of it is searched.
const MIB: u32 = 512;
const PAGE: usize = 4096;
const PREFIX: &str = "edu: ";

/// Returns a part that boots the image as PVH dom0, has the device write, and searches the machine's
/// memory for what it wrote.
pub fn device(bed: &Bed) -> SuitePart<'_> {
    SuitePart::new(Need::machine(1, MIB), move |reporter| {
        let seen = search(bed, reporter)?;
        reporter.note("witness of the device behind the IOMMU, pvh-dom0", seen);
        Ok(())
    })
}

fn search(bed: &Bed, reporter: &mut Reporter) -> Result<std::result::Result<(), String>> {
    let seed = fresh_seed();
    let args = KernelArgs::new(&format!("selftest=edu-dma-shown seed={seed}"))?;
    let guest = Guest::new(GuestMode::PvhDom0, "witness-pvh-dom0-device", args, LIMIT);
    let guest = Guest { memory: Some(MIB), ..guest };
    let dir = bed.fresh_log_dir(&guest.name)?;
    reporter.step("witness: a PVH dom0's device writes", "searching the machine's memory");
    let is_claim = |line: &str| line.starts_with(PREFIX);
    let mut boot = Dom0Boot::run(bed, &guest, reporter, is_claim)?;
    write(&dir.join("console.log"), boot.log.guest.join("\n").as_bytes())?;
    let Some(claim) = boot.log.guest.iter().find_map(|line| DeviceClaim::parse(line)) else {
        return Ok(Err(format!(
            "the guest does not say where the device wrote; see {}",
            dir.display()
        )));
    };
    let memory = dump(&mut boot.machine, 0, u64::from(MIB) << 20, &dir)?;
    std::fs::remove_file(dir.join("memory.bin")).ok();
    Ok(check(&claim, seed, &memory))
}

/// What the guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DeviceClaim {
    seed: u64,
    bytes: u64,
    /// The address that it gave the device.
    dma: u64,
}

impl DeviceClaim {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(PREFIX)?.split(' ');
        let mut field = |name: &str| words.next()?.strip_prefix(name);
        let seed = field("seed=")?.parse().ok()?;
        let bytes = field("bytes=")?.parse().ok()?;
        let dma = u64::from_str_radix(field("dma=0x")?, 16).ok()?;
        Some(Self { seed, bytes, dma })
    }
}

fn check(claim: &DeviceClaim, seed: u64, memory: &[u8]) -> std::result::Result<(), String> {
    if claim.seed != seed || claim.bytes < 8 {
        return Err(format!("seed {seed} was asked for, the guest says {claim:x?}"));
    }
    let pattern: Vec<u8> =
        (0..claim.bytes / 8).flat_map(|word| seed.wrapping_add(word).to_le_bytes()).collect();
    let pages = memory.chunks(PAGE).enumerate();
    let found: Vec<u64> = pages
        .filter(|(_, page)| page.starts_with(&pattern))
        .map(|(index, _)| (index * PAGE) as u64)
        .collect();
    match found.as_slice() {
        [machine] if *machine != claim.dma => Ok(()),
        [_] => Err(format!("the device wrote to {:#x} as told: nothing translates", claim.dma)),
        [] => Err(format!("what the device wrote at {:#x} is nowhere", claim.dma)),
        many => Err(format!("what the device wrote at {:#x} is at {many:x?}", claim.dma)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0x1234_5678;

    fn memory(places: &[usize]) -> Vec<u8> {
        let mut memory = vec![0; 8 * PAGE];
        for place in places {
            for word in 0..4 {
                let at = place * PAGE + word * 8;
                memory[at..at + 8].copy_from_slice(&(SEED + word as u64).to_le_bytes());
            }
        }
        memory
    }

    #[test]
    fn the_pattern_must_lie_once_and_elsewhere() {
        let claim = DeviceClaim::parse("edu: seed=305419896 bytes=32 dma=0x3000").unwrap();
        assert_eq!(claim, DeviceClaim { seed: SEED, bytes: 32, dma: 0x3000 });
        assert_eq!(check(&claim, SEED, &memory(&[5])), Ok(()));
        for (places, words) in
            [(&[3][..], "nothing translates"), (&[], "nowhere"), (&[3, 5], "is at")]
        {
            let fault = check(&claim, SEED, &memory(places)).unwrap_err();
            assert!(fault.contains(words), "{fault}");
        }
        assert!(check(&claim, SEED + 1, &memory(&[5])).is_err());
        assert_eq!(DeviceClaim::parse("edu: seed=1 bytes=8 dma=3000"), None);
    }
}
