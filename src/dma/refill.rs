//! Makes buffers of a translated guest that one extent of machine memory backs.

use super::counters::Source;
use super::plan::Plan;
use super::{AllocError, Allocator, CoherentBuffer};
use crate::addr::{AddressBits, Order};
use crate::exchange::{Capability, ExchangeFailure, Refiller};
use crate::platform::Platform;
use crate::reservation::Reservation;

impl<P: Platform> Allocator<P> {
    /// Makes a buffer of a translated guest that one extent of machine memory backs.
    pub(super) fn refill(&self, plan: &Plan) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let (limit, platform) = match self.capability() {
            Capability::Refill { limit } => (limit, self.platform()),
            Capability::None { why } => return Err(AllocError::NoExchange(why)),
            Capability::Exchange { .. } => {
                return Err(AllocError::no_frames(plan.frames(), plan.limits()));
            }
        };
        // What devices see is the guest's memory: alignment and segments limit that, not its backing.
        let bits = plan.frames().next_power_of_two().ilog2();
        let order =
            Order::new(bits).map_err(|_| AllocError::no_frames(plan.frames(), plan.limits()))?;
        if order > limit {
            return Err(AllocError::OrderNotPermitted { order, limit });
        }
        // SAFETY: all that a platform returns belongs to one guest, and runs come from its frame
        // allocator alone ([M1](crate::rules#M1)): the promises of the trait `Platform`.
        let refiller =
            unsafe { Refiller::new(platform.xen(), platform.memory(), platform.accounts(), limit) };
        // A domain above its maximum would not get the frames back.
        if let Ok(reservation) = Reservation::read(platform.xen())
            && !reservation.allows_refill()
        {
            let (current, maximum) = (reservation.current(), reservation.maximum());
            return Err(AllocError::AboveMaximum { current, maximum });
        }
        let frames = order.frames();
        let run = self.search_aligned(plan, frames).or_else(|| self.take_untested(plan, frames));
        let run = run.ok_or(AllocError::no_frames(plan.frames(), plan.limits()))?;
        let Some(mut lists) = self.lists(frames) else {
            platform.give(run);
            return Err(AllocError::NoListMemory { words: frames });
        };
        if self.reserve.cover(platform, run.first(), frames).is_err() {
            platform.give(run);
            return Err(self.no_record_memory());
        }
        let covered = run.first();
        match refiller.refill(run, AddressBits::UNLIMITED, lists.as_mut()) {
            Ok(run) => {
                let buffer = self.buffer_of_run(run, plan, false, |extent| extent);
                Ok(self.counted(buffer, Source::Exchanged))
            }
            Err(ExchangeFailure { error, remaining }) => {
                let lost = remaining.lost();
                self.give_remaining(covered, remaining);
                Err(AllocError::of(error, lost))
            }
        }
    }
}
