//! The time that Xen keeps for the domain.

use core::num::NonZeroU64;

use hypercall::trace::Timescale;

use crate::tsc::tsc;
use crate::{shared_page, vcpu};

/// A point in Xen's system time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(NonZeroU64);

impl Deadline {
    /// Returns the time `seconds` seconds from now.
    pub fn in_seconds(seconds: u64) -> Self {
        Self::in_milliseconds(seconds.saturating_mul(1000))
    }

    /// Returns the time `milliseconds` milliseconds from now.
    pub fn in_milliseconds(milliseconds: u64) -> Self {
        let then = now().saturating_add(milliseconds.saturating_mul(1_000_000));
        Self(NonZeroU64::new(then).unwrap_or(NonZeroU64::MIN))
    }

    /// Returns true if the time has passed.
    pub fn has_passed(self) -> bool {
        now() >= self.0.get()
    }

    /// Returns the time in nanoseconds since Xen booted, as hypercalls take it.
    pub fn nanoseconds(self) -> NonZeroU64 {
        self.0
    }
}

/// The start of a measured time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(u64);

impl Stopwatch {
    /// Starts to measure.
    pub fn start() -> Self {
        Self(now())
    }

    /// Returns the milliseconds since the start.
    pub fn milliseconds(self) -> u64 {
        now().saturating_sub(self.0) / 1_000_000
    }
}

/// Returns the nanoseconds since Xen booted.
fn now() -> u64 {
    scale().since_boot(tsc())
}

/// Returns what a reading of the time-stamp counter of this vCPU means
/// (`struct vcpu_time_info` in `public/xen.h`).
pub fn scale() -> Timescale {
    let id = vcpu::current();
    loop {
        let time = shared_page::time(id);
        // Xen makes the version odd while it writes the other fields.
        if time.version.is_multiple_of(2) && shared_page::time(id).version == time.version {
            return Timescale {
                ticks: time.tsc_timestamp,
                nanoseconds: time.system_time,
                multiplier: time.tsc_to_system_mul,
                shift: time.tsc_shift,
            };
        }
    }
}
