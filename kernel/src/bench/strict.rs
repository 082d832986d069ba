//! The pattern `strict`: each operation exchanges.

use super::BenchEntry;
use super::allocator::BenchAllocator;
use super::aside::FramesSetAside;
use super::patterns::Shortfall;
use super::tally::{Tally, measure};

/// The number of frames around a buffer that are returned with it. An allocation takes runs aligned
/// to at most 2 MiB.
const AROUND: u64 = 512;

/// Allocates one buffer and returns its memory to Xen, `count` times.
///
/// The frames that Xen returned are set aside before the next operation if they are within reach.
/// Otherwise the next allocation would use them instead of an exchange.
pub fn strict(
    allocator: &BenchAllocator<'_>,
    entry: &BenchEntry,
    aside: &mut FramesSetAside<'_>,
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
