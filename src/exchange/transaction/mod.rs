//! The states that a run goes through in a PV guest. Each step takes the state and gives the next.
//!
//! ```text
//! Mapped::detach       drop leftover aliases, zap the linear PTEs, forget the frames; then, for
//!                      all of it, one flush of all vCPUs by Xen
//! Detached::exchange   XENMEM_exchange, part by part, each answer decoded totally
//! Exchanged::resume    the same again, from the first part that was refused
//! Exchanged::undo      what was exchanged for single frames again
//! Exchanged::attach    P2M and PTEs to whatever lies beneath the run now
//! ```
//!
//! All the time `beneath` says what lies beneath each frame: the old frames where Xen refused or
//! was not asked, the new ones where it exchanged. Where Xen failed to say which those are, `recover`
//! looks for them; where they are not found, that chunk is never mapped again (M6), and the rest of the
//! run comes back in pieces. So there is one way back for success, failure and what is in between, and
//! a state that is dropped takes it, too.
//!
//! How the linear mapping's entries are written is in [`entries`], what a refusal meant in [`refusal`].

mod entries;
mod refusal;

use hypercall::Xen;

use super::call::{Answer, Rest, exchange, out_list_len};
use super::left::without;
use super::recover::{Knowledge, Torn, recover};
use super::{ExchangeError, ExchangeFailure, Exchanger, Left, Part};
use crate::addr::Order;
use crate::frames::FrameRun;
use crate::paging::{Held, LinearMapping};

use entries::{attach, write};
use refusal::limited;

/// A run that the linear mapping maps, and nothing else but leftovers that a purge drops.
pub(super) struct Mapped<'t, X, L> {
    pub exchanger: Exchanger<'t, X, L>,
    pub run: FrameRun,
}

/// A run that nothing maps (M2).
pub(super) struct Detached<'t, X: Xen, L: LinearMapping> {
    exchanger: Exchanger<'t, X, L>,
    /// `None` once the next state has it.
    run: Option<FrameRun>,
    /// The machine frame beneath each frame.
    beneath: &'t mut [u64],
    /// What is known of those that were exchanged. Unless Xen told it, Xen is asked nothing more.
    knowledge: Knowledge,
}

/// A run that Xen was asked to exchange, and how far that came.
pub(super) struct Exchanged<'t, X: Xen, L: LinearMapping> {
    detached: Detached<'t, X, L>,
    /// Frames exchanged, counted through the parts in order.
    pub done: u64,
    /// Why not all of them.
    pub error: Option<ExchangeError>,
}

/// A run that is mapped again, by whatever lies beneath it now.
#[derive(Debug)]
pub(super) struct Attached {
    pub run: FrameRun,
    /// As in `Exchanged`.
    pub done: u64,
    /// As in `Exchanged`.
    pub error: Option<ExchangeError>,
}

impl<'t, X: Xen, L: LinearMapping> Mapped<'t, X, L> {
    /// Drops what the kernel left behind of other mappings, and takes the run out of the linear
    /// mapping. `beneath` has an entry per frame.
    pub fn detach(self, beneath: &'t mut [u64]) -> Result<Detached<'t, X, L>, ExchangeFailure> {
        let Self { exchanger, run } = self;
        let mut mfns = exchanger.p2m.mfns(run.first(), run.frames());
        for (pfn, slot) in run.iter().zip(beneath.iter_mut()) {
            match mfns.next().flatten() {
                Some(mfn) => *slot = mfn.number(),
                None => {
                    let error = ExchangeError::NotPopulated { pfn };
                    return Err(ExchangeFailure { error, left: Left::Whole(run) });
                }
            }
        }
        // Flush rule 5: before the flush at the end of `zap`, which covers these addresses, too.
        if let Err(Held { pfn, holder }) = exchanger.linear.purge(&run) {
            let mfn = exchanger.p2m.mfn(pfn);
            let error = ExchangeError::FrameBusy { pfn, mfn, holder };
            return Err(ExchangeFailure { error, left: Left::Whole(run) });
        }
        // SAFETY: the run is ours alone (M1) and still mapped. What it holds goes to Xen, which
        // scrubs it from 4.17 on; before that it would go to the next domain.
        unsafe { exchanger.linear.zero(run.first(), run.frames()) };

        // From here on whatever happens maps the run again, by Detached's Drop if need be.
        let detached = Detached { exchanger, run: Some(run), beneath, knowledge: Knowledge::Told };
        match detached.zap() {
            Ok(()) => Ok(detached),
            Err(error) => Err(detached.fail(error)),
        }
    }
}

impl<'t, X: Xen, L: LinearMapping> Detached<'t, X, L> {
    fn zap(&self) -> Result<(), ExchangeError> {
        let Some(run) = &self.run else { return Ok(()) };
        let Exchanger { xen, p2m, linear, .. } = self.exchanger;
        // SAFETY: the run is in the transaction's hands (M1): no Rust object lies in it.
        unsafe { write(&self.exchanger, run, None) }.map_err(ExchangeError::PageTable)?;
        p2m.set_run(run.first(), run.iter().map(|_| None));
        // Flush rule 2: the one flush, of every vCPU, and the last thing before Xen gets the run.
        linear.flushes().flush_all(xen).map_err(|errno| ExchangeError::Flush { errno })
    }

    /// Has Xen exchange the parts one after the other, up to the first that it refuses. `scratch`
    /// has room for the longest out list.
    pub fn exchange(self, parts: &[Part], scratch: &mut [u64]) -> Exchanged<'t, X, L> {
        Exchanged { detached: self, done: 0, error: None }.resume(parts, scratch)
    }

    /// Xen failed behind the commit point. Finds out what is beneath the run now, where that can be.
    fn tear(&mut self, part: &Part, answer: &Answer) {
        self.knowledge = Knowledge::lost(part);
        let Rest::Torn { errno: Some(errno), exchanged } = answer.rest else { return };
        // A count that can't be was not believed, and says nothing of any chunk.
        let done = answer.exchanged;
        let believed = exchanged.checked_mul(part.input().frames()) == Some(done);
        let Some(run) = self.run.as_ref().filter(|_| believed) else { return };
        let beneath = &mut self.beneath[part.first() as usize..][..part.frames() as usize];
        let first = run.first().add(part.first());
        let torn = Torn { first, part: *part, done, errno, beneath };
        self.knowledge = recover(&self.exchanger, torn);
    }

    /// Whether Xen may be asked for more.
    const fn goes_on(&self) -> bool {
        matches!(self.knowledge, Knowledge::Told)
    }

    /// Maps a stretch of the run again, `first` frames behind its beginning. Where Xen refuses, it is
    /// quarantined.
    fn map(&self, stretch: FrameRun, first: u64) -> Result<FrameRun, ExchangeError> {
        let beneath = &self.beneath[first as usize..][..stretch.frames() as usize];
        match attach(&self.exchanger, &stretch, beneath) {
            Ok(()) => Ok(stretch),
            Err(error) => {
                self.exchanger.accounts.quarantine(stretch.frames());
                Err(ExchangeError::PageTable(error))
            }
        }
    }

    /// Maps the run again as a whole, by the word of Xen.
    fn reattach(&mut self) -> Result<FrameRun, ExchangeError> {
        let Some(run) = self.run.take() else { unreachable!("transitions take the run once") };
        self.map(run, 0)
    }

    /// Maps again what is known of the run (M6), and quarantines the rest.
    fn salvage(&mut self) -> Result<Left, ExchangeError> {
        let Knowledge::Lost { first, frames } = self.knowledge else {
            return self.reattach().map(Left::Whole);
        };
        let Some(run) = self.run.take() else { unreachable!("transitions take the run once") };
        self.exchanger.accounts.quarantine(frames);
        let (before, behind) = without(run, first, frames);
        // A refusal has a cause that is told already: that the run is torn.
        let before = before.and_then(|piece| self.map(piece, 0).ok());
        let behind = behind.and_then(|piece| self.map(piece, first + frames).ok());
        Ok(Left::Pieces { before, behind })
    }

    /// Maps the run again and says why it came to that (M6).
    fn fail(mut self, error: ExchangeError) -> ExchangeFailure {
        match self.salvage() {
            Ok(left) => {
                if !self.goes_on() {
                    for run in left.iter() {
                        // SAFETY: mapped again and in our hands alone (M1). The caller does not know
                        // which of it came from Xen, and Xen promises nothing of that (C56).
                        unsafe { self.exchanger.linear.zero(run.first(), run.frames()) };
                    }
                }
                ExchangeFailure { error, left }
            }
            // What Xen said behind the commit point tells more than that it is torn.
            Err(_) if !self.goes_on() => ExchangeFailure { error, left: Left::NOTHING },
            Err(page_table) => ExchangeFailure { error: page_table, left: Left::NOTHING },
        }
    }
}

impl<'t, X: Xen, L: LinearMapping> Exchanged<'t, X, L> {
    /// Asks Xen for what is not done yet.
    pub fn resume(mut self, parts: &[Part], scratch: &mut [u64]) -> Self {
        if !self.detached.goes_on() {
            return self;
        }
        self.error = None;
        let mut skip = self.done;
        for part in parts {
            if skip >= part.frames() {
                skip -= part.frames();
                continue;
            }
            let part = part.after(core::mem::take(&mut skip));
            self.step(&part, scratch);
            if self.error.is_some() {
                break;
            }
        }
        self
    }

    fn step(&mut self, part: &Part, scratch: &mut [u64]) {
        let detached = &mut self.detached;
        let Some(run) = &detached.run else { return };
        let beneath = &mut detached.beneath[part.first() as usize..][..part.frames() as usize];
        let out_list = &mut scratch[..out_list_len(part) as usize];
        let first = run.first().add(part.first());
        let xen = detached.exchanger.xen;
        // SAFETY: nothing maps the run since `zap` (M2), and its flush has made every vCPU forget
        // that it was mapped. The lists are Rust objects, of which none lies in a run (M1, M3).
        let answer = unsafe { exchange(xen, first, part, beneath, out_list) };
        self.done += answer.exchanged;
        self.error = match answer.rest {
            Rest::None => None,
            Rest::Refused(errno) => {
                let left = part.after(answer.exchanged);
                let error = detached.explain(errno, &left);
                // Too fragmented, or nothing below the limit at all? A single frame tells: it comes
                // from there, or it does not.
                let single = Part::gather(left.first(), 1, Order::ZERO, left.placement());
                if matches!(error, ExchangeError::NoMemory { .. }) && limited(left.placement()) {
                    let done = self.done;
                    self.step(&single, scratch);
                    self.done = done;
                    match self.error {
                        Some(ExchangeError::NoMemoryBelow { .. }) => return,
                        Some(_) if !self.detached.goes_on() => return,
                        None => {
                            // It goes back: who asks again and again would end up with all of
                            // what is scarce. Where Xen refuses, it is memory like any other.
                            self.step(&Part::replace(left.first(), 1), scratch);
                            self.done = done;
                            if !self.detached.goes_on() {
                                return;
                            }
                            Some(error)
                        }
                        Some(_) => Some(error),
                    }
                } else if matches!(error, ExchangeError::FrameRefused { .. }) {
                    Some(self.detached.name_busy_frame(&left).unwrap_or(error))
                } else {
                    Some(error)
                }
            }
            Rest::Torn { errno, exchanged } => {
                detached.tear(part, &answer);
                Some(ExchangeError::Torn { errno, exchanged })
            }
            Rest::BadExtent(mfn) => {
                detached.knowledge = Knowledge::lost(part);
                let (order, bits) = (part.output(), part.placement().bits);
                Some(ExchangeError::BadExtent { mfn, order, bits })
            }
        };
    }

    /// Has Xen swap what was exchanged for single frames. Where it refuses, the frames are merely
    /// contiguous, which does no harm: memory is memory.
    pub fn undo(mut self, parts: &[Part], scratch: &mut [u64]) -> Self {
        let (why, mut left) = (self.error, self.done);
        for part in parts {
            let done = left.min(part.frames());
            left -= done;
            // As many as there is room for at once; one list entry per frame.
            let step = scratch.len() as u64;
            let mut at = 0;
            while at < done && self.detached.goes_on() {
                let frames = (done - at).min(step);
                self.step(&Part::replace(part.first() + at, frames), scratch);
                at += frames;
            }
        }
        if self.detached.goes_on() {
            (self.done, self.error) = (0, why);
        }
        self
    }

    /// Maps the run again, by whatever lies beneath it now.
    pub fn attach(mut self) -> Result<Attached, ExchangeFailure> {
        match (self.detached.goes_on(), self.error) {
            (false, error) => {
                let torn = ExchangeError::Torn { errno: None, exchanged: 0 };
                Err(self.detached.fail(error.unwrap_or(torn)))
            }
            (true, error) => match self.detached.reattach() {
                Ok(run) => Ok(Attached { run, done: self.done, error }),
                Err(page_table) => Err(ExchangeFailure { error: page_table, left: Left::NOTHING }),
            },
        }
    }
}

impl<X: Xen, L: LinearMapping> Drop for Detached<'_, X, L> {
    fn drop(&mut self) {
        if self.run.is_some() {
            // The owner is gone with the state: the frames are mapped but belong to nobody.
            if let Ok(left) = self.salvage() {
                self.exchanger.accounts.quarantine(left.frames());
            }
        }
    }
}
