//! Exchanges parts, and records the new machine frames.

use hypercall::{Xen, XenErrno};

use super::ask::ask;
use super::detached::Detached;
use super::ending::{Ending, Exchanged};
use super::entries::UNKNOWN;
use super::recover::{TornExchange, recover};
use super::tables::{Tables, hook_all};
use crate::addr::Pfn;
use crate::exchange::error::ExchangeError;
use crate::exchange::part::Part;
use crate::exchange::reply::{ExchangeReply, PartOutcome, Rest};
use crate::paging::LinearMapping;

/// The progress of one part.
pub(super) struct PartProgress {
    /// Frames that were exchanged, from the first on.
    pub done: u64,
    /// Why Xen refused the rest, if it did. The rest is as before.
    pub refusal: Option<XenErrno>,
}

impl<'t, 'a, X: Xen, L: LinearMapping> Detached<'t, 'a, X, L> {
    /// Exchanges the parts one after the other, up to the first that Xen refuses.
    pub fn exchange(mut self, parts: &[Part]) -> Exchanged<'t, 'a, X, L> {
        let ending = self.exchange_parts(parts, 0).unwrap_or_else(Ending::from);
        Exchanged { detached: self, ending }
    }

    /// Exchanges parts. `done` frames of others were exchanged before.
    pub(super) fn exchange_parts(
        &mut self,
        parts: &[Part],
        mut done: u64,
    ) -> Result<Ending, TornExchange> {
        for part in parts {
            let progress = self.exchange_part(part)?;
            if let Some(errno) = progress.refusal {
                return self.refused(part, progress.done, errno, done);
            }
            done += progress.done;
        }
        Ok(Ending::Complete { done })
    }

    /// Diagnoses why Xen refused a part after `part_done` of its frames. `done` frames of others were
    /// exchanged before.
    #[cold]
    pub(super) fn refused(
        &mut self,
        part: &Part,
        part_done: u64,
        errno: XenErrno,
        done: u64,
    ) -> Result<Ending, TornExchange> {
        let error = self.diagnose(errno, &part.after(part_done))?;
        Ok(Ending::Refused { done: done + part_done, error })
    }

    /// Exchanges a part.
    pub(super) fn exchange_part(&mut self, part: &Part) -> Result<PartProgress, TornExchange> {
        let guest = self.guest;
        let (first, backing, out_list) = self.lists(part);
        // SAFETY: nothing maps the run since `clear` ([M2](crate::rules#M2)), whose flush made every
        // vCPU forget that it was mapped ([F2](crate::rules#F2)). The lists are Rust objects, and
        // `run` proves that no Rust object lies in it ([M1](crate::rules#M1),
        // [M3](crate::rules#M3)).
        let reply = unsafe { ask(guest.xen, first, part, backing, out_list) };
        self.record(part, &reply)
    }

    /// Returns the first frame of a part, the machine frames that back it, and its out-list.
    pub(super) fn lists(&mut self, part: &Part) -> (Pfn, &mut [u64], &mut [u64]) {
        let first = self.run.first().add(part.first());
        let backing = &mut self.backing[part.first() as usize..][..part.frames() as usize];
        (first, backing, &mut self.out_list[..part.out_extents() as usize])
    }

    /// Returns what Xen's reply means for a part.
    pub(super) fn outcome(&self, part: &Part, reply: &ExchangeReply) -> PartOutcome {
        let out_list = &self.out_list[..part.out_extents() as usize];
        reply.outcome(self.run.first().add(part.first()), part, out_list)
    }

    /// Records what became of a part.
    pub(super) fn record(
        &mut self,
        part: &Part,
        reply: &ExchangeReply,
    ) -> Result<PartProgress, TornExchange> {
        let ExchangeReply { nr_exchanged, .. } = *reply;
        let outcome = self.outcome(part, reply);
        let done = outcome.exchanged;
        self.note_moved(part.first(), done);
        let backing = &mut self.backing[part.first() as usize..][..done as usize];
        for (extent, frames) in
            self.out_list.iter().zip(backing.chunks_exact_mut(part.output().frames() as usize))
        {
            (*extent..).zip(frames).for_each(|(mfn, frame)| *frame = mfn);
        }
        match outcome.rest {
            Rest::Complete => Ok(PartProgress { done, refusal: None }),
            Rest::Refused(errno) => Ok(PartProgress { done, refusal: Some(errno) }),
            Rest::Torn(errno) => {
                let error = ExchangeError::Torn { errno, exchanged: nr_exchanged };
                Err(self.torn(part, error))
            }
            Rest::BadExtent(mfn) => {
                let (order, bits) = (part.output(), part.placement().bits);
                Err(self.torn(part, ExchangeError::BadExtent { mfn, order, bits }))
            }
        }
    }

    /// Finds out which machine frames back a part of which Xen's reply does not tell.
    #[cold]
    fn torn(&mut self, part: &Part, error: ExchangeError) -> TornExchange {
        self.note_moved(part.first(), part.frames());
        let hooked = hook_all(&self.guest, &self.run, self.tables);
        let backing = &mut self.backing[part.first() as usize..][..part.frames() as usize];
        match hooked {
            Ok(()) => {
                self.tables = Tables::Hooked;
                recover(&self.guest, self.run.first().add(part.first()), backing);
            }
            // Nothing can be mapped to try it.
            Err(_) => {
                self.tables = Tables::Unsure;
                backing.fill(UNKNOWN);
            }
        }
        TornExchange { error }
    }

    /// Notes that Xen may have exchanged frames, counted from the first of the run.
    pub(super) fn note_moved(&mut self, first: u64, frames: u64) {
        if frames > 0 {
            let moved = first..first + frames;
            self.moved = match self.moved.is_empty() {
                true => moved,
                false => self.moved.start.min(moved.start)..self.moved.end.max(moved.end),
            };
        }
    }
}
