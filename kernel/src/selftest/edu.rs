//! Does a real device move data into and out of contiguous buffers, where without them it can't?
//!
//! The device is QEMU's `edu`, whose engine drives 28 address bits and drops the rest. In PV it
//! takes machine addresses, so the exchange is what brings memory into its reach; in PVH it takes
//! guest addresses, which the IOMMU translates.

mod buffer;
mod coherent;
mod edge;
mod in_place;
mod shown;

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
    tests.push(Test::new("edu-dma-mask-edge", edge::mask_edge).needs_exchange_order(9));
    tests.push(Test::new("edu-dma-coherent-buffer", coherent::coherent).needs_exchange_order(3));
    tests.push(Test::new("edu-dma-in-place", in_place::in_place).needs_exchange_order(4));
    tests.push(Test::new("edu-dma-shown", shown::shown).when(When::Named));
}

/// Takes the device, or says why there is nothing to be tested.
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
            fail!("the liveness register makes {alive:#x} of {value:#x}, not {:#x}", !value);
        }
    }
    Ok(())
}

/// What a test writes to a byte.
fn pattern(seed: u64, round: u64, offset: u64) -> u8 {
    let mixed = (seed ^ (round << 32 | offset)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// What a byte holds that no transfer is to touch: never the same as the pattern.
fn filler(seed: u64, round: u64, offset: u64) -> u8 {
    !pattern(seed, round, offset)
}

/// Has the device take `part` of the buffer and put it back after the buffer was overwritten.
/// `window` is what is looked at: nothing in it but the part may change.
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
        // As far back in the device's own memory as it goes, so that its edge is tried, too.
        let offset = ENGINE_BYTES - bytes;
        // SAFETY: the buffer, which is RAM.
        if let Err(error) = unsafe { edu.fetch(start, offset, bytes) } {
            fail!("from memory, {bytes} bytes at {start}: {error}");
        }
        buffer.fill(piece, |at| filler(seed, round, at));
        // SAFETY: the piece is the buffer's, which is ours ([M1](xen_contig::rules#M1)) and never a
        // reference ([M5](xen_contig::rules#M5)). A failure leaves the buffer to nobody.
        if let Err(error) = unsafe { edu.store(offset, start, bytes) } {
            fail!("to memory, {bytes} bytes at {start}: {error}");
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
             byte {at} is {found:#04x}, not {:#04x}",
            buffer.device_address(0),
            expected(at)
        ),
    }
}

fn round_trips(context: &TestContext<'_>) -> Check {
    let mut edu = open(context.machine)?;
    let buffer = EduBuffer::new(context.machine, ORDER)?;
    let end = buffer.bytes();
    say!("# edu-dma-round-trip: {} KiB at {}", end >> 10, buffer.device_address(0));
    let parts = [
        // The first byte, the last byte, and the whole last page.
        0..1,
        end - 1..end,
        end - PAGE..end,
        // Odd sizes across the edge of a page: guest frames that only the exchange made neighbours.
        PAGE - 13..PAGE + 14,
        end / 2 - 1..end / 2 - 1 + ENGINE_BYTES,
    ];
    for (round, part) in (0..).zip(parts) {
        round_trip(&mut edu, &buffer, part, 0..end, (context.seed, round))?;
    }
    drop(edu);
    buffer.give_back()
}

/// Is ordinary memory above the mask out of the device's reach, and is it the exchange that brings
/// the same guest frames into it? Else the other tests would prove nothing.
fn out_of_reach(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let mut edu = open(machine)?;
    let witness = EduBuffer::new(machine, Order::ZERO)?;
    let Some(run) = above_mask(machine, ORDER.frames()) else {
        witness.give_back()?;
        skip!("the device can reach all of the guest's free memory as it is")
    };
    let Some(frame) = device_frame(machine, run.first()) else { fail!("{run:?} has no memory") };
    let address = DmaAddr::of(Gfn::new(frame));
    let ordinary = EduBuffer::as_it_is(machine, run);
    ordinary.fill(0..PAGE, |at| pattern(seed, 0, at));
    if holds_after(&mut edu, address, &witness, (seed, 0))? {
        fail!("the device read {address}, although its mask is {MASK:#x}");
    }
    // Nor would the driver let it write there, where it would hit other memory.
    if reachable(address, 1).is_ok() {
        fail!("the driver takes {address} for an address within the mask {MASK:#x}");
    }
    let first = ordinary.run().first();
    if machine.exchanger().is_some() {
        let exchanged = match ordinary.make_reachable() {
            Ok(exchanged) => exchanged,
            // There may be no memory below the mask.
            Err(outcome) => return witness.give_back().and(Err(outcome)),
        };
        exchanged.fill(0..PAGE, |at| pattern(seed, 1, at));
        let reached = exchanged.device_address(0);
        if !holds_after(&mut edu, reached, &witness, (seed, 1))? {
            fail!("the device did not read pfn {first} at {reached}, where the exchange put it");
        }
        say!("# edu-dma-above-mask: pfn {first} was at {address}, out of reach, now at {reached}");
        exchanged.give_back()?;
    } else {
        say!("# edu-dma-above-mask: pfn {first}, {address} for the device, is out of reach");
        ordinary.give_back()?;
    }
    drop(edu);
    witness.give_back()
}

/// Has the device read memory at `address` and put it into `witness`: is the pattern there then?
fn holds_after(
    edu: &mut Edu,
    address: DmaAddr,
    witness: &EduBuffer<'_>,
    (seed, round): (u64, u64),
) -> Result<bool, TestOutcome> {
    witness.fill(0..ENGINE_BYTES, |_| 0);
    // SAFETY: RAM at the address, and RAM at what is left of it within the mask (`above_mask`).
    if let Err(error) = unsafe { edu.fetch(address, 0, ENGINE_BYTES) } {
        fail!("from memory at {address}: {error}");
    }
    // Only now: what is left of the address may be the witness's own.
    witness.fill(0..ENGINE_BYTES, |at| filler(seed, round, at));
    // SAFETY: the witness is ours ([M1](xen_contig::rules#M1)) and never a reference
    // ([M5](xen_contig::rules#M5)). A failure leaves it to nobody.
    if let Err(error) = unsafe { edu.store(0, witness.device_address(0), ENGINE_BYTES) } {
        fail!("to memory at {}: {error}", witness.device_address(0));
    }
    if witness.differs(0..ENGINE_BYTES, |at| filler(seed, round, at)).is_none() {
        fail!("the device wrote nothing at {}", witness.device_address(0));
    }
    Ok(witness.differs(0..ENGINE_BYTES, |at| pattern(seed, round, at)).is_none())
}
