//! Which machine frame does the device write? A witness outside the guest answers this.
//!
//! A PVH guest does not know machine frames, and gives guest frame numbers to the device. Only a
//! witness outside can see what the IOMMU translates them to. Therefore the device writes a page
//! with a unique pattern, and the kernel prints the address that it gave to the device, and holds.

use xen_contig::dma::{Allocator, Constraints, Retain};

use super::{Check, PAGE, TestContext, error, fail, open};
use crate::edu::MASK;
use crate::exit::hold;
use crate::say;

/// The number of bytes that the device moves.
const BYTES: u64 = 2048;

pub fn shown(context: &TestContext<'_>) -> Check {
    let mut edu = open(context.machine)?;
    let constraints = match Constraints::builder().mask(MASK).build() {
        Ok(constraints) => constraints,
        Err(contradiction) => error!("{contradiction}"),
    };
    let allocator = Allocator::new(context.machine, Retain::NOTHING);
    let mut buffer = match allocator.alloc_coherent(PAGE, &constraints) {
        Ok(buffer) => buffer,
        Err(refusal) => fail!("allocating a page within the mask {MASK:#x}: {refusal}"),
    };
    let start = buffer.dma_addr();
    let words = || (0..BYTES / 8).map(|word| (word * 8, context.seed.wrapping_add(word)));
    for (at, value) in words() {
        if let Err(outside) = buffer.store(at, value) {
            fail!("accessing the buffer: {outside}");
        }
    }
    // SAFETY: the address is in the buffer, which is RAM.
    if let Err(error) = unsafe { edu.fetch(start, 0, BYTES) } {
        fail!("reading memory by the device: {error}");
    }
    for (at, _) in words() {
        if let Err(outside) = buffer.store(at, 0_u64) {
            fail!("accessing the buffer: {outside}");
        }
    }
    // SAFETY: the buffer is never freed ([M1](xen_contig::rules#M1)), since the kernel holds, and
    // no reference to it exists ([M5](xen_contig::rules#M5)).
    if let Err(error) = unsafe { edu.store(0, start, BYTES) } {
        fail!("writing memory by the device: {error}");
    }
    say!("edu: seed={} bytes={BYTES} dma={start}", context.seed);
    hold()
}
