//! Does the device find the fields of a typed ring where the driver wrote them, in its own byte
//! order?

use bytemuck::{Pod, Zeroable};
use xen_contig::dma::{
    Allocator, Be, Coherent, CoherentBox, Constraints, Device, DmaCell, Le, Retain,
};
use xen_contig::field;
use xen_contig::paging::GuestMemory;
use xen_contig::platform::Platform;

use super::{Check, TestContext, TestOutcome, error, fail, open};
use crate::edu::{Edu, MASK};
use crate::say;

/// A descriptor whose fields have each width, and each order of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Descriptor {
    address: Le<u64>,
    len: Be<u32>,
    index: Le<u16>,
    flags: Be<u16>,
    status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Status {
    code: u8,
    odd: [u8; 3],
    done: Le<u32>,
}

const BYTES: usize = size_of::<Descriptor>();

/// Three pages of descriptors, some of which lie in two pages.
const COUNT: usize = 500;

/// The descriptor that the device reads. It begins 16 bytes before the end of the first page.
const READ: usize = 170;

/// The descriptor that the device overwrites with it.
const WRITTEN: usize = 341;

/// The bytes of every other descriptor.
const UNTOUCHED: [u8; BYTES] = [0xee; BYTES];

/// The bytes of the descriptor, as the device must see them.
const SEEN: [u8; BYTES] = [
    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, // address
    0x11, 0x12, 0x13, 0x14, 0x22, 0x21, 0x31, 0x32, // len, index, flags
    0x41, 0x51, 0x52, 0x53, 0x64, 0x63, 0x62, 0x61, // status
];

pub fn typed_ring(context: &TestContext<'_>) -> Check {
    let edu = open(context.machine)?;
    let constraints = match Constraints::builder().mask(MASK).build() {
        Ok(constraints) => constraints,
        Err(contradiction) => error!("{contradiction}"),
    };
    let allocator = Allocator::new(context.machine, Retain::NOTHING);
    let device = match Device::new(&allocator, "edu", &constraints) {
        Ok(device) => device,
        Err(refusal) => fail!("making the device: {refusal}"),
    };
    let mut ring: CoherentBox<'_, _, [Descriptor]> =
        match device.alloc_coherent_slice(COUNT, "ring") {
            Ok(ring) => ring,
            Err(refusal) => fail!("{COUNT} descriptors within the mask {MASK:#x}: {refusal}"),
        };
    // Declared last, and so dropped first: the device loses its right to do DMA before the ring is
    // freed.
    let mut edu = edu;
    if let Some(index) = ring.iter().position(|descriptor| *descriptor != Descriptor::zeroed()) {
        fail!("descriptor {index} of a new ring is {:?}, expected zeros", ring[index]);
    }
    ring.fill(bytemuck::cast(UNTOUCHED));
    let ring = ring.share();
    say!("# edu-dma-typed-ring: {} descriptors at {}", ring.len(), ring.dma_addr());
    describe(cell(&ring, READ)?);
    copy_by_device(&mut edu, &ring)?;
    if ring.at(COUNT).is_ok() {
        fail!("{ring:?} has a descriptor {COUNT}, expected {COUNT} numbered from 0");
    }
    for index in 0..COUNT {
        let found: [u8; BYTES] = bytemuck::cast(cell(&ring, index)?.read());
        let expected = if [READ, WRITTEN].contains(&index) { SEEN } else { UNTOUCHED };
        if found != expected {
            fail!("descriptor {index} of {ring:?} is {found:x?}, expected {expected:x?}");
        }
    }
    Ok(())
}

fn cell<'r, P: Platform>(
    ring: &'r Coherent<'_, P, [Descriptor]>,
    index: usize,
) -> Result<DmaCell<'r, P::Memory, Descriptor>, TestOutcome> {
    match ring.at(index) {
        Ok(cell) => Ok(cell),
        Err(outside) => fail!("accessing {ring:?}: {outside}"),
    }
}

/// Writes a descriptor whose bytes must be [`SEEN`].
fn describe(cell: DmaCell<'_, impl GuestMemory, Descriptor>) {
    field!(cell, Descriptor, address).store(Le::new(0x0102_0304_0506_0708));
    field!(cell, Descriptor, len).store(Be::new(0x1112_1314));
    field!(cell, Descriptor, index).store(Le::new(0x2122));
    field!(cell, Descriptor, flags).store(Be::new(0x3132));
    field!(cell, Descriptor, status.code).store(0x41);
    field!(cell, Descriptor, status.odd).write([0x51, 0x52, 0x53]);
    field!(cell, Descriptor, status.done).store(Le::new(0x6162_6364));
}

/// Makes the device read the descriptor, and write it over another one.
fn copy_by_device<P: Platform>(edu: &mut Edu, ring: &Coherent<'_, P, [Descriptor]>) -> Check {
    let addresses = (ring.dma_addr_at(READ), ring.dma_addr_at(WRITTEN));
    let (Some(from), Some(to)) = addresses else {
        fail!("descriptors {READ} and {WRITTEN} of {ring:?} have the addresses {addresses:?}")
    };
    // SAFETY: the address is in the ring, which is RAM.
    if let Err(error) = unsafe { edu.fetch(from, 0, BYTES as u64) } {
        fail!("reading a descriptor at {from} by the device: {error}");
    }
    // SAFETY: the descriptor belongs to the ring, which this test owns ([M1](xen_contig::rules#M1)),
    // and no reference to it exists ([M5](xen_contig::rules#M5)). After a failure the device loses
    // its right to do DMA before the ring is freed.
    if let Err(error) = unsafe { edu.store(0, to, BYTES as u64) } {
        fail!("writing a descriptor at {to} by the device: {error}");
    }
    Ok(())
}
