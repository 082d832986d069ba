//! What an exchange that failed leaves of its run.

use crate::frames::FrameRun;

/// What is left of a run whose exchange failed. Mapped, and the caller's again (M1).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a run that is dropped is lost to the allocator"]
pub enum Left {
    /// All of it.
    Whole(FrameRun),
    /// What lies on either side of the frames that are quarantined (M6).
    Pieces {
        /// The frames before them, if there are any and Xen mapped them.
        before: Option<FrameRun>,
        /// The frames behind them, likewise.
        behind: Option<FrameRun>,
    },
}

impl Left {
    /// All of it is quarantined.
    pub const NOTHING: Self = Self::Pieces { before: None, behind: None };

    /// The runs, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &FrameRun> {
        let (first, second) = match self {
            Self::Whole(run) => (Some(run), None),
            Self::Pieces { before, behind } => (before.as_ref(), behind.as_ref()),
        };
        first.into_iter().chain(second)
    }

    /// How many frames are left.
    pub fn frames(&self) -> u64 {
        self.iter().map(FrameRun::frames).sum()
    }
}

impl IntoIterator for Left {
    type Item = FrameRun;
    type IntoIter = core::iter::Flatten<core::array::IntoIter<Option<FrameRun>, 2>>;

    /// The runs, first to last: to give back whatever there is.
    fn into_iter(self) -> Self::IntoIter {
        let runs = match self {
            Self::Whole(run) => [Some(run), None],
            Self::Pieces { before, behind } => [before, behind],
        };
        runs.into_iter().flatten()
    }
}

/// Cuts a run behind its first `first` frames and behind the `frames` that follow: what lies before,
/// and what lies behind. What is between is dropped: that it is quarantined is the caller's to count.
pub(super) fn without(
    run: FrameRun,
    first: u64,
    frames: u64,
) -> (Option<FrameRun>, Option<FrameRun>) {
    let (before, rest) = cut(Some(run), first);
    let (_quarantined, behind) = cut(rest, frames);
    (before, behind)
}

/// Both sides of a place in a run, which may be either end of it.
fn cut(run: Option<FrameRun>, at: u64) -> (Option<FrameRun>, Option<FrameRun>) {
    match run.map(|run| run.split(at)) {
        None => (None, None),
        Some(Ok((left, right))) => (Some(left), Some(right)),
        Some(Err(run)) if at == 0 => (None, Some(run)),
        Some(Err(run)) => (Some(run), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;

    #[test]
    fn what_is_left_lies_on_either_side() {
        // SAFETY: a test's frames are numbers only.
        let run = |first, frames| unsafe { FrameRun::new(Pfn::new(first), frames) };
        let left = |first, frames| {
            let (before, behind) = without(run(8, 6), first, frames);
            Left::Pieces { before, behind }
        };
        let pieces = |before, behind| Left::Pieces { before, behind };
        assert_eq!(left(2, 3), pieces(Some(run(8, 2)), Some(run(13, 1))));
        assert_eq!(left(0, 1), pieces(None, Some(run(9, 5))));
        assert_eq!(left(5, 1), pieces(Some(run(8, 5)), None));
        assert_eq!(left(0, 6), Left::NOTHING);
        assert_eq!((left(2, 3).frames(), left(0, 6).frames()), (3, 0));
        assert!(left(2, 3).into_iter().eq([run(8, 2), run(13, 1)]));
        assert!(Left::Whole(run(8, 6)).into_iter().eq([run(8, 6)]));
    }
}
