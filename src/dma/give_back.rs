//! When memory goes back to Xen, and what happens if Xen does not take it.
//!
//! A buffer's memory is ordinary memory of the guest that happens to be contiguous. It can stay so,
//! and the next buffer finds it (see the `fit` module). It is Xen that may want it back: contiguous
//! and low memory is scarce, and other domains need it, too.

use core::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;

use super::Allocator;
use crate::addr::{Mfn, Pfn};
use crate::exchange::{
    ExchangeError, ExchangeFailure, Exchanger, Lists, OnRefusal, Part, Progress, Remaining,
};
use crate::frames::FrameRun;
use crate::paging::GuestMemory;
use crate::platform::Platform;
use crate::sync::{AtomicU64, Mutex};

/// Runs that can wait to be given back.
const WAITING: usize = 64;

/// Exchanges that a run is given back with at most, and frames that one of them takes at least: the
/// out list of each is that long.
const STEPS: usize = 16;
const STEP: u64 = 512;

/// A run that did not go back as a whole.
struct Unswapped<'a> {
    /// Frames of it that did.
    given: u64,
    /// The others, but for those that are quarantined.
    remaining: Remaining<'a>,
    error: ExchangeError,
}

/// When a dropped buffer's memory goes back to Xen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GiveBack {
    /// Never: it stays the guest's, ordinary memory that the next buffer may find. No hypercall.
    #[default]
    Keep,
    /// At once, in the drop. What does not go then waits as with [`Later`](Self::Later).
    AtOnce,
    /// When [`Allocator::give_back_waiting`] is called, or memory of the guest's runs out; a drop
    /// makes no hypercall. Where 64 buffers wait already, the next becomes ordinary memory, as with
    /// [`Keep`](Self::Keep).
    Later,
}

/// What came of giving back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GiveBackReport {
    /// Frames that Xen swapped for others.
    pub given: u64,
    /// Frames that it did not take. They are the guest's, as ordinary memory or still waiting.
    pub kept: u64,
    /// Frames that are nobody's any more: what became of them is not known ([M6](crate::rules#M6)).
    pub quarantined: u64,
    /// Why not, of the last refusal.
    pub error: Option<ExchangeError>,
}

/// Figures on an allocator, for whoever watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Buffers that were served by memory that fitted already.
    pub found: u64,
    /// Buffers that were served by an exchange.
    pub exchanged: u64,
    /// Frames that went back to Xen.
    pub given_back: u64,
    /// Times that frames did not go back: Xen did not take them, or there was no memory for lists.
    pub refusals: u64,
    /// Frames that wait to be given back.
    pub waiting: u64,
    /// Frames that were to go back and are ordinary memory instead: 64 runs waited already.
    pub crowded_out: u64,
    /// How many more frames below 4 GiB the guest has than it had before its exchanges, be they in
    /// buffers, waiting, or ordinary memory by now. 0 where it has fewer, and in a translated guest,
    /// which is not told.
    pub below_4g: u64,
    /// Below 16 MiB, likewise.
    pub below_16m: u64,
}

/// The figures as they are counted, and the runs that wait.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub found: AtomicU64,
    pub exchanged: AtomicU64,
    given_back: AtomicU64,
    refusals: AtomicU64,
    crowded_out: AtomicU64,
    /// The next two may be below 0, in two's complement.
    below_4g: AtomicU64,
    below_16m: AtomicU64,
    waiting: Mutex<ArrayVec<FrameRun, WAITING>>,
}

impl<P: Platform> Allocator<P> {
    /// The figures so far.
    pub fn stats(&self) -> Stats {
        let books = &self.books;
        Stats {
            found: books.found.load(Relaxed),
            exchanged: books.exchanged.load(Relaxed),
            given_back: books.given_back.load(Relaxed),
            refusals: books.refusals.load(Relaxed),
            waiting: books.waiting.lock().iter().map(FrameRun::frames).sum(),
            crowded_out: books.crowded_out.load(Relaxed),
            below_4g: u64::try_from(books.below_4g.load(Relaxed) as i64).unwrap_or(0),
            below_16m: u64::try_from(books.below_16m.load(Relaxed) as i64).unwrap_or(0),
        }
    }

    /// Tries once more to give back what waits, or what Xen did not take earlier.
    pub fn give_back_waiting(&self) -> GiveBackReport {
        let mut report = GiveBackReport::default();
        let mut refused: ArrayVec<FrameRun, WAITING> = ArrayVec::new();
        // One at a time, so that nothing is locked while Xen is asked.
        while let Some(run) = { self.books.waiting.lock().pop() } {
            let frames = run.frames();
            match self.swap(run) {
                Ok(run) => {
                    report.given += frames;
                    self.platform().give(run);
                }
                Err(Unswapped { given, remaining, error }) => {
                    report.given += given;
                    report.error = Some(error);
                    report.kept += remaining.frames();
                    report.quarantined += remaining.lost();
                    for run in remaining {
                        if let Err(crowded) = refused.try_push(run) {
                            self.give_crowded_out(crowded.element());
                        }
                    }
                }
            }
            if refused.is_full() {
                break;
            }
        }
        refused.into_iter().for_each(|run| self.wait_or_give(run));
        report
    }

    /// What a dropped buffer does with its run.
    pub(super) fn give_back(&self, run: FrameRun, exchanged: bool) {
        match self.policy() {
            // Of a translated guest Xen takes nothing back in exchange.
            _ if !exchanged || self.exchanger().is_none() => self.platform().give(run),
            GiveBack::Keep => self.platform().give(run),
            GiveBack::Later => self.wait_or_give(run),
            GiveBack::AtOnce => match self.swap(run) {
                Ok(run) => self.platform().give(run),
                Err(unswapped) => {
                    unswapped.remaining.into_iter().for_each(|run| self.wait_or_give(run));
                }
            },
        }
    }

    /// Lets the run wait to be given back; where too many wait already, it becomes ordinary memory.
    fn wait_or_give(&self, run: FrameRun) {
        let crowded = self.books.waiting.lock().try_push(run);
        if let Err(error) = crowded {
            self.give_crowded_out(error.element());
        }
    }

    fn give_crowded_out(&self, run: FrameRun) {
        self.books.crowded_out.fetch_add(run.frames(), Relaxed);
        self.platform().give(run);
    }

    /// Makes ordinary memory of what waits.
    pub(super) fn abandon_waiting(&self) {
        while let Some(run) = { self.books.waiting.lock().pop() } {
            self.platform().give(run);
        }
    }

    /// Swaps all frames of a run for others, a step at a time. Steps that went stay gone, and are
    /// ordinary memory.
    fn swap(&self, run: FrameRun) -> Result<FrameRun, Unswapped<'_>> {
        let Some(exchanger) = self.exchanger() else { return Ok(run) };
        let step = run.frames().div_ceil(STEPS as u64).max(STEP).min(run.frames());
        let Some(mut lists) = self.platform().lists(run.frames() + step) else {
            let needed = run.frames() + step;
            self.books.refusals.fetch_add(1, Relaxed);
            let error = ExchangeError::ListTooShort { needed, len: 0 };
            return Err(Unswapped { given: 0, remaining: run.into(), error });
        };
        let frames = run.frames();
        let parts: ArrayVec<Part, STEPS> = (0..frames)
            .step_by(step as usize)
            .map(|first| Part::replace(first, step.min(frames - first)))
            .collect();
        let (backing, extents) = lists.as_mut().split_at_mut(frames as usize);
        let lists = Lists { backing, extents };
        match self.exchange_on_record(&exchanger, run, &parts, OnRefusal::Return, lists) {
            Ok(Progress { run, done, error }) => {
                self.books.given_back.fetch_add(done, Relaxed);
                // SAFETY: the run is mapped and ours alone ([M1](crate::rules#M1)); what another
                // domain may have left in the frames that came ends here
                // ([C56](crate::conformance#C56)).
                unsafe { self.platform().memory().zero(run.first(), run.frames()) };
                let Some(error) = error else { return Ok(run) };
                self.books.refusals.fetch_add(1, Relaxed);
                let (given, rest) = run.split_at(done);
                if !given.is_empty() {
                    self.platform().give(given);
                }
                Err(Unswapped { given: done, remaining: rest.into(), error })
            }
            Err(failure) => {
                self.books.refusals.fetch_add(1, Relaxed);
                let ExchangeFailure { error, remaining } = failure;
                Err(Unswapped { given: 0, remaining, error })
            }
        }
    }

    /// An exchange, with what it does to low memory written down, whatever comes of it. Of a run
    /// of which some is quarantined nobody knows.
    pub(super) fn exchange_on_record<'a>(
        &self,
        exchanger: &Exchanger<'a, P::Xen, P::Linear>,
        run: FrameRun,
        parts: &[Part],
        on_refusal: OnRefusal,
        lists: Lists<'_>,
    ) -> Result<Progress, ExchangeFailure<'a>> {
        let (first, frames) = (run.first(), run.frames());
        let before = self.low_frames(first, frames);
        let result = exchanger.exchange(run, parts, on_refusal, lists);
        if result.as_ref().err().is_none_or(|failure| failure.remaining.lost() == 0) {
            let after = self.low_frames(first, frames);
            self.books.below_4g.fetch_add(after.0.wrapping_sub(before.0), Relaxed);
            self.books.below_16m.fetch_add(after.1.wrapping_sub(before.1), Relaxed);
        }
        result
    }

    /// Frames of a run below 4 GiB and below 16 MiB.
    fn low_frames(&self, first: Pfn, frames: u64) -> (u64, u64) {
        let (mut below_4g, mut below_16m) = (0, 0);
        self.platform().p2m().mfns(first, frames).for_each(|mfn| {
            let number = mfn.map_or(u64::MAX, Mfn::number);
            below_4g += u64::from(number < 1 << 20);
            below_16m += u64::from(number < 1 << 12);
        });
        (below_4g, below_16m)
    }
}
