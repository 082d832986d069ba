//! Which guest frames the machine frames of extents back, if a run is part of each extent.

use crate::addr::{Order, Pfn};

/// Which guest frame gets which machine frame of the extents.
pub(super) struct Places<'s> {
    /// The first frame of the run, and its length.
    pub run: Pfn,
    pub frames: u64,
    /// The numbers of the other frames, in ascending order.
    pub others: &'s [u64],
    pub order: Order,
    /// The frames of each extent that belong to the run. The last extent has what remains of the run.
    pub used: u64,
}

impl Places<'_> {
    pub fn count(&self) -> usize {
        self.frames as usize + self.others.len()
    }

    /// Returns the guest frame for a machine frame, counted through all extents, and whether it is part of
    /// the run.
    pub fn pfn(&self, index: usize) -> (Pfn, bool) {
        let (extent, within) =
            (index as u64 >> self.order.get(), index as u64 & (self.order.frames() - 1));
        let before = (extent * self.used).min(self.frames);
        let here = match extent + 1 == self.extents() {
            true => self.frames - before,
            false => self.used.min(self.frames - before),
        };
        if within < here {
            return (self.run.add(before + within), true);
        }
        (Pfn::new(self.others[index - (before + here) as usize]), false)
    }

    /// Returns the place of one of the other frames.
    pub fn index_of_other(&self, other: usize) -> usize {
        let surplus = self.order.frames() - self.used;
        // The extents before the last one that the run uses as far as it may use any.
        let full = (self.frames / self.used).min(self.extents() - 1);
        let other = other as u64;
        let index = match other.checked_sub(full * surplus) {
            Some(rest) => (full << self.order.get()) + (self.frames - full * self.used) + rest,
            None => ((other / surplus) << self.order.get()) + self.used + other % surplus,
        };
        index as usize
    }

    fn extents(&self) -> u64 {
        self.count() as u64 >> self.order.get()
    }

    /// Returns true if the extents are whole, and have room for the run.
    pub fn is_complete(&self) -> bool {
        let extents = self.extents();
        extents > 0
            && extents << self.order.get() == self.count() as u64
            && self.frames.saturating_sub((extents - 1) * self.used) <= self.order.frames()
    }

    /// Returns the guest frame from which on Xen numbers an extent.
    pub const fn asked_for(&self, extent: usize) -> u64 {
        self.run.add(extent as u64 * self.used).number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every frame has one place, in whichever way the extents are used.
    #[test]
    fn each_frame_has_one_place() {
        for (order, used) in
            (0..4).flat_map(|order| (1..=1 << order).map(move |used| (order, used)))
        {
            let order = Order::new(order).unwrap();
            // The last extent can have more of the run than the others.
            let extents = |frames: u64| {
                let most = frames.div_ceil(used);
                (most.saturating_sub(1).max(1)..=most).map(move |extents| (frames, extents))
            };
            for (frames, extents) in (1..=3_u64 * used).flat_map(extents) {
                let count = extents << order.get();
                if frames > (extents - 1) * used + order.frames() {
                    continue;
                }
                let mut numbers = [0; 32];
                let others = &mut numbers[..(count - frames) as usize];
                (100..).zip(others.iter_mut()).for_each(|(number, entry)| *entry = number);
                let places = Places { run: Pfn::new(8), frames, others, order, used };
                assert_eq!((places.count() as u64, places.is_complete()), (count, true));
                let (mut run, mut other) = (0, 0);
                for index in 0..places.count() {
                    match places.pfn(index) {
                        (pfn, true) => {
                            assert_eq!(pfn, Pfn::new(8 + run));
                            let within = index as u64 & (order.frames() - 1);
                            let asked = places.asked_for(index >> order.get());
                            assert_eq!(asked + within, pfn.number());
                            run += 1;
                        }
                        (pfn, false) => {
                            assert_eq!(pfn, Pfn::new(100 + other));
                            assert_eq!(places.index_of_other(other as usize), index);
                            other += 1;
                        }
                    }
                }
                assert_eq!((run, run + other), (frames, count));
            }
        }
    }
}
