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

/// Where the quarantined frames lie.
#[derive(Debug)]
enum Gaps<'a> {
    /// Side by side, or nowhere.
    Stretch(Range<Pfn>),
    /// Anywhere. The P2M has no machine frame for them, and has one for all others.
    InP2m(P2m<'a>),
}

impl<'a> Remaining<'a> {
    /// Returns a run without `lost` frames: those that `p2m` has no machine frame for.
    pub(super) const fn in_p2m(run: FrameRun, lost: u64, p2m: P2m<'a>) -> Self {
        Self { run, lost, gaps: Gaps::InP2m(p2m) }
    }

    /// Returns a run without `lost` of its frames, from `first` on.
    pub(super) const fn around(run: FrameRun, first: Pfn, lost: u64) -> Self {
        Self { run, lost, gaps: Gaps::Stretch(first..first.add(lost)) }
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

    /// Returns the first frame and the length of each stretch that remains.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (Pfn, u64)> {
        let end = self.run.first().add(self.run.frames());
        let mut at = self.run.first();
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
        let gaps = Gaps::Stretch(run.first()..run.first());
        Self { run, lost: 0, gaps }
    }
}

impl Gaps<'_> {
    /// Returns true if the frame is not quarantined.
    fn spare(&self, pfn: Pfn) -> bool {
        match self {
            Self::Stretch(gap) => !gap.contains(&pfn),
            Self::InP2m(p2m) => p2m.mfn(pfn).is_some(),
        }
    }

    /// Returns the first frame after `pfn` that differs from it in being quarantined, or `end`.
    fn next_edge(&self, pfn: Pfn, end: Pfn) -> Pfn {
        let edge = match self {
            Self::Stretch(gap) => [gap.start, gap.end].into_iter().find(|edge| *edge > pfn),
            Self::InP2m(p2m) => {
                let spared = p2m.mfn(pfn).is_some();
                let mut rest = (pfn.number()..end.number()).map(Pfn::new);
                rest.find(|pfn| p2m.mfn(*pfn).is_some() != spared)
            }
        };
        edge.unwrap_or(end).min(end)
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

    fn around(first: u64, lost: u64) -> Vec<FrameRun> {
        let remaining = Remaining::around(run(8, 6), Pfn::new(8 + first), lost);
        assert_eq!(remaining.frames(), 6 - lost);
        let stretches: Vec<_> = remaining.stretches().collect();
        let runs: Vec<_> = remaining.into_iter().collect();
        assert!(runs.iter().map(|run| (run.first(), run.frames())).eq(stretches));
        runs
    }

    #[test]
    fn what_remains_lies_on_either_side() {
        assert_eq!(around(2, 3), [run(8, 2), run(13, 1)]);
        assert_eq!(around(0, 1), [run(9, 5)]);
        assert_eq!(around(5, 1), [run(8, 5)]);
        assert_eq!(around(0, 6), []);
        assert_eq!(around(3, 0), [run(8, 3), run(11, 3)]);
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
                    .stretches()
                    .map(|(first, _)| first)
                    .eq(expected.iter().map(FrameRun::first))
            );
            assert_eq!(remaining.into_iter().collect::<Vec<_>>(), expected);
        }
    }
}
