//! A run of frames, as a value that owns them.

use crate::addr::Pfn;

/// A run of consecutive guest frames that its holder owns ([M1](crate::rules#M1)).
///
/// It is not `Clone`: after a run was passed on, its former owner cannot use it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping a run leaks its frames"]
pub struct FrameRun {
    first: Pfn,
    frames: u64,
}

impl FrameRun {
    /// A run without frames.
    pub(crate) const EMPTY: Self = Self { first: Pfn::new(0), frames: 0 };

    /// Claims a run.
    ///
    /// # Safety
    /// * The frames exist in the guest, so their numbers do not overflow.
    /// * The caller owns them, and no other `FrameRun` names one of them ([M1](crate::rules#M1)).
    pub const unsafe fn new(first: Pfn, frames: u64) -> Self {
        Self { first, frames }
    }

    /// Returns the first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// Returns the number of frames.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns true if the run has no frames.
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Cuts the run in two: its first `at` frames, and the rest. Either may be empty.
    ///
    /// If the run has fewer frames, all of them are in the first.
    pub const fn split_at(self, at: u64) -> (Self, Self) {
        let at = if at < self.frames { at } else { self.frames };
        let rest = Self { first: self.first.add(at), frames: self.frames - at };
        (Self { first: self.first, frames: at }, rest)
    }

    /// Joins the run with the one that begins where it ends.
    ///
    /// # Panics
    /// If the other one begins elsewhere, unless one of them is empty.
    pub(crate) const fn join(self, after: Self) -> Self {
        if self.is_empty() {
            return after;
        }
        let end = self.first.number() + self.frames;
        assert!(after.is_empty() || after.first.number() == end, "runs side by side");
        Self { first: self.first, frames: self.frames + after.frames }
    }

    /// Iterates over the frames of the run, first to last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Pfn> + Clone + use<> {
        (self.first.number()..self.first.number() + self.frames).map(Pfn::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_cut_without_losing_a_frame() {
        // SAFETY: a test's frames are numbers only; no other value owns them
        // ([M1](crate::rules#M1)).
        let run = |first, frames| unsafe { FrameRun::new(Pfn::new(first), frames) };
        assert_eq!(run(8, 4).split_at(1), (run(8, 1), run(9, 3)));
        assert_eq!(run(8, 4).split_at(0), (run(8, 0), run(8, 4)));
        for at in [4, 5, u64::MAX] {
            assert_eq!(run(8, 4).split_at(at), (run(8, 4), run(12, 0)));
        }
        assert!(run(8, 0).is_empty() && !run(8, 1).is_empty());
        assert_eq!(run(8, 4).join(run(12, 2)), run(8, 6));
        assert_eq!((run(8, 0).join(run(3, 2)), run(3, 2).join(run(8, 0))), (run(3, 2), run(3, 2)));
    }
}
