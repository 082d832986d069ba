//! The state after Xen was asked: undoing, and mapping the run again.

use core::iter;
use core::ops::Range;

use hypercall::Xen;
use hypercall::trace::{Phase, Span};

use super::detached::Detached;
use super::ending::{Ending, Exchanged};
use super::mapping;
use super::record::PartProgress;
use super::recover::TornExchange;
use crate::addr::Order;
use crate::exchange::error::ExchangeError;
use crate::exchange::failure::{ExchangeFailure, Remaining};
use crate::exchange::guest::GuestHandle;
use crate::exchange::part::{Part, Placement};
use crate::exchange::request::Progress;
use crate::paging::LinearMapping;

impl<'a, X: Xen, L: LinearMapping> Exchanged<'_, 'a, X, L> {
    /// If Xen refused a part, returns the scarce memory of the parts before it: exchanges their new
    /// extents for extents anywhere.
    ///
    /// If Xen refuses that too, the run keeps them, which does no harm.
    pub fn undo(mut self, parts: &[Part]) -> Self {
        if let Ending::Refused { done, error } = self.ending {
            self.ending = match self.return_scarce(parts, done) {
                Ok(()) => Ending::Refused { done: 0, error },
                Err(torn) => torn.into(),
            };
        }
        self
    }

    /// Ends the exchange as failed, with `error`, after it has returned what is scarce.
    #[cold]
    pub(super) fn fail(mut self, parts: &[Part], done: u64, error: ExchangeError) -> Self {
        self.ending = match self.return_scarce(parts, done) {
            Ok(()) => Ending::Failed(error),
            Err(torn) => torn.into(),
        };
        self
    }

    /// Exchanges the first `done` frames of the parts for memory anywhere, if they may not be anywhere.
    fn return_scarce(&mut self, parts: &[Part], mut done: u64) -> Result<(), TornExchange> {
        for part in parts {
            let frames = done.min(part.frames());
            done -= frames;
            if frames > 0 && part.placement() != Placement::ANYWHERE {
                let xen = self.detached.guest.xen;
                xen.within(Span::Phase(Phase::Exchange), || {
                    self.move_anywhere(part.first(), frames, part.output())
                })?;
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

    /// Maps the machine frames that back the run now. Zeroes what came from Xen, except the frames that
    /// [`Progress::done`] counts.
    ///
    /// # Errors
    /// The transaction failed, or Xen refused a page-table entry. The frames that remain are mapped; the
    /// others are quarantined ([M6](crate::rules#M6)).
    pub fn attach(self, parts: &[Part]) -> Result<Progress, ExchangeFailure<'a>> {
        let Self { detached, ending } = self;
        let Detached { guest, run, backing, moved, tables, guard, .. } = detached;
        let mapping = guest
            .xen
            .within(Span::Phase(Phase::Attach), || mapping::map(&guest, &run, backing, tables));
        guard.disarm();
        guest.accounts.quarantine(mapping.lost);
        let (done, refusal) = match (ending, mapping.error) {
            (Ending::Failed(error), _) | (_, Some(error)) => {
                let remaining = Remaining::in_p2m(run, mapping.lost, guest.p2m);
                zero_moved(&guest, &remaining, &moved, &[], 0);
                return Err(ExchangeFailure { error, remaining });
            }
            (Ending::Complete { done }, None) => return Ok(Progress { run, done, error: None }),
            (Ending::Refused { done, error }, None) => (done, error),
        };
        let run = Remaining::from(run);
        zero_moved(&guest, &run, &moved, parts, done);
        match run.whole() {
            Ok(run) => Ok(Progress { run, done, error: Some(refusal) }),
            Err(remaining) => Err(ExchangeFailure { error: refusal, remaining }),
        }
    }
}

/// Zeroes the mapped frames of a stretch in which frames came from Xen, which promises nothing of their
/// content ([C56](crate::conformance#C56)). Leaves out the first `done` frames of the parts.
#[cold]
fn zero_moved<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    remaining: &Remaining<'_>,
    moved: &Range<u64>,
    parts: &[Part],
    mut done: u64,
) {
    if moved.is_empty() {
        return;
    }
    let mut at = moved.start;
    let kept = parts.iter().map(|part| {
        let frames = done.min(part.frames());
        done -= frames;
        part.first()..part.first() + frames
    });
    guest.xen.within(Span::Phase(Phase::Zero), || {
        for kept in kept.filter(|kept| !kept.is_empty()).chain(iter::once(moved.end..moved.end)) {
            zero_within(guest, remaining, at..kept.start);
            at = kept.end;
        }
    });
}

/// Zeroes the frames of a stretch, counted from the first of the run, that remain.
fn zero_within<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    remaining: &Remaining<'_>,
    stretch: Range<u64>,
) {
    for (first, frames) in remaining.stretches_within(stretch) {
        // SAFETY: these frames are mapped again, and `remaining` owns them ([M1](crate::rules#M1)).
        unsafe { guest.linear.zero(first, frames) };
    }
}
