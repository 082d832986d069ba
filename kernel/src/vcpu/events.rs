//! The event port of one vCPU, and its counters.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hypercall::ops::Port;

/// The event port of one vCPU, and its counters.
pub struct EventState {
    /// The port, or 0 before one is bound.
    port: AtomicU32,
    /// True once the vCPU has reached the loop in which it waits for work.
    answered: AtomicBool,
    /// How many times an event arrived at the port.
    fired: AtomicU64,
    /// The TSC when the vCPU last masked its events.
    masked_since: AtomicU64,
    /// The longest period with events masked, in ticks of the TSC.
    longest: AtomicU64,
}

impl EventState {
    /// Returns the state of a vCPU without a port.
    pub const fn new() -> Self {
        Self {
            port: AtomicU32::new(0),
            answered: AtomicBool::new(false),
            fired: AtomicU64::new(0),
            masked_since: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }

    /// Returns the port by which other vCPUs wake this one.
    pub fn port(&self) -> Port {
        Port(self.port.load(Ordering::Acquire))
    }

    /// Sets the port.
    pub fn set_port(&self, port: Port) {
        self.port.store(port.0, Ordering::Release);
    }

    /// Returns true if the vCPU has reached the loop in which it waits for work.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// Records that the vCPU has reached that loop.
    pub fn set_answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// Returns how many times an event arrived at the port.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    /// Counts an event.
    pub fn count_fired(&self) {
        self.fired.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that events are masked since the TSC's `now`.
    pub fn begin_masked(&self, now: u64) {
        self.masked_since.store(now, Ordering::Relaxed);
    }

    /// Ends the period that [`begin_masked`](Self::begin_masked) began.
    pub fn end_masked(&self, now: u64) {
        let since = self.masked_since.load(Ordering::Relaxed);
        self.record_masked(now.saturating_sub(since));
    }

    /// Records a period of `ticks` ticks with events masked.
    pub fn record_masked(&self, ticks: u64) {
        self.longest.fetch_max(ticks, Ordering::Relaxed);
    }

    /// Forgets the periods so far.
    pub fn forget_masked(&self) {
        self.longest.store(0, Ordering::Relaxed);
    }

    /// Returns the longest period with events masked, in ticks of the TSC.
    pub fn longest_masked(&self) -> u64 {
        self.longest.load(Ordering::Relaxed)
    }
}
