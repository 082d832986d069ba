//! Can the driver of the crate `nvme-driver` move data between an NVMe disk and exchanged memory, through
//! the adapter's `DmaOp`?
//!
//! The disk is QEMU's. In PV it uses machine addresses, in PVH guest addresses, which the IOMMU translates. The
//! test bed creates the disk and reads it afterwards, so the result is also checked from outside. At first
//! word `i` of the disk contains `seed + i` (64 bits, the lowest byte first), and the serial number is the
//! seed. After the tests the second half contains the complement.
//!
//! | file | question |
//! |---|---|
//! | [`identify`] | what is the disk, and did its queues get exchanged memory? |
//! | [`transfers`] | are all bytes transferred, and no others? |

mod identify;
mod transfers;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_contig::adapters::virtio_drivers::StaticDevice;

use super::drivers::{original_byte, watched_dma};
use super::{Check, Test, TestContext, TestOutcome, fail, skip};
use crate::command_line::When;
use crate::drivers::memory::Kernel;
use crate::drivers::nvme::NvmeDisk;
use crate::drivers::{DeviceFunction, NvmeError};

pub fn add(tests: &mut Vec<Test>) {
    // They are not run by default, because they write to a disk.
    let mut asked = |name, run| tests.push(Test::new(name, run).when(When::Asked));
    asked("nvme-identify", identify::identify as fn(&TestContext<'_>) -> Check);
    asked("nvme-sequential", transfers::sequential);
    asked("nvme-random", transfers::random);
}

/// The size of the disk in bytes. The first half is only read.
const DISK_BYTES: usize = 16 << 20;

/// Starts the disk.
fn start<S: StaticDevice<Platform = Kernel> + 'static>(
    device: DeviceFunction,
) -> Result<(NvmeDisk, Identity), TestOutcome> {
    let disk = NvmeDisk::start(device, watched_dma::device_dma::<S>()).map_err(broken)?;
    match watched_dma::first_freed().and_then(|bytes| Identity::of(&bytes)) {
        Some(identity) => Ok((disk, identity)),
        None => fail!("the driver freed no identify data"),
    }
}

/// Starts the disk, if the test bed created it for these tests. Otherwise skips the test without a write.
fn start_test_disk<S: StaticDevice<Platform = Kernel> + 'static>(
    context: &TestContext<'_>,
    device: DeviceFunction,
) -> Result<NvmeDisk, TestOutcome> {
    let (disk, identity) = start::<S>(device)?;
    let (expected, info) = (format!("{:016x}", context.seed), disk.info().device);
    if identity.serial != expected {
        skip!(
            "the disk has the serial number \"{}\", not \"{expected}\" of seed {}, so it is left alone",
            identity.serial,
            context.seed
        );
    }
    let bytes = info.num_blocks.saturating_mul(info.logical_block_size as u64);
    if bytes != DISK_BYTES as u64 {
        skip!("the disk has {bytes} bytes, not {DISK_BYTES}, so it is left alone");
    }
    Ok(disk)
}

/// Returns the outcome of a test in which the disk failed.
fn broken(error: NvmeError) -> TestOutcome {
    TestOutcome::Fail(format!("{error}"))
}

/// The identity that a controller reports: a part of the "Identify Controller data structure" (NVM Express base
/// specification 2.0, figure 276).
struct Identity {
    serial: String,
    model: String,
    firmware: String,
}

impl Identity {
    fn of(data: &[u8]) -> Option<Self> {
        let text = |range| {
            let bytes: &[u8] = data.get(range)?;
            Some(String::from_utf8_lossy(bytes).trim_end().into())
        };
        Some(Self { serial: text(4..24)?, model: text(24..64)?, firmware: text(64..72)? })
    }
}
