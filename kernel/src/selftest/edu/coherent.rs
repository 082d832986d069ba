//! Can the device use a buffer that the allocator returns for its mask, whether or not an exchange
//! was needed?

use alloc::vec::Vec;
use core::ops::Range;

use xen_contig::dma::{Allocator, CoherentBuffer, ConstraintError, Constraints, Retain};
use xen_contig::platform::Platform;

use super::{Check, PAGE, TestContext, error, fail, filler, open, pattern};
use crate::edu::{ENGINE_BYTES, Edu, MASK};
use crate::say;
use crate::selftest::dma::helpers::Limits;

/// A size that is neither a power of two nor a multiple of a page.
const BYTES: u64 = 5 * PAGE + 7;

pub fn coherent(context: &TestContext<'_>) -> Check {
    let edu = open(context.machine)?;
    // A request that the device cannot reach is refused by name, before any frame moves.
    match Constraints::builder().mask(MASK).lowest(MASK + 1).build() {
        Err(ConstraintError::NothingBetween { .. }) => {}
        other => fail!("expected memory above the mask to be refused, got {other:?}"),
    }
    let constraints = match Constraints::builder().mask(MASK).build() {
        Ok(constraints) => constraints,
        Err(contradiction) => error!("{contradiction}"),
    };
    let allocator = Allocator::new(context.machine, Retain::NOTHING);
    let mut buffer = match allocator.alloc_coherent(BYTES, &constraints) {
        Ok(buffer) => buffer,
        Err(refusal) => fail!("{BYTES} bytes within the mask {MASK:#x}: {refusal}"),
    };
    // Declared last, and so dropped first: the device loses its right to do DMA before the buffer
    // is freed.
    let mut edu = edu;
    let how =
        if allocator.stats().exchanged > 0 { "by an exchange" } else { "without an exchange" };
    say!("# edu-dma-coherent-buffer: {} bytes at {}, {how}", buffer.len(), buffer.dma_addr());
    let limits = Limits::of(&constraints);
    if let Some(segment) =
        buffer.segments().find(|segment| !limits.take(segment.dma.get(), segment.len))
    {
        fail!("{segment:?} is not within the device's constraints");
    }
    let parts = [0..1, BYTES - 1..BYTES, PAGE - 13..PAGE + 14, BYTES - ENGINE_BYTES..BYTES];
    for (round, part) in (0..).zip(parts) {
        round_trip(&mut edu, &mut buffer, part, (context.seed, round))?;
    }
    Ok(())
}

/// Does the same as [`super::round_trip`], through the buffer's own methods.
fn round_trip<P: Platform>(
    edu: &mut Edu,
    buffer: &mut CoherentBuffer<'_, P>,
    part: Range<u64>,
    (seed, round): (u64, u64),
) -> Check {
    let Some(start) = buffer.dma_addr_at(part.start) else {
        fail!("byte {} of {buffer:?} has no device address", part.start)
    };
    let bytes = part.end - part.start;
    let data: Vec<u8> = part.clone().map(|at| pattern(seed, round, at)).collect();
    let blank: Vec<u8> = part.clone().map(|at| filler(seed, round, at)).collect();
    if let Err(outside) = buffer.write(part.start, &data) {
        fail!("accessing the buffer: {outside}");
    }
    // SAFETY: the address is in the buffer, which is RAM.
    if let Err(error) = unsafe { edu.fetch(start, 0, bytes) } {
        fail!("reading {bytes} bytes at {start} by the device: {error}");
    }
    if let Err(outside) = buffer.write(part.start, &blank) {
        fail!("accessing the buffer: {outside}");
    }
    // SAFETY: the part belongs to the buffer, which this test owns ([M1](xen_contig::rules#M1)),
    // and no reference to it exists ([M5](xen_contig::rules#M5)). After a failure the device
    // loses its right to do DMA before the buffer is freed.
    if let Err(error) = unsafe { edu.store(0, start, bytes) } {
        fail!("writing {bytes} bytes at {start} by the device: {error}");
    }
    let mut found = blank;
    if let Err(outside) = buffer.read(part.start, &mut found) {
        fail!("accessing the buffer: {outside}");
    }
    match found.iter().zip(&data).position(|(found, data)| found != data) {
        None => Ok(()),
        Some(at) => fail!(
            "of bytes {part:?} at {start}, byte {at} is {:#04x}, expected {:#04x}",
            found[at],
            data[at]
        ),
    }
}
