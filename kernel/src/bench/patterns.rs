//! The patterns that use the allocator as a driver does.

use alloc::vec::Vec;

use xen_contig::dma::AllocError;

use super::BenchEntry;
use super::allocator::{BenchAllocator, BenchBuffer};
use super::sequence::BenchSequence;
use super::tally::{Tally, measure};

/// The maximum number of buffers that `churn` holds at a time.
const CHURN_SLOTS: usize = 300;

/// The reason why an entry did fewer operations than requested.
#[derive(Debug)]
pub enum Shortfall {
    /// An allocation failed. This is the first error.
    Alloc(AllocError),
    /// The heap has no memory for a list of buffers.
    Heap,
}

impl From<AllocError> for Shortfall {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

/// Allocates and frees one buffer, `count` times.
pub fn cycle(
    allocator: &BenchAllocator<'_>,
    entry: &BenchEntry,
    tally: &mut Tally,
) -> Option<Shortfall> {
    let mut shortfall = None;
    for _ in 0..entry.count {
        let buffer = allocate(allocator, entry.order.frames(), tally, &mut shortfall);
        if let Some(buffer) = buffer {
            release(buffer, tally);
        }
    }
    tally.ok = tally.alloc.operations();
    shortfall
}

/// Allocates `count` buffers, then frees all of them.
///
/// The hypercalls that the release policy postpones are measured with the releases.
pub fn hold(
    allocator: &BenchAllocator<'_>,
    entry: &BenchEntry,
    tally: &mut Tally,
) -> Option<Shortfall> {
    let Some(mut buffers) = list(entry.count as usize) else { return Some(Shortfall::Heap) };
    let mut shortfall = None;
    for _ in 0..entry.count {
        buffers.extend(allocate(allocator, entry.order.frames(), tally, &mut shortfall));
    }
    buffers.drain(..).for_each(|buffer| release(buffer, tally));
    let ((), cost) = measure(|| allocator.trim());
    tally.trimmed(cost);
    tally.ok = tally.alloc.operations();
    shortfall
}

/// Picks a slot `count` times: frees its buffer, or allocates one of 1 to 2^order pages.
pub fn churn(
    allocator: &BenchAllocator<'_>,
    entry: &BenchEntry,
    seed: u64,
    tally: &mut Tally,
) -> Option<Shortfall> {
    let Some(mut slots) = list(CHURN_SLOTS) else { return Some(Shortfall::Heap) };
    slots.resize_with(CHURN_SLOTS, || None);
    let mut sequence = BenchSequence::new(seed);
    let mut shortfall = None;
    for _ in 0..entry.count {
        let slot = &mut slots[sequence.below(CHURN_SLOTS as u64) as usize];
        let pages = 1 + sequence.below(entry.order.frames());
        match slot.take() {
            Some(buffer) => release(buffer, tally),
            None => *slot = allocate(allocator, pages, tally, &mut shortfall),
        }
    }
    tally.ok = tally.alloc.operations() + tally.free.operations();
    shortfall
}

/// Allocates a buffer and adds its cost. Keeps the first failure.
fn allocate<'a, 'm>(
    allocator: &'a BenchAllocator<'m>,
    pages: u64,
    tally: &mut Tally,
    shortfall: &mut Option<Shortfall>,
) -> Option<BenchBuffer<'a, 'm>> {
    let (result, cost) = measure(|| allocator.allocate(pages));
    match result {
        Ok(buffer) => {
            tally.allocated(cost);
            Some(buffer)
        }
        Err(error) => {
            shortfall.get_or_insert(error.into());
            None
        }
    }
}

fn release(buffer: BenchBuffer<'_, '_>, tally: &mut Tally) {
    let ((), cost) = measure(|| drop(buffer));
    tally.freed(cost);
}

/// Returns an empty list with room for `len` values, or `None` if the heap is full.
fn list<T>(len: usize) -> Option<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).ok()?;
    Some(list)
}
