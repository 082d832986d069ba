//! A frame allocator that hands out contiguous runs and takes them back.
//!
//! It keeps one bit per frame, in memory of the embedder.

use core::fmt;

use super::run::FrameRun;
use crate::addr::Pfn;
use crate::bitmap::{Bitmap, Slice, Try};

/// What the caller of a search says about the run that begins with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// The run fits.
    Fits,
    /// The run does not fit, and no run that begins before this frame does.
    TryFrom(Pfn),
}

/// The result of a search of a part of the free frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Search {
    /// This run fits. It was taken.
    Taken(FrameRun),
    /// No run fits that begins before this frame. The search can go on there.
    Continue(Pfn),
    /// No further run fits.
    End,
}

/// A run that the frame allocator did not take back: one of its frames is already free, or lies
/// beyond the allocator's limit. The run is leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAllocated {
    pfn: Pfn,
}

impl NotAllocated {
    /// Returns the first such frame.
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// Returns false: the same call fails again.
    pub const fn is_transient(&self) -> bool {
        false
    }
}

impl fmt::Display for NotAllocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the frame allocator cannot take back pfn {}: it is free already, or beyond the \
             allocator's limit",
            self.pfn
        )
    }
}

impl core::error::Error for NotAllocated {}

/// Hands out runs of free guest frames.
///
/// It takes bounded time and makes no hypercall. Whether it can be used in an interrupt handler is
/// decided by the lock that the embedder puts around it.
#[derive(Debug)]
pub struct FrameAllocator<'a> {
    free: Bitmap<'a>,
}

impl<'a> FrameAllocator<'a> {
    /// Returns the number of words of 8 bytes that the bitmap for `frames` frames needs.
    pub const fn bitmap_words(frames: u64) -> usize {
        Bitmap::words(frames)
    }

    /// Returns an allocator for the frames below `limit`, none of which is free.
    ///
    /// # Panics
    /// If the bitmap is shorter than [`bitmap_words`](Self::bitmap_words).
    pub fn new(bitmap: &'a mut [u64], limit: u64) -> Self {
        Self { free: Bitmap::new(bitmap, limit) }
    }

    /// Returns the number of free frames.
    pub const fn free_frames(&self) -> u64 {
        self.free.free()
    }

    /// Takes a run of `frames` frames, the first of which is a multiple of `align`.
    ///
    /// Returns `None` if there is no such run, or if `align` is not a power of two.
    pub fn take(&mut self, frames: u64, align: u64) -> Option<FrameRun> {
        let first = self.free.take(frames, align)?;
        Some(taken(first, frames))
    }

    /// Takes a run of `frames` frames that `fits` accepts, if one begins in the next slice of the bitmap, at
    /// `from` or after.
    ///
    /// Reads at most 256 words of the bitmap and calls `fits` at most 256 times, with the first frame of a
    /// free run each time.
    pub fn take_where(
        &mut self,
        frames: u64,
        from: Pfn,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Search {
        let slice =
            self.free.take_where(frames, from.number(), |first| match fits(Pfn::new(first)) {
                Candidate::Fits => Try::Fits,
                Candidate::TryFrom(next) => Try::From(next.number()),
            });
        match slice {
            Slice::Taken(first) => Search::Taken(taken(first, frames)),
            Slice::Continue(next) => Search::Continue(Pfn::new(next)),
            Slice::End => Search::End,
        }
    }

    /// Takes the first run of `frames` frames that `fits` accepts, wherever it begins.
    ///
    /// The time is in proportion to the allocator's limit. A kernel that holds a lock meanwhile searches
    /// by [`take_where`](Self::take_where) instead.
    pub fn take_first(
        &mut self,
        frames: u64,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Option<FrameRun> {
        let mut from = Pfn::new(0);
        loop {
            match self.take_where(frames, from, fits) {
                Search::Taken(run) => return Some(run),
                Search::Continue(next) => from = next,
                Search::End => return None,
            }
        }
    }

    /// Takes a run back. A piece of a run that was taken is accepted as well.
    ///
    /// # Errors
    /// A frame of the run is free already, or beyond the limit. Then no frame is taken back.
    pub fn give(&mut self, run: FrameRun) -> Result<(), NotAllocated> {
        if run.is_empty() {
            return Ok(());
        }
        let given = self.free.give(run.first().number(), run.frames());
        given.map_err(|number| NotAllocated { pfn: Pfn::new(number) })
    }
}

/// Returns the run of frames that were just taken out of the bitmap.
const fn taken(first: u64, frames: u64) -> FrameRun {
    // SAFETY: the frames were free, so a run that named them was returned and no longer exists. They
    // lie below the allocator's limit ([M1](crate::rules#M1)).
    unsafe { FrameRun::new(Pfn::new(first), frames) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn allocator(bitmap: &mut [u64], limit: u64) -> FrameAllocator<'_> {
        let mut allocator = FrameAllocator::new(bitmap, limit);
        // SAFETY: a test's frames are numbers only; no other value owns them
        // ([M1](crate::rules#M1)).
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
    fn a_free_frame_and_a_frame_past_the_limit_are_refused() {
        let mut bitmap = vec![0; 2];
        let mut allocator = allocator(&mut bitmap, 100);
        let run = allocator.take(10, 1).unwrap();
        let first = run.first();
        allocator.give(run).unwrap();
        // SAFETY: a test's frames are numbers only. That two values name the same frames
        // ([M1](crate::rules#M1)) is what the allocator has to notice.
        let (again, beyond) = unsafe { (FrameRun::new(first, 10), FrameRun::new(Pfn::new(95), 6)) };
        assert_eq!(allocator.give(again), Err(NotAllocated { pfn: first }));
        assert_eq!(allocator.give(beyond), Err(NotAllocated { pfn: Pfn::new(100) }));
        assert_eq!(allocator.free_frames(), 100);
    }

    #[test]
    fn a_search_asks_of_free_runs_alone() {
        let mut bitmap = vec![0; 4];
        let mut allocator = allocator(&mut bitmap, 256);
        let taken = allocator.take(100, 1).unwrap();
        let mut asked = Vec::new();
        let run = allocator.take_first(10, &mut |pfn| {
            asked.push(pfn.number());
            if asked.len() == 3 { Candidate::Fits } else { Candidate::TryFrom(pfn.add(7)) }
        });
        assert_eq!(asked, [100, 107, 114]);
        assert_eq!(run.map(|run| (run.first().number(), run.frames())), Some((114, 10)));
        assert_eq!(allocator.free_frames(), 146);
        allocator.give(taken).unwrap();
    }

    /// Every frame is offered once over all slices, and no slice asks more often than it may.
    #[test]
    fn slices_are_bounded_and_complete() {
        let limit = 64 * 1024;
        let mut bitmap = vec![0; 1024];
        let mut allocator = allocator(&mut bitmap, limit);
        let low = allocator.take(60_000, 1).unwrap();
        let (mut from, mut asked, mut slices) = (Pfn::new(0), Vec::new(), 0);
        loop {
            let before = asked.len();
            let search = allocator.take_where(1, from, &mut |pfn| {
                asked.push(pfn.number());
                Candidate::TryFrom(pfn)
            });
            slices += 1;
            assert!(asked.len() - before <= 256, "{slices}");
            match search {
                Search::Continue(next) => {
                    assert!(next > from);
                    from = next;
                }
                Search::End => break,
                Search::Taken(run) => panic!("{run:?}"),
            }
        }
        assert_eq!(asked, (60_000..limit).collect::<Vec<_>>());
        assert!(slices > 20, "{slices}");
        allocator.give(low).unwrap();
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

    /// Compares the allocator with a vector of booleans.
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
