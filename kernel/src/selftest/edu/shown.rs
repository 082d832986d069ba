//! For a witness below Xen: which machine frame does the device write to?
//!
//! A PVH guest is told no machine frame and gives the device guest frame numbers. What the IOMMU
//! makes of them can be seen from below alone. So the device writes a page of a pattern that is
//! nowhere else in memory, the kernel tells the address that it gave the device, and holds.

use xen_contig::dma::{Allocator, Constraints, Retain};
use xen_contig::paging::Width;

use super::{Check, PAGE, TestContext, error, fail, open};
use crate::edu::MASK;
use crate::exit::hold;
use crate::say;

/// Bytes that the device moves.
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
        Err(refusal) => fail!("a page within the mask {MASK:#x}: {refusal}"),
    };
    let start = buffer.dma_addr();
    let words = || (0..BYTES / 8).map(|word| (word * 8, context.seed.wrapping_add(word)));
    for (at, value) in words() {
        if let Err(outside) = buffer.store(at, Width::Quad, value) {
            fail!("{outside}");
        }
    }
    // SAFETY: the buffer, which is RAM.
    if let Err(error) = unsafe { edu.fetch(start, 0, BYTES) } {
        fail!("from memory: {error}");
    }
    for (at, _) in words() {
        if let Err(outside) = buffer.store(at, Width::Quad, 0) {
            fail!("{outside}");
        }
    }
    // SAFETY: the buffer is ours for good ([M1](xen_contig::rules#M1)), since the kernel holds, and
    // never a reference ([M5](xen_contig::rules#M5)).
    if let Err(error) = unsafe { edu.store(0, start, BYTES) } {
        fail!("to memory: {error}");
    }
    say!("edu: seed={} bytes={BYTES} dma={start}", context.seed);
    hold()
}
