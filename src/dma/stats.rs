//! The figures of an allocator.

use core::sync::atomic::Ordering::Relaxed;

use super::Allocator;
use super::counters::Source;
use super::reserve::CLASSES;
use crate::platform::Platform;

/// The figures of an allocator. All memory is counted in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Buffers that the reserve served.
    pub from_reserve: u64,
    /// Buffers that the kernel's free memory served as it was.
    pub adopted: u64,
    /// Buffers that an exchange or a refill served.
    pub exchanged: u64,
    /// Frames that were returned to Xen.
    pub returned: u64,
    /// Times that Xen refused to exchange memory on its way back.
    pub refusals: u64,
    /// Free frames of the reserve.
    pub idle: u64,
    /// Frames of a scarce class that the kernel has, until [`Allocator::trim`] finds them free.
    pub lent: u64,
    /// Frames that Xen refused to take. [`Allocator::trim`] tries them again.
    pub set_aside: u64,
    /// Frames that hold the reserve's own records.
    pub records: u64,
    /// How many more frames below 4 GiB the guest has than before its exchanges. 0 if it has fewer, and in
    /// a translated guest, to which Xen does not report machine frames.
    pub below_4g: u64,
    /// The same below 16 MiB.
    pub below_16m: u64,
    /// The most steps that the lock of the reserve was held for: records read or written.
    pub longest_hold: u64,
}

impl<P: Platform> Allocator<P> {
    /// Returns the figures so far. Makes no hypercall and does not sleep.
    ///
    /// Takes the lock of the reserve for a moment. An interrupt handler may call it if that lock masks
    /// interrupts.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        let (idle, set_aside, records) = self.reserve.with(|blocks| {
            let idle = (0..CLASSES).map(|class| blocks.idle(class)).sum();
            (idle, blocks.set_aside_frames(), blocks.record_frames())
        });
        Stats {
            from_reserve: counters.buffers_from(Source::Reserve),
            adopted: counters.buffers_from(Source::Adopted),
            exchanged: counters.buffers_from(Source::Exchanged),
            returned: counters.returned.load(Relaxed),
            refusals: counters.refusals.load(Relaxed),
            idle,
            lent: self.lent.total(),
            set_aside,
            records,
            below_4g: counters.below_4g(),
            below_16m: counters.below_16m(),
            longest_hold: self.reserve.longest_hold(),
        }
    }
}
