//! What an allocator counts.

use core::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU64;

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
    /// Counts low memory from 0 again.
    pub fn forget_low(&self) {
        self.below_4g.store(0, Relaxed);
        self.below_16m.store(0, Relaxed);
    }

    /// Counts what an exchange changed: the frames below 4 GiB and 16 MiB before and after it.
    pub fn exchanged_low(&self, before: (u64, u64), after: (u64, u64)) {
        self.below_4g.fetch_add(after.0.wrapping_sub(before.0), Relaxed);
        self.below_16m.fetch_add(after.1.wrapping_sub(before.1), Relaxed);
    }
}
