//! Time: the TSC, and Xen's system time made from it.

use core::num::NonZeroU64;

use super::shared;
use crate::vcpu;

/// The processor's time-stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: Xen lets guests read the TSC or emulates it. `rdtscp` is another matter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A point in Xen's system time.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(NonZeroU64);

impl Deadline {
    /// So many seconds from now.
    pub fn in_seconds(seconds: u64) -> Self {
        Self::in_milliseconds(seconds.saturating_mul(1000))
    }

    /// So many milliseconds from now.
    pub fn in_milliseconds(milliseconds: u64) -> Self {
        let then = now().saturating_add(milliseconds.saturating_mul(1_000_000));
        Self(NonZeroU64::new(then).unwrap_or(NonZeroU64::MIN))
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        now() >= self.0.get()
    }

    /// Nanoseconds, as Xen takes them.
    pub fn nanoseconds(self) -> NonZeroU64 {
        self.0
    }
}

/// Nanoseconds since Xen booted (`struct vcpu_time_info` in `public/xen.h`).
fn now() -> u64 {
    let id = vcpu::current();
    loop {
        // Xen makes the version odd while it writes the rest.
        let before = shared::time(id);
        let time = tsc();
        let after = shared::time(id);
        if before.version != after.version || before.version % 2 == 1 {
            continue;
        }
        let ticks = u128::from(time.saturating_sub(before.tsc_timestamp));
        let scaled = match before.tsc_shift {
            left @ 0.. => ticks << left,
            right => ticks >> right.unsigned_abs(),
        };
        let passed = (scaled * u128::from(before.tsc_to_system_mul)) >> 32;
        return before.system_time.saturating_add(passed as u64);
    }
}
