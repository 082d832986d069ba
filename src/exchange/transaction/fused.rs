//! Clears the entries of a run, flushes, and exchanges the first part, in one multicall.
//!
//! Xen runs the entries in order and continues after one that failed. So each result decides alone:
//!
//! * If clearing failed, Xen refuses the frames that are still mapped. The exchange may have taken
//!   others, so it is decoded all the same.
//! * If the flush failed, vCPUs may still reach the frames that the exchange took. The run is flushed
//!   again before it is mapped. If Xen refuses that too, those frames are quarantined.
//!
//! Of the entries only the results are read back ([M3](crate::rules#M3)).

use hypercall::ops::MulticallEntry;
use hypercall::trace::{Phase, Span};
use hypercall::{DomId, Xen, XenErrno};

use super::ask::{question, reply};
use super::detached::{Detached, Prepared};
use super::ending::{Ending, Exchanged};
use super::entries::UNKNOWN;
use super::mapping::{collect_clearing, refused_clearing};
use super::tables::Tables;
use crate::exchange::error::ExchangeError;
use crate::exchange::failure::ExchangeFailure;
use crate::exchange::part::Part;
use crate::exchange::reply::{ExchangeReply, Rest};
use crate::paging::{LinearMapping, PteBatch};

/// What became of the steps.
enum FusedAnswer {
    /// Xen ran the multicall.
    Fused(FusedResults),
    /// Xen has no multicall. The run is detached, and Xen was not asked to exchange anything.
    Detached,
}

/// The results of a multicall.
struct FusedResults {
    /// The first write that Xen refused.
    cleared: Result<(), ExchangeError>,
    flushed: bool,
    exchange: ExchangeReply,
}

impl<'t, 'a, X: Xen, L: LinearMapping> Prepared<'t, 'a, X, L> {
    /// Takes the run out of the linear mapping, and exchanges the parts.
    ///
    /// # Errors
    /// Xen refused a page-table write before the multicall, or the first call of those that were made
    /// one by one. The run is mapped again as it was.
    pub fn detach_and_exchange(
        self,
        parts: &[Part],
    ) -> Result<Exchanged<'t, 'a, X, L>, ExchangeFailure<'a>> {
        let Some((part, rest)) = parts.split_first() else {
            return Ok(self.detach()?.exchange(parts));
        };
        let Self(mut detached) = self;
        let xen = detached.guest.xen;
        let answer = xen.within(Span::Phase(Phase::DetachExchange), || detached.ask_fused(part));
        match answer {
            Err(error) => Err(detached.restore(error)),
            Ok(FusedAnswer::Detached) => {
                Ok(xen.within(Span::Phase(Phase::Exchange), || detached.exchange(parts)))
            }
            Ok(FusedAnswer::Fused(results)) if results.cleared.is_ok() && results.flushed => {
                let ending = detached.finish_parts(part, rest, &results.exchange);
                Ok(Exchanged { detached, ending })
            }
            Ok(FusedAnswer::Fused(results)) => Ok(detached.finish_failed(parts, part, &results)),
        }
    }
}

impl<'t, 'a, X: Xen, L: LinearMapping> Detached<'t, 'a, X, L> {
    /// Makes the multicall for the first part.
    ///
    /// Never inlined, so that its batch leaves the stack.
    ///
    /// # Errors
    /// As for [`detach_and_exchange`](Prepared::detach_and_exchange).
    #[inline(never)]
    fn ask_fused(&mut self, part: &Part) -> Result<FusedAnswer, ExchangeError> {
        let guest = self.guest;
        let mut batch = PteBatch::new(guest.xen);
        self.tables = Tables::Unsure;
        collect_clearing(&guest, &mut batch, &self.run)
            .map_err(|errno| refused_clearing(&guest, &self.run, batch.done(), errno))?;
        self.forget_backing();

        let clock = guest.linear.flushes();
        let Some(flush) = clock.operation() else {
            // The clock of a translated guest: Xen refuses its flush here.
            return self.detach_singly(&mut batch);
        };
        let begun = clock.begin();
        let (flush, mut cleared) = ([flush], 0);
        let (first, backing, out_list) = self.lists(part);
        let mut argument = question(first, part, backing, out_list);
        let mut entries = [
            MulticallEntry::mmu_update_counted(batch.pending(), &mut cleared, DomId::SELF),
            MulticallEntry::mmuext_op(&flush, DomId::SELF),
            MulticallEntry::exchange(&mut argument),
        ];
        // SAFETY: `run` proves that nothing uses these frames and that no Rust object lies in them
        // ([M1](crate::rules#M1)). What the writes remove, the flush makes every vCPU forget before the
        // exchange ([F2](crate::rules#F2)); a frame that is still mapped, Xen refuses to exchange. The
        // lists, the counter and the argument are Rust objects or lent as such, so they lie outside the
        // run. They live until the end of this function, and nothing else touches them during the call
        // ([M3](crate::rules#M3)).
        let whole = unsafe { guest.xen.multicall(&mut entries) };
        let ran = entries.map(|entry| entry.result());
        // An exchange that Xen has not run moved nothing, whatever stopped the multicall.
        let exchange = reply(&argument, part, backing, ran[2]);
        let results = ran.map(|result| result.map_err(|errno| whole.err().unwrap_or(errno)));
        if whole == Err(XenErrno::ENOSYS) {
            return self.detach_singly(&mut batch);
        }
        let flushed = results[1] == Ok(0);
        if flushed {
            clock.complete(begun);
        }
        let done = batch.done() + u64::from(cleared).min(batch.pending().len() as u64 - 1);
        let cleared = match results[0] {
            Ok(_) => {
                self.tables = Tables::Unhooked;
                Ok(())
            }
            Err(errno) => Err(refused_clearing(&guest, &self.run, done, errno)),
        };
        Ok(FusedAnswer::Fused(FusedResults { cleared, flushed, exchange }))
    }

    /// Clears the entries in the batch and flushes, by a hypercall each.
    #[cold]
    fn detach_singly(&mut self, batch: &mut PteBatch<'_, X>) -> Result<FusedAnswer, ExchangeError> {
        // SAFETY: the batch clears entries of the run, which nothing uses ([M1](crate::rules#M1)).
        let cleared = unsafe { batch.issue() };
        cleared.map_err(|errno| refused_clearing(&self.guest, &self.run, batch.done(), errno))?;
        self.tables = Tables::Unhooked;
        self.flush()?;
        Ok(FusedAnswer::Detached)
    }

    /// Records the reply to the first part, and exchanges the others.
    fn finish_parts(&mut self, part: &Part, rest: &[Part], exchange: &ExchangeReply) -> Ending {
        let progress = match self.record(part, exchange) {
            Ok(progress) => progress,
            Err(torn) => return torn.into(),
        };
        if progress.refusal.is_none() && rest.is_empty() {
            return Ending::Complete { done: progress.done };
        }
        let xen = self.guest.xen;
        let ending = xen.within(Span::Phase(Phase::Exchange), || match progress.refusal {
            Some(errno) => self.refused(part, progress.done, errno, 0),
            None => self.exchange_parts(rest, progress.done),
        });
        ending.unwrap_or_else(Ending::from)
    }

    /// Ends a transaction in which Xen refused to clear an entry, or to flush.
    #[cold]
    fn finish_failed(
        mut self,
        parts: &[Part],
        part: &Part,
        results: &FusedResults,
    ) -> Exchanged<'t, 'a, X, L> {
        let FusedResults { cleared, flushed, exchange } = results;
        let moved = self.may_have_moved(part, exchange);
        if let Err(error) = *cleared
            && moved == 0
        {
            return Exchanged { detached: self, ending: Ending::Failed(error) };
        }
        if !flushed && let Err(refused) = self.flush() {
            // A vCPU may still reach the old frames at these addresses.
            self.backing[part.first() as usize..][..moved as usize].fill(UNKNOWN);
            let error = cleared.err().unwrap_or(refused);
            return Exchanged { detached: self, ending: Ending::Failed(error) };
        }
        match *cleared {
            Ok(()) => {
                let ending = self.finish_parts(part, &parts[1..], exchange);
                Exchanged { detached: self, ending }
            }
            Err(error) => match self.record(part, exchange) {
                Ok(progress) => {
                    let ending = Ending::Refused { done: progress.done, error };
                    Exchanged { detached: self, ending }.fail(parts, progress.done, error)
                }
                Err(torn) => Exchanged { detached: self, ending: torn.into() },
            },
        }
    }

    /// Returns how many frames of a part Xen may have exchanged, from the first on.
    fn may_have_moved(&self, part: &Part, exchange: &ExchangeReply) -> u64 {
        let outcome = self.outcome(part, exchange);
        match outcome.rest {
            Rest::Complete | Rest::Refused(_) => outcome.exchanged,
            Rest::Torn(_) | Rest::BadExtent(_) => part.frames(),
        }
    }
}
