//! The state after Xen was asked: undoing, and mapping the run again.

use hypercall::Xen;
use hypercall::trace::{Phase, Span};

use super::detached::Detached;
use super::entries;
use super::recover::TornExchange;
use crate::exchange::error::ExchangeError;
use crate::exchange::failure::{ExchangeFailure, Remaining};
use crate::exchange::part::Part;
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
    /// If Xen refused a part, exchanges all new extents for single frames again.
    ///
    /// If Xen refuses that too, the frames stay contiguous, which does no harm.
    pub fn undo(mut self, parts: &[Part]) -> Self {
        if let Ending::Refused { done, error } = self.ending {
            self.ending = match self.replace(parts, done) {
                Ok(()) => Ending::Refused { done: 0, error },
                Err(torn) => Ending::Torn(torn),
            };
        }
        self
    }

    /// Exchanges the first `done` frames of the parts for single frames.
    fn replace(&mut self, parts: &[Part], mut done: u64) -> Result<(), TornExchange> {
        // The out-list has one entry per frame, and limits a call.
        let step = self.detached.out_list.len().max(1);
        for part in parts {
            let end = part.first() + done.min(part.frames());
            for first in (part.first()..end).step_by(step) {
                let frames = (end - first).min(step as u64);
                let _kept_if_refused =
                    self.detached.exchange_part(&Part::replace(first, frames))?;
            }
            done -= end - part.first();
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
