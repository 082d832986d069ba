//! A pseudo-random sequence that a seed repeats.

/// xorshift64*, which is random enough to mix operations.
#[derive(Clone, Debug)]
pub struct SoakRandom(u64);

impl SoakRandom {
    /// Returns the sequence of a seed.
    pub fn new(seed: u64) -> Self {
        // The state must not be 0. The sequences of adjacent seeds begin far apart.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The upper bits are more random. A slight bias does no harm.
        (self.next() >> 8) % end
    }

    /// Returns a number from `first` to `last`.
    pub fn within(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Returns true in `percent` of all cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
