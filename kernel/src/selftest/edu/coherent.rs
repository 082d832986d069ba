//! Does a driver that asks the allocator for memory within its mask get memory that its device can
//! use, whether or not an exchange was needed for it?

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use xen_contig::dma::{Allocator, CoherentBuffer, ConstraintError, Constraints, Retain};
use xen_contig::platform::Platform;

use super::{Check, PAGE, TestContext, error, fail, filler, open, pattern};
use crate::edu::{ENGINE_BYTES, Edu, MASK};
use crate::say;

/// Neither a power of two nor whole pages.
const BYTES: u64 = 5 * PAGE + 7;

pub fn coherent(context: &TestContext<'_>) -> Check {
    let mut edu = open(context.machine)?;
    // What the device can't reach is refused by name, before anything moves.
    match Constraints::builder().mask(MASK).lowest(MASK + 1).build() {
        Err(ConstraintError::NothingBetween { .. }) => {}
        other => fail!("memory above the mask was asked for and not refused: {other:?}"),
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
    let how = if allocator.stats().exchanged > 0 { "by an exchange" } else { "as it was" };
    say!("# edu-dma-coherent-buffer: {} bytes at {}, {how}", buffer.len(), buffer.dma_addr());
    if let Some(segment) =
        buffer.segments().find(|segment| !constraints.admits(segment.dma.get(), segment.len))
    {
        fail!("the device can't take {segment:?}");
    }
    let parts = [0..1, BYTES - 1..BYTES, PAGE - 13..PAGE + 14, BYTES - ENGINE_BYTES..BYTES];
    for (round, part) in (0..).zip(parts) {
        if let Err(outcome) = round_trip(&mut edu, &mut buffer, part, (context.seed, round)) {
            // The engine may be stuck and go on writing: the memory is lost.
            mem::forget(buffer);
            return Err(outcome);
        }
    }
    Ok(())
}

/// As [`super::round_trip`], by the buffer's own access.
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
        fail!("{outside}");
    }
    // SAFETY: the buffer, which is RAM.
    if let Err(error) = unsafe { edu.fetch(start, 0, bytes) } {
        fail!("from memory, {bytes} bytes at {start}: {error}");
    }
    if let Err(outside) = buffer.write(part.start, &blank) {
        fail!("{outside}");
    }
    // SAFETY: the part is the buffer's, which is ours ([M1](xen_contig::rules#M1)) and never a
    // reference ([M5](xen_contig::rules#M5)). After a failure the caller forgets the buffer.
    if let Err(error) = unsafe { edu.store(0, start, bytes) } {
        fail!("to memory, {bytes} bytes at {start}: {error}");
    }
    let mut found = blank;
    if let Err(outside) = buffer.read(part.start, &mut found) {
        fail!("{outside}");
    }
    match found.iter().zip(&data).position(|(found, data)| found != data) {
        None => Ok(()),
        Some(at) => fail!(
            "of bytes {part:?} at {start}, byte {at} is {:#04x}, not {:#04x}",
            found[at],
            data[at]
        ),
    }
}
