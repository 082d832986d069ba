//! Can a real device move data into and out of contiguous buffers, and not into memory above its
//! mask?
//!
//! The device is QEMU's `edu`, whose engine drives 28 address bits and ignores the rest. In PV it
//! uses machine addresses, so the exchange brings memory into its reach. In PVH it uses guest
//! addresses, which the IOMMU translates.

mod buffer;
mod coherent;
mod edge;
mod in_place;
mod shown;
mod streaming;
mod typed;

use alloc::vec::Vec;
use core::ops::Range;

use xen_contig::addr::{DmaAddr, Gfn, Order, PAGE_SIZE};

use self::buffer::{EduBuffer, above_mask, device_frame};
use super::{Check, Test, TestContext, TestOutcome, error, fail, skip};
use crate::command_line::When;
use crate::edu::{ENGINE_BYTES, Edu, MASK, reachable};
use crate::machine::Machine;
use crate::say;

const PAGE: u64 = PAGE_SIZE as u64;

/// 64 KiB.
const ORDER: Order = match Order::new(4) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("edu-found", found));
    tests.push(Test::new("edu-dma-above-mask", out_of_reach).needs_exchange_order(4));
    tests.push(Test::new("edu-dma-round-trip", round_trips).needs_exchange_order(4));
    tests.push(Test::new("edu-dma-mask-edge", edge::mask_edge));
    tests.push(Test::new("edu-dma-coherent-buffer", coherent::coherent).needs_exchange_order(3));
    tests.push(Test::new("edu-dma-typed-ring", typed::typed_ring).needs_exchange_order(2));
    tests.push(Test::new("edu-dma-streaming", streaming::streaming));
    tests.push(Test::new("edu-dma-in-place", in_place::in_place).needs_exchange_order(4));
    tests.push(Test::new("edu-dma-shown", shown::shown).when(When::Named));
}

/// Opens the device, or skips the test if there is none.
fn open(machine: &Machine) -> Result<Edu, TestOutcome> {
    match Edu::open(machine) {
        Ok(edu) => Ok(edu),
        Err(why) if why.is_expected() => skip!("{why}"),
        Err(why) => error!("{why}"),
    }
}

fn found(context: &TestContext<'_>) -> Check {
    let edu = open(context.machine)?;
    say!("# edu-found: {edu}");
    for value in [0, 0xffff_ffff, 0x1234_5678] {
        let alive = edu.liveness(value);
        if alive != !value {
            fail!(
                "the liveness register returns {alive:#x} for {value:#x}, expected {:#x}",
                !value
            );
        }
    }
    Ok(())
}

/// Returns the byte of the pattern at an offset.
fn pattern(seed: u64, round: u64, offset: u64) -> u8 {
    let mixed = (seed ^ (round << 32 | offset)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// Returns the byte outside the pattern at an offset, which always differs from the pattern.
fn filler(seed: u64, round: u64, offset: u64) -> u8 {
    !pattern(seed, round, offset)
}

/// Makes the device read `part` of the buffer and write it again, after the CPU has overwritten it.
///
/// `window` is the range that is checked. Outside `part` it must not change.
fn round_trip(
    edu: &mut Edu,
    buffer: &EduBuffer<'_>,
    part: Range<u64>,
    window: Range<u64>,
    (seed, round): (u64, u64),
) -> Check {
    buffer.fill(window.clone(), |at| filler(seed, round, at));
    buffer.fill(part.clone(), |at| pattern(seed, round, at));
    let mut rest = part.clone();
    while !rest.is_empty() {
        let bytes = (rest.end - rest.start).min(ENGINE_BYTES);
        let piece = rest.start..rest.start + bytes;
        rest.start = piece.end;
        let start = buffer.device_address(piece.start);
        // The piece goes to the end of the device's own memory, so that its edge is tested too.
        let offset = ENGINE_BYTES - bytes;
        // SAFETY: the address is in the buffer, which is RAM.
        if let Err(error) = unsafe { edu.fetch(start, offset, bytes) } {
            fail!("reading {bytes} bytes at {start} by the device: {error}");
        }
        buffer.fill(piece, |at| filler(seed, round, at));
        // SAFETY: the piece belongs to the buffer, which this test owns
        // ([M1](xen_contig::rules#M1)), and no reference to it exists ([M5](xen_contig::rules#M5)).
        // After a failure nothing uses the buffer.
        if let Err(error) = unsafe { edu.store(offset, start, bytes) } {
            fail!("writing {bytes} bytes at {start} by the device: {error}");
        }
    }
    let expected = |at: u64| match part.contains(&at) {
        true => pattern(seed, round, at),
        false => filler(seed, round, at),
    };
    match buffer.differs(window, expected) {
        None => Ok(()),
        Some((at, found)) => fail!(
            "after the transfer of bytes {part:?} of the buffer, which is at {} for the device, \
             byte {at} is {found:#04x}, expected {:#04x}",
            buffer.device_address(0),
            expected(at)
        ),
    }
}

fn round_trips(context: &TestContext<'_>) -> Check {
    let edu = open(context.machine)?;
    let buffer = EduBuffer::new(context.machine, ORDER)?;
    // Declared last, and so dropped first: the device loses its right to do DMA before the buffer
    // is freed.
    let mut edu = edu;
    let end = buffer.bytes();
    say!("# edu-dma-round-trip: {} KiB at {}", end >> 10, buffer.device_address(0));
    let parts = [
        // The first byte, the last byte, and the whole last page.
        0..1,
        end - 1..end,
        end - PAGE..end,
        // Odd sizes across a page boundary. These frames are neighbours in the machine because of
        // the exchange.
        PAGE - 13..PAGE + 14,
        end / 2 - 1..end / 2 - 1 + ENGINE_BYTES,
    ];
    for (round, part) in (0..).zip(parts) {
        round_trip(&mut edu, &buffer, part, 0..end, (context.seed, round))?;
    }
    drop(edu);
    buffer.release()
}

/// Checks that the device cannot reach ordinary memory above the mask, and that the exchange brings
/// the same guest frames into its reach. Without this the other tests would prove nothing.
fn out_of_reach(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let edu = open(machine)?;
    let witness = EduBuffer::new(machine, Order::ZERO)?;
    // Declared last, and so dropped first: the device loses its right to do DMA before the buffer
    // is freed.
    let mut edu = edu;
    let Some(run) = above_mask(machine, ORDER.frames()) else {
        witness.release()?;
        skip!("the device can reach all of the guest's free memory without an exchange")
    };
    let Some(frame) = device_frame(machine, run.first()) else { fail!("{run:?} has no memory") };
    let address = DmaAddr::of(Gfn::new(frame));
    let ordinary = EduBuffer::as_it_is(machine, run);
    ordinary.fill(0..PAGE, |at| pattern(seed, 0, at));
    if holds_after(&mut edu, address, &witness, (seed, 0))? {
        fail!("the device read {address}, although its mask is {MASK:#x}");
    }
    // The driver must not let the device write there either, because it would write other memory.
    if reachable(address, 1).is_ok() {
        fail!("the driver accepts {address} as an address within the mask {MASK:#x}");
    }
    let first = ordinary.run().first();
    if machine.exchanger().is_some() {
        let exchanged = match ordinary.make_reachable() {
            Ok(exchanged) => exchanged,
            // Xen may have no memory below the mask.
            Err(outcome) => return witness.release().and(Err(outcome)),
        };
        exchanged.fill(0..PAGE, |at| pattern(seed, 1, at));
        let reached = exchanged.device_address(0);
        if !holds_after(&mut edu, reached, &witness, (seed, 1))? {
            fail!(
                "the device did not read pfn {first} at {reached}, its address after the exchange"
            );
        }
        say!("# edu-dma-above-mask: pfn {first} was at {address}, out of reach, now at {reached}");
        exchanged.release()?;
    } else {
        say!("# edu-dma-above-mask: pfn {first}, {address} for the device, is out of reach");
        ordinary.release()?;
    }
    drop(edu);
    witness.release()
}

/// Makes the device copy memory from `address` to `witness`. Returns true if the pattern is there
/// afterwards.
fn holds_after(
    edu: &mut Edu,
    address: DmaAddr,
    witness: &EduBuffer<'_>,
    (seed, round): (u64, u64),
) -> Result<bool, TestOutcome> {
    witness.fill(0..ENGINE_BYTES, |_| 0);
    // SAFETY: there is RAM at the address, and at the address without the bits above the mask
    // (`above_mask`).
    if let Err(error) = unsafe { edu.fetch(address, 0, ENGINE_BYTES) } {
        fail!("reading memory at {address} by the device: {error}");
    }
    // The witness is filled only now, because the address within the mask may be its own.
    witness.fill(0..ENGINE_BYTES, |at| filler(seed, round, at));
    // SAFETY: this test owns the witness ([M1](xen_contig::rules#M1)), and no reference to it
    // exists ([M5](xen_contig::rules#M5)). After a failure nothing uses the witness.
    if let Err(error) = unsafe { edu.store(0, witness.device_address(0), ENGINE_BYTES) } {
        fail!("writing memory at {} by the device: {error}", witness.device_address(0));
    }
    if witness.differs(0..ENGINE_BYTES, |at| filler(seed, round, at)).is_none() {
        fail!("the device wrote nothing at {}", witness.device_address(0));
    }
    Ok(witness.differs(0..ENGINE_BYTES, |at| pattern(seed, round, at)).is_none())
}
