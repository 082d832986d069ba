//! Are all bytes transferred, and no others?

use alloc::vec::Vec;
use core::ops::Range;

use virtio_drivers::device::blk::SECTOR_SIZE;
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::addr::PAGE_SIZE;

use super::disk::{AT_A_TIME, Direction, DiskRequest, VirtioDisk};
use super::places::{self, BufferPlace};
use super::{
    Check, HALF, TestContext, examine, fail, is_balanced, nothing_in_reach, open, open_test_disk,
    original_byte,
};
use crate::drivers::memory::{Kernel, Narrow, Wide};
use crate::machine::Machine;
use crate::say;
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::watch::{self, AddressKind, HandedAddress};
use crate::virtio::VirtioDevice;

/// Returns the byte at an offset that no transfer may change.
fn filler(at: usize) -> u8 {
    (at * 31 + at / 256) as u8
}

/// How the driver's buffers were shared with the device.
#[derive(Debug, Default)]
struct TransferTally {
    in_place: u64,
    bounced: u64,
    exchanges: u64,
}

/// Returns how a buffer at a place must be shared, or `None` if that depends on the machine.
fn expected<S: StaticDevice<Platform = Kernel>>(
    machine: &Machine,
    place: BufferPlace,
    crosses_pages: bool,
) -> Option<AddressKind> {
    let reaches_all = machine.exchanger().is_none() || S::device().limits().mask() == u64::MAX;
    match place {
        BufferPlace::Stack => Some(AddressKind::Bounced),
        BufferPlace::Coherent => Some(AddressKind::InPlace),
        BufferPlace::Scattered if crosses_pages => Some(AddressKind::Bounced),
        BufferPlace::Heap | BufferPlace::Scattered if !reaches_all => Some(AddressKind::Bounced),
        BufferPlace::Scattered => Some(AddressKind::InPlace),
        BufferPlace::Heap => None,
    }
}

/// Reads with single requests into every place.
pub fn reads(context: &TestContext<'_>) -> Check {
    let device = open(context.machine)?;
    nothing_in_reach(context.machine)?;
    let tally = DriverTally::start("virtio");
    read_everywhere::<Narrow>(context, &device, &tally, "28 bits")?;
    read_everywhere::<Wide>(context, &device, &tally, "all bits")?;
    tally.finish()?;
    is_balanced()
}

fn read_everywhere<S: StaticDevice<Platform = Kernel>>(
    context: &TestContext<'_>,
    device: &VirtioDevice,
    driver: &DriverTally,
    reach: &str,
) -> Check {
    let machine = context.machine;
    let mut disk = open_test_disk::<S>(context, device, driver)?;
    let (mut tally, mut sector) = (TransferTally::default(), 1);
    places::each::<S>(machine, |place, memory| {
        // The edge is a page boundary with room on both sides, wherever the memory begins.
        let edge = memory.len() - PAGE_SIZE - memory.as_ptr().addr() % PAGE_SIZE;
        let crossing = edge - 700..edge - 700 + 2 * SECTOR_SIZE;
        let within = edge + 3..edge + 3 + SECTOR_SIZE;
        let touching = edge - SECTOR_SIZE..edge;
        for part in [crossing, within, touching] {
            sector = (sector + 37) % (HALF - 2);
            read_one(context, &mut disk, sector, memory, part.clone())?;
            for one in watch::take() {
                examine(machine, &one)?;
                tally.add(&one);
                let of_the_part = one.bytes == part.len() as u64;
                let how = expected::<S>(machine, place, part.contains(&edge));
                if of_the_part && how.is_some_and(|how| how != one.how) {
                    fail!("{place:?}, bytes {part:?}: expected {how:?}, got {one}");
                }
            }
        }
        Ok(())
    })?;
    let TransferTally { in_place, bounced, exchanges } = tally;
    say!(
        "# virtio-blk-reads: device of {reach}: {in_place} buffers in place, {bounced} bounced, \
         {exchanges} exchanges"
    );
    if in_place == 0 || bounced == 0 {
        fail!("expected buffers in place and bounced ones, got {tally:?}");
    }
    Ok(())
}

impl TransferTally {
    fn add(&mut self, one: &HandedAddress) {
        self.in_place += u64::from(one.how == AddressKind::InPlace);
        self.bounced += u64::from(one.how == AddressKind::Bounced);
        self.exchanges += one.exchanges;
    }
}

/// Reads into a part of the memory, and checks all of it.
fn read_one<S: StaticDevice<Platform = Kernel>>(
    context: &TestContext<'_>,
    disk: &mut VirtioDisk<'_, S>,
    sector: usize,
    memory: &mut [u8],
    part: Range<usize>,
) -> Check {
    memory.iter_mut().enumerate().for_each(|(at, byte)| *byte = filler(at));
    disk.read(sector, &mut memory[part.clone()])?;
    for (at, found) in memory.iter().enumerate() {
        let expected = match part.contains(&at) {
            true => original_byte(context.seed, sector * SECTOR_SIZE + at - part.start),
            false => filler(at),
        };
        if *found != expected {
            fail!(
                "sector {sector} read into bytes {part:?} at {:?}: byte {at} is {found:#04x}, expected \
                 {expected:#04x}",
                memory.as_ptr()
            );
        }
    }
    Ok(())
}

/// Writes the second half of the disk, several requests at a time, and reads all of it.
pub fn writes(context: &TestContext<'_>) -> Check {
    let device = open(context.machine)?;
    nothing_in_reach(context.machine)?;
    let tally = DriverTally::start("virtio");
    let (seed, middle) = (context.seed, HALF + HALF / 2);
    let as_made = move |at| original_byte(seed, at);
    let written = move |at| !original_byte(seed, at);
    {
        let mut disk = open_test_disk::<Narrow>(context, &device, &tally)?;
        all(context, &mut disk, Direction::Write, HALF..middle, &[1, 3, 2, 9, 5], &written)?;
    }
    {
        let mut disk = open_test_disk::<Wide>(context, &device, &tally)?;
        all(context, &mut disk, Direction::Write, middle..2 * HALF, &[7, 1, 4], &written)?;
        all(context, &mut disk, Direction::Read, HALF..middle, &[8, 1, 6, 2], &written)?;
    }
    let mut disk = open_test_disk::<Narrow>(context, &device, &tally)?;
    all(context, &mut disk, Direction::Read, middle..2 * HALF, &[2, 11, 3], &written)?;
    all(context, &mut disk, Direction::Read, 0..HALF, &[12, 1], &as_made)?;
    drop(disk);
    tally.finish()?;
    is_balanced()
}

/// Transfers all of the sectors. Each transfer has as many requests as the queue accepts, with
/// these sizes in turn.
fn all<S: StaticDevice<Platform = Kernel>>(
    context: &TestContext<'_>,
    disk: &mut VirtioDisk<'_, S>,
    way: Direction,
    sectors: Range<usize>,
    sizes: &[usize],
    content: &dyn Fn(usize) -> u8,
) -> Check {
    let mut sizes = sizes.iter().cycle();
    let mut next = sectors.start;
    while next < sectors.end {
        let mut pieces = Vec::new();
        while next < sectors.end && pieces.len() < AT_A_TIME {
            let count = sizes.next().map_or(1, |size| (*size).min(sectors.end - next));
            pieces.push((next, count));
            next += count;
        }
        together(context.machine, disk, way, &pieces, content)?;
    }
    Ok(())
}

/// Transfers pieces of the disk at the same time. A piece is its first sector and its number of
/// sectors.
fn together<S: StaticDevice<Platform = Kernel>>(
    machine: &Machine,
    disk: &mut VirtioDisk<'_, S>,
    way: Direction,
    pieces: &[(usize, usize)],
    content: &dyn Fn(usize) -> u8,
) -> Check {
    // Each buffer begins at an odd offset of its memory.
    let odd = |index: usize| 1 + index * 38;
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    for (index, (sector, count)) in pieces.iter().enumerate() {
        let value = |at| match way {
            Direction::Write => content(sector * SECTOR_SIZE + at),
            Direction::Read => filler(at),
        };
        let before = (0..odd(index)).map(|_| 0);
        buffers.push(before.chain((0..count * SECTOR_SIZE).map(value)).collect());
    }
    let each = pieces.iter().zip(&mut buffers).enumerate();
    let mut requests: Vec<DiskRequest<'_>> = each
        .map(|(index, ((sector, _), buffer))| {
            DiskRequest::new(way, *sector, &mut buffer[odd(index)..])
        })
        .collect();
    disk.transfer(&mut requests)?;
    drop(requests);
    for one in watch::take() {
        examine(machine, &one)?;
    }
    for (index, ((sector, count), buffer)) in pieces.iter().zip(&buffers).enumerate() {
        let start = sector * SECTOR_SIZE;
        let found = buffer[odd(index)..].iter().enumerate();
        if let Some((at, found)) = found.into_iter().find(|(at, it)| **it != content(start + at)) {
            fail!(
                "{way:?} of {count} sectors from {sector} on, of {pieces:?}: byte {at} is \
                 {found:#04x}, expected {:#04x}",
                content(start + at)
            );
        }
    }
    Ok(())
}
