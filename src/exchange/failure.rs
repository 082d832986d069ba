//! What a failed exchange or refill leaves of its run.

use core::ops::Range;
use core::{fmt, iter, mem};

use super::error::ExchangeError;
use crate::addr::Pfn;
use crate::frames::FrameRun;
use crate::p2m::P2m;

/// An exchange or a refill that failed, and the frames that remain of its run.
#[derive(Debug)]
#[must_use = "dropping it leaks the frames that remain"]
pub struct ExchangeFailure<'a> {
    /// Why it failed.
    pub error: ExchangeError,
    /// The frames that are not in quarantine.
    pub remaining: Remaining<'a>,
}

impl ExchangeFailure<'_> {
    /// Nothing of the run is lost.
    pub(super) fn without_loss(error: ExchangeError, run: FrameRun) -> Self {
        Self { error, remaining: run.into() }
    }

    /// Returns true if the same call can succeed later although the caller changes nothing.
    pub const fn is_transient(&self) -> bool {
        self.error.is_transient() && self.remaining.lost == 0
    }
}

impl fmt::Display for ExchangeFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.remaining.lost {
            0 => Ok(()),
            lost => write!(f, "; {lost} of {} frames are quarantined", self.remaining.run.frames()),
        }
    }
}

impl core::error::Error for ExchangeFailure<'_> {}

/// The frames of a run that are not in quarantine, mapped and the caller's again.
///
/// Iterating yields them as runs, first to last. After a failure in which frames moved, they are
/// zeroed, and other machine frames may back them than before.
#[derive(Debug)]
#[must_use = "dropping it leaks the frames that remain"]
pub struct Remaining<'a> {
    /// All frames, the quarantined ones included.
    run: FrameRun,
    /// How many are quarantined.
    lost: u64,
    /// Which ones.
    gaps: Gaps<'a>,
}

/// Stands in a list for a frame that is quarantined.
pub(super) const LOST: u64 = u64::MAX;

/// Where the quarantined frames lie.
#[derive(Debug)]
enum Gaps<'a> {
    /// Where the list says [`LOST`]. It begins with the frame given, and is shorter than the run if no
    /// frame after it is quarantined.
    InList { first: Pfn, list: &'a [u64] },
    /// Where the P2M has no machine frame.
    InP2m(P2m<'a>),
}

impl<'a> Remaining<'a> {
    /// Returns a run without `lost` frames: those that `p2m` has no machine frame for.
    pub(super) const fn in_p2m(run: FrameRun, lost: u64, p2m: P2m<'a>) -> Self {
        Self { run, lost, gaps: Gaps::InP2m(p2m) }
    }

    /// Returns a run without `lost` frames: those that `list` says are [`LOST`]. The list has an entry
    /// for each frame up to the last one that can be lost.
    pub(super) const fn without_lost(run: FrameRun, lost: u64, list: &'a [u64]) -> Self {
        let first = run.first();
        Self { run, lost, gaps: Gaps::InList { first, list } }
    }

    /// Returns the number of frames that remain.
    pub const fn frames(&self) -> u64 {
        self.run.frames() - self.lost
    }

    /// Returns the number of frames that are quarantined.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the run, if no frame of it is quarantined.
    ///
    /// # Errors
    /// The same value, if a frame of it is.
    pub fn whole(self) -> Result<FrameRun, Self> {
        if self.lost == 0 { Ok(self.run) } else { Err(self) }
    }

    /// Returns the first frame and the length of each stretch that remains of some frames of the run,
    /// counted from its first.
    pub(super) fn stretches_within(&self, frames: Range<u64>) -> impl Iterator<Item = (Pfn, u64)> {
        let mut at = self.run.first().add(frames.start);
        let end = self.run.first().add(frames.end);
        iter::from_fn(move || {
            while at < end {
                let (first, remains) = (at, self.gaps.spare(at));
                at = self.gaps.next_edge(first, end);
                if remains {
                    return Some((first, at.number() - first.number()));
                }
            }
            None
        })
    }
}

impl From<FrameRun> for Remaining<'_> {
    /// Returns all frames of a run.
    fn from(run: FrameRun) -> Self {
        Self::without_lost(run, 0, &[])
    }
}

impl Gaps<'_> {
    /// Returns true if the frame is not quarantined.
    fn spare(&self, pfn: Pfn) -> bool {
        match self {
            Self::InList { first, list } => {
                let index = (pfn.number() - first.number()) as usize;
                list.get(index).is_none_or(|entry| *entry != LOST)
            }
            Self::InP2m(p2m) => p2m.mfn(pfn).is_some(),
        }
    }

    /// Returns the first frame after `pfn` that differs from it in being quarantined, or `end`.
    fn next_edge(&self, pfn: Pfn, end: Pfn) -> Pfn {
        let spared = self.spare(pfn);
        let last_differing = match self {
            // No frame after the list differs from the one before it.
            Self::InList { first, list } => first.add(list.len() as u64 + 1).min(end),
            Self::InP2m(_) => end,
        };
        let mut rest = (pfn.number()..last_differing.number()).map(Pfn::new);
        rest.find(|pfn| self.spare(*pfn) != spared).unwrap_or(end)
    }
}

impl<'a> IntoIterator for Remaining<'a> {
    type Item = FrameRun;
    type IntoIter = RemainingRuns<'a>;

    fn into_iter(self) -> RemainingRuns<'a> {
        RemainingRuns { rest: self.run, gaps: self.gaps }
    }
}

/// The runs of a [`Remaining`], first to last.
#[derive(Debug)]
pub struct RemainingRuns<'a> {
    rest: FrameRun,
    gaps: Gaps<'a>,
}

impl Iterator for RemainingRuns<'_> {
    type Item = FrameRun;

    fn next(&mut self) -> Option<FrameRun> {
        while !self.rest.is_empty() {
            let first = self.rest.first();
            let remains = self.gaps.spare(first);
            let edge = self.gaps.next_edge(first, first.add(self.rest.frames()));
            // The run is cut before it is yielded: what its new owner does to it in the P2M is
            // no longer read here.
            let (run, rest) = mem::replace(&mut self.rest, FrameRun::EMPTY)
                .split_at(edge.number() - first.number());
            self.rest = rest;
            if remains {
                return Some(run);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::sync::AtomicU64;

    fn run(first: u64, frames: u64) -> FrameRun {
        // SAFETY: a test's frames are numbers only; no other value owns them
        // ([M1](crate::rules#M1)).
        unsafe { FrameRun::new(Pfn::new(first), frames) }
    }

    /// What remains of a run of 6 frames, by a list of the first of them.
    fn by_list(list: &[u64]) -> Vec<FrameRun> {
        let lost = list.iter().filter(|entry| **entry == LOST).count() as u64;
        let remaining = Remaining::without_lost(run(8, 6), lost, list);
        assert_eq!(remaining.frames(), 6 - lost);
        let stretches: Vec<_> = remaining.stretches_within(0..6).collect();
        let runs: Vec<_> = remaining.into_iter().collect();
        assert!(runs.iter().map(|run| (run.first(), run.frames())).eq(stretches));
        runs
    }

    #[test]
    fn what_remains_lies_around_each_lost_frame() {
        assert_eq!(by_list(&[0, 0, LOST, LOST, LOST, 0]), [run(8, 2), run(13, 1)]);
        assert_eq!(by_list(&[LOST, 0, LOST]), [run(9, 1), run(11, 3)]);
        assert_eq!(by_list(&[LOST]), [run(9, 5)]);
        assert_eq!(by_list(&[0, 0, 0, 0, 0, LOST]), [run(8, 5)]);
        assert_eq!(by_list(&[LOST; 6]), []);
        assert_eq!(by_list(&[0; 3]), [run(8, 6)]);
        assert!(Remaining::from(run(8, 6)).into_iter().eq([run(8, 6)]));
        assert_eq!(Remaining::from(run(8, 6)).whole().unwrap(), run(8, 6));
    }

    #[test]
    fn what_remains_is_what_the_p2m_has() {
        const NONE: u64 = u64::MAX;
        for (backing, expected) in [
            ([NONE, 5, 6, NONE, NONE, 9], vec![run(3, 2), run(7, 1)]),
            ([4, NONE, 6, NONE, 8, NONE], vec![run(2, 1), run(4, 1), run(6, 1)]),
            ([NONE; 6], vec![]),
        ] {
            let entries: Vec<AtomicU64> =
                [1, 1].into_iter().chain(backing).chain([1]).map(AtomicU64::new).collect();
            // SAFETY: a test's table; nothing is mapped by it ([M4](crate::rules#M4)).
            let p2m = unsafe { P2m::table(&entries) };
            let lost = backing.iter().filter(|number| **number == NONE).count() as u64;
            let remaining = Remaining::in_p2m(run(2, 6), lost, p2m);
            assert_eq!(remaining.frames(), expected.iter().map(FrameRun::frames).sum());
            assert!(
                remaining
                    .stretches_within(0..6)
                    .map(|(first, _)| first)
                    .eq(expected.iter().map(FrameRun::first))
            );
            assert_eq!(remaining.into_iter().collect::<Vec<_>>(), expected);
        }
    }
}
