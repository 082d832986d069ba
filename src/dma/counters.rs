//! What an allocator counts.

use core::array;
use core::sync::atomic::{self, Ordering::Relaxed};

use super::class::ScarceFrames;
use crate::sync::AtomicU64;

/// The highest classes below 4 GiB and below 16 MiB.
const BELOW_4G: usize = 20;
const BELOW_16M: usize = 12;

/// Where the memory of a buffer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The reserve had it.
    Reserve,
    /// Free memory of the kernel served as it was.
    Adopted,
    /// The request needed an exchange or a refill.
    Exchanged,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Buffers by [`Source`].
    pub by_source: [AtomicU64; 3],
    pub returned: AtomicU64,
    pub refusals: AtomicU64,
    /// Frames that transactions hold at the moment.
    pub in_transactions: AtomicU64,
    low: LowBalance,
}

/// By scarce class: how many more frames the guest has than before its exchanges. Each may be negative, in
/// two's complement.
///
/// Nothing is ordered by these numbers, so `loom` need not try every order of their 21 loads.
#[derive(Debug)]
struct LowBalance([atomic::AtomicU64; BELOW_4G + 1]);

impl Default for LowBalance {
    fn default() -> Self {
        Self(array::from_fn(|_| atomic::AtomicU64::new(0)))
    }
}

impl Counters {
    /// Counts a buffer.
    pub fn count(&self, source: Source) {
        self.by_source[source as usize].fetch_add(1, Relaxed);
    }

    /// Returns the number of buffers from a source.
    pub fn buffers_from(&self, source: Source) -> u64 {
        self.by_source[source as usize].load(Relaxed)
    }

    /// Counts the frames of a transaction, until the value is dropped.
    pub fn enter_transaction(&self, frames: u64) -> InTransaction<'_> {
        self.in_transactions.fetch_add(frames, Relaxed);
        InTransaction { counter: &self.in_transactions, frames }
    }

    /// Counts low memory from 0 again.
    pub fn forget_low(&self) {
        self.low.0.iter().for_each(|balance| balance.store(0, Relaxed));
    }

    /// Counts what an exchange changed: the scarce frames before and after it.
    pub fn exchanged_low(&self, before: &ScarceFrames, after: &ScarceFrames) {
        for (class, balance) in self.low.0.iter().enumerate() {
            let change = after.of_class(class).wrapping_sub(before.of_class(class));
            if change != 0 {
                balance.fetch_add(change, Relaxed);
            }
        }
    }

    /// Returns how many more frames up to a class the guest has than before its exchanges, or 0.
    pub fn gained_up_to(&self, class: usize) -> u64 {
        let low = self.low.0.iter().take(class + 1).map(|balance| balance.load(Relaxed));
        u64::try_from(low.fold(0, u64::wrapping_add) as i64).unwrap_or(0)
    }

    /// Returns the same below 4 GiB.
    pub fn below_4g(&self) -> u64 {
        self.gained_up_to(BELOW_4G)
    }

    /// Returns the same below 16 MiB.
    pub fn below_16m(&self) -> u64 {
        self.gained_up_to(BELOW_16M)
    }
}

/// Frames that a transaction holds. A panic that unwinds through the transaction ends that, too.
pub(super) struct InTransaction<'a> {
    counter: &'a AtomicU64,
    frames: u64,
}

impl Drop for InTransaction<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.frames, Relaxed);
    }
}
