//! Runs of frames that the reserve covers: it has room for their records.

use core::sync::atomic::Ordering::Relaxed;

use super::plan::Plan;
use super::{AllocError, Allocator};
use crate::addr::Pfn;
use crate::exchange::{ExchangeError, Remaining};
use crate::frames::{Candidate, FrameRun};
use crate::paging::GuestMemory;
use crate::platform::Platform;

/// The largest alignment that [`Platform::take`] is asked for.
const MOST_ALIGNED: u64 = 512;

impl<P: Platform> Allocator<P> {
    /// Takes a run of free frames that the reserve covers.
    pub(super) fn take_covered(&self, frames: u64) -> Result<FrameRun, AllocError> {
        // A first-level table maps 512 frames. A run that has it to itself is mapped faster.
        let aligned = frames.next_power_of_two().min(MOST_ALIGNED);
        let platform = self.platform();
        let run = platform.take(frames, aligned).or_else(|| platform.take(frames, 1));
        self.covered(frames, run)
    }

    /// Takes a run of free frames that the reserve covers, at whose first frame the buffer may begin.
    pub(super) fn take_covered_for(
        &self,
        plan: &Plan,
        frames: u64,
    ) -> Result<FrameRun, AllocError> {
        match plan.guest_align_frames() {
            1 => self.take_covered(frames),
            align if align <= MOST_ALIGNED => {
                self.covered(frames, self.platform().take(frames, align))
            }
            _ => {
                let mut fits = |pfn: Pfn| match plan.next_aligned(pfn) {
                    Some(aligned) if aligned == pfn => Candidate::Fits,
                    aligned => Candidate::TryFrom(aligned.unwrap_or(Pfn::new(u64::MAX >> 1))),
                };
                self.covered(frames, self.take_first(frames, Pfn::new(0), &mut fits))
            }
        }
    }

    /// Makes room in the reserve for the records of a run that was taken.
    fn covered(&self, frames: u64, run: Option<FrameRun>) -> Result<FrameRun, AllocError> {
        let platform = self.platform();
        let in_transactions = self.counters.in_transactions.load(Relaxed);
        let run = run.ok_or(AllocError::NoGuestMemory { frames, in_transactions })?;
        match self.reserve.cover(platform, run.first(), run.frames()) {
            Ok(()) => Ok(run),
            Err(_) => {
                platform.give(run);
                Err(self.no_record_memory())
            }
        }
    }

    /// Gives a run that the reserve covers to the kernel.
    pub(super) fn give_covered(&self, run: FrameRun) {
        if !run.is_empty() {
            self.reserve.uncover(self.platform(), run.first(), run.frames());
            self.platform().give(run);
        }
    }

    /// Gives a run to the kernel that may hold something of another domain
    /// ([C56](crate::conformance#C56)).
    pub(super) fn give_covered_zeroed(&self, run: FrameRun) {
        // SAFETY: the run is mapped and ours alone ([M1](crate::rules#M1)).
        unsafe { self.platform().memory().zero(run.first(), run.frames()) };
        self.give_covered(run);
    }

    /// Gives what remains of a covered run after a failed exchange or refill to the kernel. Nothing is left
    /// in it that came from Xen. `first` is the first frame of the run.
    pub(super) fn give_remaining(&self, first: Pfn, remaining: Remaining<'_>) {
        let platform = self.platform();
        self.reserve.uncover(platform, first, remaining.frames() + remaining.lost());
        remaining.into_iter().for_each(|run| platform.give(run));
    }

    /// Gives what remains of a covered run to the kernel, zeroed.
    pub(super) fn give_remaining_zeroed(&self, first: Pfn, remaining: Remaining<'_>) {
        let platform = self.platform();
        self.reserve.uncover(platform, first, remaining.frames() + remaining.lost());
        for run in remaining {
            // SAFETY: the run is mapped and ours alone ([M1](crate::rules#M1)).
            unsafe { platform.memory().zero(run.first(), run.frames()) };
            platform.give(run);
        }
    }

    /// Sets a frame of a covered run aside that Xen refused. Returns the frames before and after it.
    pub(super) fn set_aside(
        &self,
        run: FrameRun,
        pfn: Pfn,
        error: &ExchangeError,
    ) -> (FrameRun, FrameRun) {
        let index = pfn.number() - run.first().number();
        let (before, rest) = run.split_at(index);
        let (_aside, after) = rest.split_at(1);
        let memory = self.platform().memory();
        self.reserve.with(|blocks| blocks.set_aside(memory, pfn));
        self.platform().on_set_aside(pfn, error);
        (before, after)
    }

    /// Returns the error for a guest without a frame for the reserve's records.
    pub(super) fn no_record_memory(&self) -> AllocError {
        let in_transactions = self.counters.in_transactions.load(Relaxed);
        AllocError::NoGuestMemory { frames: 1, in_transactions }
    }
}
