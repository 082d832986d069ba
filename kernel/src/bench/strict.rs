//! The pattern `strict`: each operation exchanges.

use super::BenchEntry;
use super::allocator::BenchAllocator;
use super::aside::FramesAside;
use super::patterns::Shortfall;
use super::tally::{Tally, measure};

/// Frames around a buffer that came back with it: an allocation takes runs aligned to 2 MiB at most.
const AROUND: u64 = 512;

/// Allocates one buffer and returns its memory to Xen, `count` times.
///
/// What came back is set aside before the next operation, where it is within reach: otherwise the next
/// one would be served by it.
pub fn strict(
    allocator: &BenchAllocator<'_>,
    entry: &BenchEntry,
    aside: &mut FramesAside<'_>,
    tally: &mut Tally,
) -> Option<Shortfall> {
    for _ in 0..entry.count {
        let (result, cost) = measure(|| allocator.allocate(entry.order.frames()));
        let buffer = match result {
            Ok(buffer) => buffer,
            Err(error) => return Some(error.into()),
        };
        tally.allocated(cost);
        let (first, frames) = (buffer.frames().first().number(), buffer.frames().frames());
        let ((), cost) = measure(|| {
            drop(buffer);
            allocator.trim();
        });
        tally.freed(cost);
        tally.ok += 1;
        aside.take_within(first.saturating_sub(AROUND)..first + frames + AROUND);
    }
    None
}
