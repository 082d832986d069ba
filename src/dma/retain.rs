//! How much idle memory the reserve retains.

use crate::addr::PAGE_SIZE;
use crate::sync::AtomicU64;

const PAGE: u64 = PAGE_SIZE as u64;

/// How much idle memory the reserve retains, for each class of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retain {
    /// At most 16 MiB or 1/64 of the guest's memory, whichever is more, and never more than 1/8.
    /// Trimming stops at half of that.
    #[default]
    ByMemory,
    /// At most `high` bytes. Above that, trimming goes down to `low`.
    Bytes {
        /// Where trimming stops.
        low: u64,
        /// Where it begins.
        high: u64,
    },
}

impl Retain {
    /// Nothing is retained: each allocation that may sleep trims all that is idle after it was served.
    pub const NOTHING: Self = Self::Bytes { low: 0, high: 0 };
}

/// The watermarks, in frames.
#[derive(Debug)]
pub(super) struct Watermarks {
    pub low: u64,
    high: u64,
    /// The classes that may be above the high watermark, a bit for each.
    pub crossed: AtomicU64,
}

impl Watermarks {
    pub fn new(retain: Retain, guest_frames: u64) -> Self {
        let (low, high) = match retain {
            Retain::ByMemory => {
                let high = (guest_frames / 64).max((16 << 20) / PAGE).min(guest_frames / 8);
                (high / 2, high)
            }
            Retain::Bytes { low, high } => (low.min(high) / PAGE, high / PAGE),
        };
        Self { low, high, crossed: AtomicU64::new(0) }
    }

    /// Returns how many frames of a class may be idle.
    pub const fn high(&self) -> u64 {
        self.high
    }
}
