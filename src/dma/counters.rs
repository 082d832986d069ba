//! What an allocator counts.

use core::sync::atomic::Ordering::Relaxed;

use super::class::ScarceFrames;
use crate::sync::AtomicU64;

/// The highest classes below 4 GiB and below 16 MiB.
const BELOW_4G: usize = 20;
const BELOW_16M: usize = 12;

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub from_reserve: AtomicU64,
    pub adopted: AtomicU64,
    pub exchanged: AtomicU64,
    pub returned: AtomicU64,
    pub refusals: AtomicU64,
    /// Frames that transactions hold at the moment.
    pub in_transactions: AtomicU64,
    /// The next two may be negative, in two's complement.
    pub below_4g: AtomicU64,
    pub below_16m: AtomicU64,
}

impl Counters {
    /// Counts the frames of a transaction, until the value is dropped.
    pub fn enter_transaction(&self, frames: u64) -> InTransaction<'_> {
        self.in_transactions.fetch_add(frames, Relaxed);
        InTransaction { counter: &self.in_transactions, frames }
    }

    /// Counts low memory from 0 again.
    pub fn forget_low(&self) {
        self.below_4g.store(0, Relaxed);
        self.below_16m.store(0, Relaxed);
    }

    /// Counts what an exchange changed: the scarce frames before and after it.
    pub fn exchanged_low(&self, before: &ScarceFrames, after: &ScarceFrames) {
        let change = |class: usize| after.up_to(class).wrapping_sub(before.up_to(class));
        self.below_4g.fetch_add(change(BELOW_4G), Relaxed);
        self.below_16m.fetch_add(change(BELOW_16M), Relaxed);
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
