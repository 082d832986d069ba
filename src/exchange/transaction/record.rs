//! Exchanges parts, and records the new machine frames.

use hypercall::{Xen, XenErrno};

use super::ask::ask;
use super::detached::Detached;
use super::exchanged::{Ending, Exchanged};
use super::recover::{TornExchange, recover};
use crate::exchange::error::ExchangeError;
use crate::exchange::part::Part;
use crate::exchange::reply::{PartOutcome, Rest};
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
        let ending = self.exchange_parts(parts).unwrap_or_else(Ending::Torn);
        Exchanged { detached: self, ending }
    }

    fn exchange_parts(&mut self, parts: &[Part]) -> Result<Ending, TornExchange> {
        let mut done = 0;
        for part in parts {
            let progress = self.exchange_part(part)?;
            done += progress.done;
            if let Some(errno) = progress.refusal {
                let error = self.diagnose(errno, &part.after(progress.done))?;
                return Ok(Ending::Refused { done, error });
            }
        }
        Ok(Ending::Complete { done })
    }

    /// Exchanges a part.
    pub(super) fn exchange_part(&mut self, part: &Part) -> Result<PartProgress, TornExchange> {
        let first = self.run.first().add(part.first());
        let backing = &mut self.backing[part.first() as usize..][..part.frames() as usize];
        let out_list = &mut self.out_list[..part.out_extents() as usize];
        // SAFETY: nothing maps the run since `clear` ([M2](crate::rules#M2)), whose flush made every
        // vCPU forget that it was mapped ([F2](crate::rules#F2)). The lists are Rust objects, and
        // `run` proves that no Rust object lies in it ([M1](crate::rules#M1),
        // [M3](crate::rules#M3)).
        let reply = unsafe { ask(self.guest.xen, first, part, backing, out_list) };
        let outcome = reply.outcome(first, part, out_list);
        self.record(part, &outcome, reply.nr_exchanged)
    }

    /// Records what became of a part.
    fn record(
        &mut self,
        part: &Part,
        outcome: &PartOutcome,
        nr_exchanged: u64,
    ) -> Result<PartProgress, TornExchange> {
        let done = outcome.exchanged;
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
        let backing = &mut self.backing[part.first() as usize..][..part.frames() as usize];
        recover(&self.guest, self.run.first().add(part.first()), backing);
        TornExchange { error }
    }
}
