//! The time of a trace: ticks of a clock, and their meaning in nanoseconds.

/// How ticks of the time-stamp counter become nanoseconds since Xen booted
/// (`struct vcpu_time_info` in `public/xen.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timescale {
    /// A reading of the counter (`tsc_timestamp`).
    pub ticks: u64,
    /// The nanoseconds since Xen booted at that reading (`system_time`).
    pub nanoseconds: u64,
    /// Nanoseconds for each shifted tick, times 2^32 (`tsc_to_system_mul`).
    pub multiplier: u32,
    /// The number of bits by which ticks are shifted to the left, or to the right if negative
    /// (`tsc_shift`).
    pub shift: i8,
}

impl Timescale {
    /// The scale of a clock that counts nanoseconds.
    pub const NANOSECONDS: Self = Self { ticks: 0, nanoseconds: 0, multiplier: 1 << 31, shift: 1 };

    /// Returns the length of `ticks` in nanoseconds.
    pub const fn duration(&self, ticks: u64) -> u64 {
        let ticks = ticks as u128;
        let shifted = match self.shift {
            left @ 0.. => ticks << left,
            right => ticks >> right.unsigned_abs(),
        };
        ((shifted * self.multiplier as u128) >> 32) as u64
    }

    /// Returns the nanoseconds since Xen booted at a reading of the counter, before or after
    /// [`ticks`](Self::ticks).
    pub const fn since_boot(&self, ticks: u64) -> u64 {
        // The counter of an HVM or PVH domain is 0 when the domain is made, and Xen's reading may be older
        // (`collect_time_info` in `xen/arch/x86/time.c`). It is then a number just below 2^64.
        let distance = ticks.wrapping_sub(self.ticks).cast_signed();
        let nanoseconds = self.duration(distance.unsigned_abs());
        if distance < 0 {
            self.nanoseconds.saturating_sub(nanoseconds)
        } else {
            self.nanoseconds.saturating_add(nanoseconds)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_before_and_after_the_reading() {
        // A counter of 2 GHz: half a nanosecond for each tick.
        let scale = Timescale { ticks: 1000, nanoseconds: 7000, multiplier: 1 << 31, shift: 0 };
        assert_eq!(scale.duration(4000), 2000);
        assert_eq!([0, 1000, 3000].map(|ticks| scale.since_boot(ticks)), [6500, 7000, 8000]);
        let coarse = Timescale { multiplier: 1 << 31, shift: -1, ..scale };
        assert_eq!(coarse.duration(4000), 1000);
        let before_the_domain = Timescale { ticks: 1000_u64.wrapping_neg(), ..scale };
        assert_eq!(before_the_domain.since_boot(3000), 9000);
        assert_eq!(Timescale::NANOSECONDS.since_boot(123), 123);
    }
}
