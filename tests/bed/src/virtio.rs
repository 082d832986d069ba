//! `bed virtio`: does a driver of the crate `virtio-drivers`, on the library's adapter, move data between
//! a real device and memory that Xen exchanged?
//!
//! The device is a virtio disk of QEMU's, which does not know Xen and takes machine addresses. Its file
//! is made here, with content that the guest checks, and read here after the guest has ended.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::boot::Dom0Boot;
use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::expectation::Expectation;
use crate::guest::GuestVerdict;
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::{Bed, write};
use crate::witness::fresh_seed;

/// The disk, in the boot's directory.
const DISK: &str = "disk.img";

/// Words of 64 bits on the disk: 256 KiB. The guest writes the second half.
const WORDS: usize = 32 << 10;

/// MiB of the machine, and of dom0: Xen serves dom0 from the top and keeps memory that a device with
/// 28 address bits reaches.
const MACHINE_MIB: u32 = 1024;
const DOM0_MIB: u32 = 512;

/// What must have passed.
const PASSED: [&str; 4] =
    ["virtio-blk-queue", "virtio-blk-reads", "virtio-blk-writes", "accounts-balanced"];

/// Tries both kinds of dom0 on each Xen and prints the last line.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let beds = context.beds(&mut reporter)?;
    let mut parts = Vec::new();
    for bed in &beds {
        parts.extend(self::parts(bed)?);
    }
    parallel::run(parts, &mut reporter);
    reporter.close(&context.settings.target)
}

/// Returns the parts for both kinds of dom0 on one Xen.
pub fn parts(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    [GuestMode::PvDom0, GuestMode::PvhDom0].into_iter().map(|mode| part(bed, mode)).collect()
}

fn part(bed: &Bed, mode: GuestMode) -> Result<SuitePart<'_>> {
    let seed = fresh_seed();
    let expected = expectation(mode, seed, bed.context.settings.timeout)?;
    Ok(SuitePart::new(expected.guest.need(), move |reporter| {
        let guest = &expected.guest;
        let name = format!("{} on Xen {}", guest.name, bed.xen);
        reporter.step(&name, "what the guest wrote to the disk");
        let disk = bed.fresh_log_dir(&guest.name)?.join(DISK);
        write(&disk, &content(seed, |_, word| word))?;
        let outcome = Dom0Boot::judged_with_files(bed, guest, reporter)?;
        reporter.note(&name, expected.met_by(&outcome));
        let found = fs::read(&disk).map_err(|e| Error::file("reading", &disk, e))?;
        let written = is_written(seed, &found, &disk);
        reporter.note(&format!("{name}: its disk, seen from outside"), written);
        Ok(())
    }))
}

fn expectation(mode: GuestMode, seed: u64, limit: Duration) -> Result<Expectation> {
    let args = KernelArgs::new(&format!("selftest=virtio-*,accounts-balanced seed={seed}"))?;
    let good = Expectation::success(mode, "virtio", args, limit);
    Ok(Expectation { passed: PASSED.to_vec(), ..good }.with(|guest| {
        (guest.memory, guest.dom0_memory) = (Some(MACHINE_MIB), Some(DOM0_MIB));
        guest.disk = Some(DISK);
    }))
}

/// What a disk holds of which word `i` was made of `seed + i`.
fn content(seed: u64, make: impl Fn(usize, u64) -> u64) -> Vec<u8> {
    let words = (0..WORDS).map(|index| make(index, seed.wrapping_add(index as u64)));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Whether the first half is as it was made, and the second the complement of it.
fn is_written(seed: u64, found: &[u8], disk: &Path) -> std::result::Result<(), String> {
    let complete = |index, word: u64| if index < WORDS / 2 { word } else { !word };
    let expected = content(seed, complete);
    if found.len() != expected.len() {
        return Err(format!("{} has {} bytes now", disk.display(), found.len()));
    }
    match found.iter().zip(&expected).position(|(found, expected)| found != expected) {
        None => Ok(()),
        Some(at) => Err(format!(
            "byte {at} of {} is {:#04x}, not {:#04x}",
            disk.display(),
            found[at],
            expected[at]
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_half_must_be_the_complement() {
        let disk = Path::new("disk.img");
        let seed = u64::MAX - 5;
        let untouched = content(seed, |_, word| word);
        assert_eq!(untouched[..9], [250, 255, 255, 255, 255, 255, 255, 255, 251]);
        let half = WORDS / 2 * 8;
        let mut written = untouched.clone();
        written[half..].iter_mut().for_each(|byte| *byte = !*byte);
        assert_eq!(is_written(seed, &written, disk), Ok(()));
        for (at, change) in [(0, "byte 0 "), (half - 1, "byte 131071 "), (half, "byte 131072 ")] {
            let mut wrong = written.clone();
            wrong[at] = !wrong[at];
            let fault = is_written(seed, &wrong, disk).unwrap_err();
            assert!(fault.contains(change), "{fault}");
        }
        assert!(is_written(seed, &untouched, disk).unwrap_err().contains("byte 131072 "));
        assert!(is_written(seed, &written[1..], disk).unwrap_err().contains("262143"));
        assert!(is_written(seed + 1, &written, disk).is_err());
    }
}
