//! The ticks and hypercalls of an entry.

use core::fmt;

use crate::bench::BenchEntry;
use crate::tsc::tsc;
use crate::vcpu::xen;

/// The measured figures of an entry.
#[derive(Debug, Default)]
pub struct Tally {
    /// The number of operations that succeeded.
    pub ok: u64,
    /// The number of allocations that exchanged memory with Xen.
    pub exchanged: u64,
    /// The ticks of the allocations.
    pub alloc: TickSum,
    /// The ticks of the releases.
    pub free: TickSum,
    /// The number of hypercalls of all operations.
    calls: u64,
}

/// The ticks of some operations.
#[derive(Debug, Default)]
pub struct TickSum {
    operations: u64,
    ticks: u64,
    max: u64,
}

/// The ticks and hypercalls of one call.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    ticks: u64,
    calls: u64,
}

/// Calls `f` and returns its result and its cost.
// It is not inlined, so that each call is measured with the same instructions around it.
#[inline(never)]
pub fn measure<T>(f: impl FnOnce() -> T) -> (T, Cost) {
    let calls = xen().calls();
    let start = tsc();
    let result = f();
    let ticks = tsc() - start;
    (result, Cost { ticks, calls: xen().calls() - calls })
}

impl Tally {
    /// Counts an allocation.
    pub fn allocated(&mut self, cost: Cost) {
        self.calls += cost.calls;
        self.alloc.add(cost.ticks);
    }

    /// Counts a release.
    pub fn freed(&mut self, cost: Cost) {
        self.calls += cost.calls;
        self.free.add(cost.ticks);
    }

    /// Adds the cost of postponed hypercalls to the releases.
    pub fn trimmed(&mut self, cost: Cost) {
        self.calls += cost.calls;
        self.free.ticks += cost.ticks;
    }

    /// Returns the line of the entry.
    pub const fn line<'t>(&'t self, entry: &'t BenchEntry) -> BenchReport<'t> {
        BenchReport { tally: self, entry }
    }
}

impl TickSum {
    fn add(&mut self, ticks: u64) {
        self.operations += 1;
        self.ticks += ticks;
        self.max = self.max.max(ticks);
    }

    /// Returns the number of operations.
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    fn mean(&self) -> u64 {
        self.ticks.checked_div(self.operations).unwrap_or(0)
    }
}

/// The line of an entry.
pub struct BenchReport<'t> {
    tally: &'t Tally,
    entry: &'t BenchEntry,
}

impl fmt::Display for BenchReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally: Tally { ok, exchanged, alloc, free, calls }, entry } = self;
        let BenchEntry { order, bits, count, .. } = entry;
        write!(
            f,
            "bench: pattern={} order={order} bits={bits} count={count} ok={ok} \
             exchanged={exchanged} alloc={} free={} max={} calls={calls}",
            entry.pattern_name(),
            alloc.mean(),
            free.mean(),
            alloc.max
        )
    }
}
