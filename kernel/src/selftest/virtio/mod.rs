//! Can a driver of the crate `virtio-drivers` move data between a real device and exchanged memory,
//! through the adapter's `Hal`?
//!
//! The device is QEMU's virtio disk. In PV it uses machine addresses, in PVH guest addresses, which
//! the IOMMU translates. The test bed creates the disk and reads it afterwards, so the result is
//! also checked from outside. At first word `i` of the disk contains `seed + i` (64 bits, the
//! lowest byte first). After the tests the second half contains the complement.
//!
//! | file | question |
//! |---|---|
//! | [`watched_hal`] | which addresses did the driver get? |
//! | [`disk`] | how are several requests made at a time, with a time limit? |
//! | [`places`] | where can the driver's own buffers lie? |
//! | [`transfers`] | are all bytes transferred, and no others? |

mod disk;
mod places;
mod transfers;
mod watched_hal;

use alloc::vec::Vec;

use hypercall::trace::TraceRecord;
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_drivers::transport::DeviceStatus;
use xen_contig::adapters::virtio_drivers::StaticDevice;

use self::disk::VirtioDisk;
use super::drivers::tally::DriverTally;
use super::drivers::watch::{self, AddressKind};
use super::drivers::{examine, is_balanced, nothing_in_reach, original_byte};
use super::{Check, Test, TestContext, TestOutcome, error, fail, skip};
use crate::command_line::When;
use crate::drivers::memory::{Kernel, Narrow, set_up};
use crate::machine::Machine;
use crate::say;
use crate::vcpu::xen;
use crate::virtio::VirtioDevice;

pub fn add(tests: &mut Vec<Test>) {
    // They are not run by default, because they write to a disk.
    let mut asked = |name, run| tests.push(Test::new(name, run).when(When::Asked));
    asked("virtio-blk-queue", queue as fn(&TestContext<'_>) -> Check);
    asked("virtio-blk-reads", transfers::reads);
    asked("virtio-blk-writes", transfers::writes);
}

/// The number of sectors that are written, which is half of the disk. The first half is only read.
const HALF: usize = 256;

/// Opens the device, or skips the test if there is none.
fn open(machine: &Machine) -> Result<VirtioDevice, TestOutcome> {
    set_up(machine);
    match VirtioDevice::open(machine) {
        Ok(device) => Ok(device),
        Err(why) if why.is_expected() => skip!("{why}"),
        Err(why) => error!("{why}"),
    }
}

/// Opens the disk if it was created for these tests. Otherwise skips the test without a write.
fn open_test_disk<'d, S: StaticDevice<Platform = Kernel>>(
    context: &TestContext<'_>,
    device: &'d VirtioDevice,
    tally: &'d DriverTally,
) -> Result<VirtioDisk<'d, S>, TestOutcome> {
    let mut disk = VirtioDisk::new(device, tally)?;
    if disk.capacity() != 2 * HALF as u64 {
        skip!("the disk has {} sectors, not {}, so it is left alone", disk.capacity(), 2 * HALF);
    }
    let mut first = [0; SECTOR_SIZE];
    disk.read(0, &mut first)?;
    let seed = context.seed;
    if let Some(at) = (0..SECTOR_SIZE).find(|at| first[*at] != original_byte(seed, *at)) {
        skip!(
            "byte {at} of the disk does not have the pattern of seed {seed}, so the disk is left \
             alone"
        );
    }
    watch::take();
    Ok(disk)
}

/// Counts the successful exchanges in the trace, from call number `since` on.
fn traced_exchanges(since: u64) -> Result<u64, TestOutcome> {
    let mut count = 0;
    let read = xen().recent(usize::MAX, |record| {
        if let TraceRecord::Call(entry) = record
            && entry.sequence >= since
            && entry.call.exchanges()
            && entry.error().is_none()
        {
            count += entry.times;
        }
    });
    if read { Ok(count) } else { error!("the trace cannot be read") }
}

/// Checks that the device received the machine addresses of memory that was exchanged for the
/// queue.
fn queue(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let device = open(machine)?;
    nothing_in_reach(machine)?;
    watch::take();
    let (since, tally) = (xen().calls(), DriverTally::start("virtio"));
    let disk = VirtioDisk::<Narrow>::new(&device, &tally)?;
    tally.finish()?;
    let traced = traced_exchanges(since)?;
    let Some(told) = device.queue() else { fail!("the driver set up no queue") };
    let handed = watch::take();
    say!("# virtio-blk-queue: {device}, {} sectors", disk.capacity());
    handed.iter().for_each(|one| say!("# virtio-blk-queue: {one}"));
    if !told.status.contains(DeviceStatus::FEATURES_OK) {
        fail!("the device did not accept the features: {:?}", told.status);
    }
    let [descriptors, used] = handed.as_slice() else {
        fail!("expected two allocations for the queue, got {handed:?}")
    };
    let ring = told.driver_area.get().checked_sub(descriptors.dma.get());
    let rings = ring.is_some_and(|offset| offset < descriptors.bytes);
    if (told.descriptors, told.device_area) != (descriptors.dma, used.dma) || !rings {
        fail!("the device received {told:?}, but the driver got {descriptors} and {used}");
    }
    for one in &handed {
        examine(machine, one)?;
        if one.how != AddressKind::Allocated {
            fail!("expected the queue in allocated memory, got {one}");
        }
    }
    let exchanged = handed.iter().map(|one| one.exchanges).sum::<u64>();
    if exchanged != traced {
        fail!("the allocator counted {exchanged} exchanges, but the trace has {traced}");
    }
    drop(disk);
    is_balanced()
}
