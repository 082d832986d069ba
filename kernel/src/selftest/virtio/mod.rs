//! Does a driver of the crate `virtio-drivers`, through the adapter's `Hal`, move data between a
//! real device and memory that the allocator exchanged?
//!
//! The device is QEMU's virtio disk. In PV it takes machine addresses, in PVH guest ones, which the
//! IOMMU translates. Whoever made the disk reads it afterwards, so all of this is seen from outside,
//! too: word `i` of it held `seed + i` (64 bits, the lowest byte first), and in the second half holds
//! the complement of that when the tests are done.
//!
//! | file | question |
//! |---|---|
//! | [`watch`] | which addresses did the driver get, and whose are they? |
//! | [`disk`] | requests, several at a time, and none waited for without end |
//! | [`places`] | where may the driver's own buffers lie? |
//! | [`transfers`] | do all bytes come through, and none besides? |

mod disk;
mod places;
mod transfers;
mod watch;

use alloc::vec::Vec;

use hypercall::trace::Arg;
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_drivers::transport::DeviceStatus;
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::frames::Candidate;

use self::disk::VirtioDisk;
use self::watch::{Handed, How};
use super::{Check, Test, TestContext, TestOutcome, error, fail, skip};
use crate::command_line::When;
use crate::machine::Machine;
use crate::say;
use crate::vcpu::xen;
use crate::virtio::{Kernel, Narrow, VirtioDevice, Wide, allocator, set_up};

pub fn add(tests: &mut Vec<Test>) {
    // They write to a disk.
    let mut asked = |name, run| tests.push(Test::new(name, run).when(When::Asked));
    asked("virtio-blk-queue", queue as fn(&TestContext<'_>) -> Check);
    asked("virtio-blk-reads", transfers::reads);
    asked("virtio-blk-writes", transfers::writes);
}

/// Sectors of the disk that are written to, and as many before them that are only read.
const HALF: usize = 256;

/// Takes the device, or says why there is nothing to be tested.
fn open(machine: &Machine) -> Result<VirtioDevice, TestOutcome> {
    set_up(machine);
    match VirtioDevice::open(machine) {
        Ok(device) => Ok(device),
        Err(why) if why.is_expected() => skip!("{why}"),
        Err(why) => error!("{why}"),
    }
}

/// Sees to it that what the narrow devices get has to be exchanged.
fn nothing_in_reach(machine: &Machine) -> Check {
    let constraints = Narrow::memory().constraints();
    let in_reach = |pfn| {
        let frame = machine.p2m.mfn(pfn).map(|mfn| mfn.number() << 12);
        frame.is_some_and(|start| constraints.admits(start, 1))
    };
    let found = machine.frames.lock().take_first(1, &mut |pfn| match in_reach(pfn) {
        true => Candidate::Fits,
        false => Candidate::TryFrom(pfn.add(1)),
    });
    match found {
        None => Ok(()),
        Some(run) => {
            let pfn = run.first();
            machine.give(run);
            skip!("pfn {pfn} is within the mask as it is: give dom0 less (Xen: dom0_mem=512M)")
        }
    }
}

/// The disk as it was made: what a byte of it holds before anybody writes there.
fn made(seed: u64, at: usize) -> u8 {
    seed.wrapping_add(at as u64 / 8).to_le_bytes()[at % 8]
}

/// A disk that was made for these tests, or a reason to leave it alone.
fn ours<'d, S: StaticDevice<Platform = Kernel>>(
    context: &TestContext<'_>,
    device: &'d VirtioDevice,
) -> Result<VirtioDisk<'d, S>, TestOutcome> {
    let mut disk = VirtioDisk::new(device)?;
    if disk.capacity() != 2 * HALF as u64 {
        skip!("the disk has {} sectors, not {}: it is left alone", disk.capacity(), 2 * HALF);
    }
    let mut first = [0; SECTOR_SIZE];
    disk.read(0, &mut first)?;
    let seed = context.seed;
    if let Some(at) = (0..SECTOR_SIZE).find(|at| first[*at] != made(seed, *at)) {
        skip!("byte {at} of the disk is no pattern of seed {seed}: it is left alone");
    }
    watch::take();
    Ok(disk)
}

/// Does the device find the guest's memory at an address, and where nothing was in its reach,
/// memory that was exchanged for it?
fn examine(machine: &Machine, one: &Handed) -> Check {
    one.check()?;
    let exchanges = match one.how {
        How::InPlace => 0..=0,
        _ if machine.exchanger().is_none() => 0..=0,
        // What an earlier exchange left in the reserve serves, too.
        _ => 0..=1,
    };
    if !exchanges.contains(&one.exchanges) {
        fail!("{one}, but {exchanges:?} were expected");
    }
    Ok(())
}

/// Nothing is lent to a driver any more, and nothing waits.
fn is_balanced() -> Check {
    let report = allocator().trim(u64::MAX);
    if let Some(error) = report.error {
        fail!("trimming: {error}, {report:?}");
    }
    let (narrow, wide, stats) = (Narrow::memory(), Wide::memory(), allocator().stats());
    if (narrow.live(), wide.live(), stats.lent, stats.refusals) != (0, 0, 0, 0) {
        fail!("{narrow:?}, {wide:?}, {stats:?}");
    }
    Ok(())
}

/// How many exchanges that succeeded are in the trace, of the calls that are kept.
fn traced_exchanges(since: u64) -> Result<u64, TestOutcome> {
    let mut count = 0;
    let read = xen().recent(|entry| {
        // An exchange of its own, or one in a multicall.
        let exchange = entry.call.args().contains(&Arg::Word("exchange"));
        count += u64::from(exchange && entry.sequence >= since && entry.result == Ok(0));
    });
    if read { Ok(count) } else { error!("the trace can't be read") }
}

/// The number of the next call in the trace.
fn next_call() -> Result<u64, TestOutcome> {
    let mut next = 0;
    let read = xen().recent(|entry| next = entry.sequence + 1);
    if read { Ok(next) } else { error!("the trace can't be read") }
}

/// Was the device told machine addresses of memory that was exchanged for the queue?
fn queue(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let device = open(machine)?;
    nothing_in_reach(machine)?;
    watch::take();
    let since = next_call()?;
    let disk = VirtioDisk::<Narrow>::new(&device)?;
    let traced = traced_exchanges(since)?;
    let Some(told) = device.queue() else { fail!("the device was told of no queue") };
    let handed = watch::take();
    say!("# virtio-blk-queue: {device}, {} sectors", disk.capacity());
    handed.iter().for_each(|one| say!("# virtio-blk-queue: {one}"));
    if !told.status.contains(DeviceStatus::FEATURES_OK) {
        fail!("the device does not agree to the features: {:?}", told.status);
    }
    let [descriptors, used] = handed.as_slice() else { fail!("for a queue: {handed:?}") };
    let ring = told.driver_area.get().checked_sub(descriptors.dma.get());
    let rings = ring.is_some_and(|offset| offset < descriptors.bytes);
    if (told.descriptors, told.device_area) != (descriptors.dma, used.dma) || !rings {
        fail!("the device was told {told:?}, the driver got {descriptors} and {used}");
    }
    for one in &handed {
        examine(machine, one)?;
        if one.how != How::Allocated {
            fail!("a queue in memory of the driver's: {one}");
        }
    }
    let exchanged = handed.iter().map(|one| one.exchanges).sum::<u64>();
    if exchanged != traced {
        fail!("{exchanged} exchanges by the allocator's count, {traced} in the trace");
    }
    drop(disk);
    is_balanced()
}
