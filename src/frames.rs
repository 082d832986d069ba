//! A frame allocator that hands out contiguous runs and takes them back.
//!
//! A bitmap, a bit per frame. The memory of the bitmap is the embedder's.

use core::fmt;

use crate::addr::Pfn;
use crate::bitmap::{Bitmap, Try};

/// A run of consecutive guest frames that its holder owns (M1).
///
/// Not `Clone`: whoever gives a run back can't use it any more.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a run that is dropped is lost to the allocator"]
pub struct FrameRun {
    first: Pfn,
    frames: u64,
}

impl FrameRun {
    /// Claims a run.
    ///
    /// # Safety
    /// The caller owns these frames, and no other `FrameRun` names one of them (M1).
    pub const unsafe fn new(first: Pfn, frames: u64) -> Self {
        Self { first, frames }
    }

    /// The first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// How many frames.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Cuts the run in two: the first `at` frames, and the rest.
    ///
    /// # Errors
    /// The run as it was, if it has no more than `at` frames or `at` is 0.
    pub const fn split(self, at: u64) -> Result<(Self, Self), Self> {
        if at == 0 || at >= self.frames {
            return Err(self);
        }
        let rest = Self { first: self.first.add(at), frames: self.frames - at };
        Ok((Self { first: self.first, frames: at }, rest))
    }

    /// Each frame of the run.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Pfn> + Clone + use<> {
        (self.first.number()..self.first.number() + self.frames).map(Pfn::new)
    }
}

/// What a search is told of the run that begins with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// It is what is looked for.
    Fits,
    /// It is not, and neither is any that begins before this frame.
    TryFrom(Pfn),
}

/// Frames that are not what the allocator has them down for: given back twice, or never its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// The first of them.
    pub pfn: Pfn,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pfn {} was given to the frame allocator, which had it already or never did",
            self.pfn
        )
    }
}

impl core::error::Error for NotTaken {}

/// The allocator.
#[derive(Debug)]
pub struct FrameAllocator<'a> {
    free: Bitmap<'a>,
}

impl<'a> FrameAllocator<'a> {
    /// Words that the bitmap of `frames` frames needs.
    pub const fn bitmap_words(frames: u64) -> usize {
        Bitmap::words(frames)
    }

    /// An allocator with nothing to give, for frames below `limit`.
    ///
    /// # Panics
    /// If the bitmap is smaller than [`bitmap_words`](Self::bitmap_words) says.
    pub fn new(bitmap: &'a mut [u64], limit: u64) -> Self {
        Self { free: Bitmap::new(bitmap, limit) }
    }

    /// How many frames are free.
    pub const fn free_frames(&self) -> u64 {
        self.free.free()
    }

    /// Takes a run of `frames` frames whose first is a multiple of `align`, which is a power of
    /// two. `None` where there is none.
    pub fn take(&mut self, frames: u64, align: u64) -> Option<FrameRun> {
        let first = self.free.take(frames, align)?;
        Some(FrameRun { first: Pfn::new(first), frames })
    }

    /// Takes a run of `frames` frames that `fits` accepts, asking it `budget` times at most.
    pub fn take_where(
        &mut self,
        frames: u64,
        budget: u32,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Option<FrameRun> {
        let first = self.free.take_where(frames, budget, |first| match fits(Pfn::new(first)) {
            Candidate::Fits => Try::Fits,
            Candidate::TryFrom(next) => Try::From(next.number()),
        })?;
        Some(FrameRun { first: Pfn::new(first), frames })
    }

    /// Takes a run back.
    ///
    /// # Errors
    /// Nothing was taken back: a frame of the run is free already or beyond the limit.
    pub fn give(&mut self, run: FrameRun) -> Result<(), NotTaken> {
        let given = self.free.give(run.first.number(), run.frames);
        given.map_err(|number| NotTaken { pfn: Pfn::new(number) })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn allocator(bitmap: &mut [u64], limit: u64) -> FrameAllocator<'_> {
        let mut allocator = FrameAllocator::new(bitmap, limit);
        // SAFETY: a test's frames are numbers only.
        allocator.give(unsafe { FrameRun::new(Pfn::new(0), limit) }).unwrap();
        allocator
    }

    #[test]
    fn hands_out_every_frame_once() {
        let mut bitmap = vec![0; 4];
        let mut allocator = allocator(&mut bitmap, 200);
        let mut seen = [false; 200];
        while let Some(run) = allocator.take(3, 1) {
            for pfn in run.iter() {
                assert!(!core::mem::replace(&mut seen[pfn.number() as usize], true));
            }
        }
        assert_eq!(allocator.free_frames(), 200 % 3);
        assert_eq!(seen.iter().filter(|taken| **taken).count(), 198);
    }

    #[test]
    fn aligns_and_wraps_around() {
        let mut bitmap = vec![0; 4];
        let mut allocator = allocator(&mut bitmap, 256);
        let low = allocator.take(1, 1).unwrap();
        let run = allocator.take(128, 128).unwrap();
        assert_eq!((low.first(), run.first()), (Pfn::new(0), Pfn::new(128)));
        assert_eq!(allocator.take(128, 128), None);
        allocator.give(low).unwrap();
        assert_eq!(allocator.take(128, 128).unwrap().first(), Pfn::new(0));
        assert_eq!((allocator.free_frames(), allocator.take(1, 1)), (0, None));
    }

    #[test]
    fn refuses_what_it_has_already_and_what_was_never_there() {
        let mut bitmap = vec![0; 2];
        let mut allocator = allocator(&mut bitmap, 100);
        let run = allocator.take(10, 1).unwrap();
        let first = run.first();
        allocator.give(run).unwrap();
        // SAFETY: as above; the point is that the allocator notices.
        let (again, beyond) = unsafe { (FrameRun::new(first, 10), FrameRun::new(Pfn::new(95), 6)) };
        assert_eq!(allocator.give(again), Err(NotTaken { pfn: first }));
        assert_eq!(allocator.give(beyond), Err(NotTaken { pfn: Pfn::new(100) }));
        assert_eq!(allocator.free_frames(), 100);
    }

    #[test]
    fn a_search_asks_of_free_runs_alone_and_no_more_than_its_budget() {
        let mut bitmap = vec![0; 4];
        let mut allocator = allocator(&mut bitmap, 256);
        let taken = allocator.take(100, 1).unwrap();
        let mut asked = Vec::new();
        let run = allocator.take_where(10, 8, &mut |pfn| {
            asked.push(pfn.number());
            if asked.len() == 3 { Candidate::Fits } else { Candidate::TryFrom(pfn.add(7)) }
        });
        assert_eq!(asked, [100, 107, 114]);
        assert_eq!(run.map(|run| (run.first().number(), run.frames())), Some((114, 10)));
        assert_eq!(allocator.free_frames(), 146);
        let mut count = 0;
        let stubborn = &mut |pfn| {
            count += 1;
            Candidate::TryFrom(pfn)
        };
        assert_eq!(allocator.take_where(1, 5, stubborn), None);
        assert_eq!(count, 5);
        allocator.give(taken).unwrap();
    }

    #[test]
    fn what_came_back_last_is_looked_at_first_and_the_rest_after_it() {
        let mut bitmap = vec![0; 4];
        let mut allocator = allocator(&mut bitmap, 200);
        let low = allocator.take(50, 1).unwrap();
        let mut held: Vec<FrameRun> = (0..15).filter_map(|_| allocator.take(10, 1)).collect();
        allocator.give(low).unwrap();
        allocator.give(held.remove(7)).unwrap();
        let mut asked = vec![];
        let run = allocator.take_where(10, 100, &mut |pfn| {
            asked.push(pfn.number());
            Candidate::TryFrom(pfn.add(20))
        });
        assert_eq!((run, asked), (None, vec![120, 0, 20, 40]));
    }

    #[test]
    fn a_run_is_cut_where_it_has_two_sides() {
        // SAFETY: a test's frames are numbers only.
        let run = || unsafe { FrameRun::new(Pfn::new(8), 4) };
        let (left, right) = run().split(1).unwrap();
        assert_eq!((left.first(), left.frames()), (Pfn::new(8), 1));
        assert_eq!((right.first(), right.frames()), (Pfn::new(9), 3));
        assert_eq!(run().split(0), Err(run()));
        assert_eq!(run().split(4), Err(run()));
    }

    #[test]
    fn odd_requests_are_refused_not_believed() {
        let mut bitmap = vec![0; 2];
        let mut allocator = allocator(&mut bitmap, 100);
        assert_eq!(allocator.take(0, 1), None);
        assert_eq!(allocator.take(101, 1), None);
        assert_eq!(allocator.take(1, 3), None);
        assert_eq!(allocator.take(u64::MAX, 1), None);
        assert_eq!(allocator.take(1, 1 << 63).map(|run| run.first()), Some(Pfn::new(0)));
    }

    /// Against a model so simple that it can't be wrong: a vector of booleans.
    #[test]
    fn agrees_with_a_naive_model() {
        let mut bitmap = vec![0; 5];
        let limit = 300;
        let mut allocator = allocator(&mut bitmap, limit);
        let mut free = vec![true; limit as usize];
        let mut held: Vec<FrameRun> = Vec::new();
        let mut random = 0x1234_5678_9abc_def1_u64;
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(3) && !held.is_empty() {
                let run = held.swap_remove(random as usize / 8 % held.len());
                run.iter().for_each(|pfn| free[pfn.number() as usize] = true);
                allocator.give(run).unwrap();
            } else {
                let (frames, align) = (1 + random / 8 % 40, 1 << (random / 512 % 6));
                let fits = (0..=limit - frames)
                    .step_by(align as usize)
                    .any(|first| (first..first + frames).all(|pfn| free[pfn as usize]));
                let run = allocator.take(frames, align);
                assert_eq!(run.is_some(), fits, "{frames} frames at {align}");
                if let Some(run) = run {
                    assert!(run.first().number().is_multiple_of(align));
                    for pfn in run.iter() {
                        assert!(core::mem::replace(&mut free[pfn.number() as usize], false));
                    }
                    held.push(run);
                }
            }
            let count = free.iter().filter(|free| **free).count() as u64;
            assert_eq!(allocator.free_frames(), count);
        }
    }
}
