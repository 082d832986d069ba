//! The state after Xen was asked: undoing, and mapping the run again.

use hypercall::Xen;
use hypercall::trace::{Phase, Span};

use super::detached::Detached;
use super::entries;
use super::record::PartProgress;
use super::recover::TornExchange;
use crate::addr::Order;
use crate::exchange::error::ExchangeError;
use crate::exchange::failure::{ExchangeFailure, Remaining};
use crate::exchange::part::{Part, Placement};
use crate::exchange::request::Progress;
use crate::paging::LinearMapping;

/// A run that Xen was asked to exchange. It is still unmapped.
pub(in crate::exchange) struct Exchanged<'t, 'a, X, L> {
    pub(super) detached: Detached<'t, 'a, X, L>,
    pub(super) ending: Ending,
}

/// How the exchange ended.
pub(super) enum Ending {
    /// All parts were exchanged. `done` is the number of frames.
    Complete { done: u64 },
    /// Xen refused what follows the first `done` frames, counted through the parts.
    Refused { done: u64, error: ExchangeError },
    /// Xen failed past the commit point.
    Torn(TornExchange),
}

impl<'a, X: Xen, L: LinearMapping> Exchanged<'_, 'a, X, L> {
    /// If Xen refused a part, returns the scarce memory of the parts before it: exchanges their new
    /// extents for extents anywhere.
    ///
    /// If Xen refuses that too, the run keeps them, which does no harm.
    pub fn undo(mut self, parts: &[Part]) -> Self {
        if let Ending::Refused { done, error } = self.ending {
            self.ending = match self.return_scarce(parts, done) {
                Ok(()) => Ending::Refused { done: 0, error },
                Err(torn) => Ending::Torn(torn),
            };
        }
        self
    }

    /// Exchanges the first `done` frames of the parts for memory anywhere, if they may not be anywhere.
    fn return_scarce(&mut self, parts: &[Part], mut done: u64) -> Result<(), TornExchange> {
        for part in parts {
            let frames = done.min(part.frames());
            done -= frames;
            if part.placement() != Placement::ANYWHERE {
                self.move_anywhere(part.first(), frames, part.output())?;
            }
        }
        Ok(())
    }

    /// Exchanges extents of `order` for extents anywhere. If Xen has none of that order, smaller ones
    /// are tried, as long as a hypercall returns at least 512 frames or all of them.
    fn move_anywhere(
        &mut self,
        mut first: u64,
        mut frames: u64,
        order: Order,
    ) -> Result<(), TornExchange> {
        let room = self.detached.out_list.len() as u64;
        for order in order.up_to().rev() {
            if room << order.get() < frames.min(512) {
                break;
            }
            while frames > 0 {
                let extents = (frames >> order.get()).min(room);
                let swap = Part::swap(first, extents, order, Placement::ANYWHERE);
                let PartProgress { done, refusal } = self.detached.exchange_part(&swap)?;
                first += done;
                frames -= done;
                if refusal.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Maps the machine frames that back the run now.
    ///
    /// # Errors
    /// Xen failed past the commit point, or refused a page-table entry. The frames that remain are
    /// mapped and zeroed; the others are quarantined ([M6](crate::rules#M6)).
    pub fn attach(self) -> Result<Progress, ExchangeFailure<'a>> {
        let Self { detached: Detached { guest, run, backing, guard, .. }, ending } = self;
        let mapping =
            guest.xen.within(Span::Phase(Phase::Attach), || entries::map(&guest, &run, backing));
        guard.disarm();
        let (error, done, refusal) = match ending {
            Ending::Complete { done } => (mapping.error, done, None),
            Ending::Refused { done, error } => (mapping.error, done, Some(error)),
            Ending::Torn(TornExchange { error }) => (Some(error), 0, None),
        };
        let Some(error) = error else { return Ok(Progress { run, done, error: refusal }) };
        guest.accounts.quarantine(mapping.lost);
        let remaining = Remaining::in_p2m(run, mapping.lost, guest.p2m);
        guest.xen.within(Span::Phase(Phase::Zero), || {
            for (first, frames) in remaining.stretches() {
                // SAFETY: these frames are mapped again, and `remaining` owns them
                // ([M1](crate::rules#M1)). Some may come from Xen, which promises nothing of their
                // content ([C56](crate::conformance#C56)).
                unsafe { guest.linear.zero(first, frames) };
            }
        });
        Err(ExchangeFailure { error, remaining })
    }
}
