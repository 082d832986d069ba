//! Takes memory into the reserve that Xen exchanges for ordinary frames.

use core::sync::atomic::Ordering::Relaxed;

use super::adopt::SHARE_HELD_ASIDE;
use super::class::{ScarceFrames, class_of_mask};
use super::plan::{ExtentPlan, Plan};
use super::reserve::{Extent, Origin};
use super::{AllocError, Allocator, CoherentBuffer};
use crate::addr::{AddressBits, Gfn, Order, Pfn};
use crate::exchange::{
    Capability, ExchangeError, ExchangeFailure, Exchanger, Lists, OnRefusal, Part, Placement,
    Progress, Refiller, Remaining,
};
use crate::frames::FrameRun;
use crate::paging::GuestMemory;
use crate::platform::Platform;
use crate::reservation::Reservation;

/// Extents that Xen is asked for.
#[derive(Clone, Copy)]
struct Wanted {
    extents: u64,
    order: Order,
    placement: Placement,
}

impl Wanted {
    const fn frames(&self) -> u64 {
        self.extents << self.order.get()
    }
}

impl<P: Platform> Allocator<P> {
    /// Serves a request by an exchange. Asks for one extent, for more than is needed first, and then for
    /// shorter ones down to what the device takes.
    pub(super) fn grow(&self, plan: &Plan) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let (exchanger, limit) = match (self.exchanger(), self.capability()) {
            (Some(exchanger), Capability::Exchange { limit }) => (exchanger, limit),
            (_, Capability::None { why }) if !self.platform().p2m().is_translated() => {
                return Err(AllocError::NoExchange(why));
            }
            _ => return Err(AllocError::no_frames(plan.frames(), plan.limits())),
        };
        let limits = plan.limits();
        let mut refusal = None;
        let mut may_hold = self.platform().free_frames() / SHARE_HELD_ASIDE;
        for placement in [Some(limits.placement()), limits.wider_placement()].into_iter().flatten()
        {
            for (extents, order) in self.sizes(plan, limit) {
                let wanted = Wanted { extents, order, placement };
                match self.grow_by(&exchanger, plan, &wanted, &mut may_hold) {
                    Ok(Some(buffer)) => return Ok(buffer),
                    Ok(None) => break,
                    Err(error) if error.may_pass_with_smaller_extents() => {
                        self.growth.refused(class_of_mask(limits.mask()), order);
                        refusal = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let (lowest, mask) = (limits.lowest(), limits.mask());
        Err(match (refusal, plan.block()) {
            (Some(refusal), _) => refusal,
            (None, Some(order)) if order > limit => AllocError::OrderNotPermitted { order, limit },
            (None, _) => AllocError::OutOfReach { lowest, mask },
        })
    }

    /// Yields what to ask Xen for, in order: numbers of extents, and their order.
    fn sizes(&self, plan: &Plan, limit: Order) -> impl Iterator<Item = (u64, Order)> {
        let growth = self.growth_order(plan).min(limit);
        let block = plan.block().filter(|block| *block <= limit);
        let more = block.filter(|block| *block < growth);
        // What an extent has beyond its part of the buffer would lie within the buffer.
        let whole = |part: &ExtentPlan| part.frames == part.order.frames();
        let pieces = plan.extents(limit).filter(whole).map(|part| (part.count, part.order));
        more.map(|_| (1, growth)).into_iter().chain(block.map(|block| (1, block))).chain(pieces)
    }

    /// Grows by some extents. Returns `None` if Xen's memory is out of the device's reach; then the
    /// reserve has it.
    fn grow_by(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        plan: &Plan,
        wanted: &Wanted,
        may_hold: &mut u64,
    ) -> Result<Option<CoherentBuffer<'_, P>>, AllocError> {
        let class = class_of_mask(plan.limits().mask());
        loop {
            let run = self.exchange(exchanger, plan, wanted, may_hold)?;
            let exchanged = |extent| Extent { origin: Origin::Exchanged, ..extent };
            if self.serves(run.first(), plan.frames(), plan) {
                self.growth.grew(class, wanted.order);
                self.counters.exchanged.fetch_add(1, Relaxed);
                return Ok(Some(self.buffer_of_run(run, plan, true, exchanged)));
            }
            for extent in self.extents(run.first(), run.frames()) {
                self.reserve.insert(self.platform(), exchanged(extent), true);
            }
            if plan.limits().wider_placement().is_some_and(|wider| wider != wanted.placement) {
                // Below the narrower limit only what is too low can be out of reach. Xen hands out the
                // highest memory first, so it will not have better there.
                return Ok(None);
            }
            match may_hold.checked_sub(wanted.frames()) {
                Some(rest) => *may_hold = rest,
                None => {
                    self.trim(u64::MAX);
                    return Ok(None);
                }
            }
        }
    }

    /// Exchanges ordinary frames for the extents. Frames that Xen refuses to take are set aside, and the
    /// exchange is tried with others. The reserve covers the run.
    fn exchange(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        plan: &Plan,
        wanted: &Wanted,
        may_hold: &mut u64,
    ) -> Result<FrameRun, AllocError> {
        let platform = self.platform();
        let Wanted { extents, order, placement } = *wanted;
        let frames = wanted.frames();
        let parts = [Part::gather(0, extents, order, placement)];
        loop {
            let run = self.take_covered(frames)?;
            // After the run: in a tight guest the lists would take the middle of the last one.
            let words = frames + extents;
            let Some(mut lists) = platform.lists(words) else {
                self.give_covered(run);
                return Err(AllocError::NoListMemory { words });
            };
            let (backing, extents) = lists.as_mut().split_at_mut(frames as usize);
            let lists = Lists { backing, extents };
            let covered = run.first();
            let given = self.scarce_frames(covered, frames);
            let (run, done, error) = match self.transact(exchanger, run, &parts, lists) {
                Ok(Progress { run, error: None, .. }) => {
                    self.lent.settle_all(&given);
                    return Ok(run);
                }
                Ok(Progress { run, done, error: Some(error) }) => (run, done, error),
                Err(ExchangeFailure { error, remaining }) => {
                    // Some frames may have been exchanged all the same.
                    let kept = self.scarce_frames(covered, frames);
                    self.lent.settle_all(&given.without(&kept));
                    self.lent.lend_all(&kept.without(&given));
                    match (remaining.whole(), error) {
                        (Ok(run), ExchangeError::FrameBusy { .. }) => (run, 0, error),
                        (Ok(run), _) => {
                            self.give_covered_zeroed(run);
                            return Err(AllocError::of(error, 0));
                        }
                        (Err(remaining), _) => {
                            let lost = remaining.lost();
                            self.give_remaining(covered, remaining);
                            return Err(AllocError::of(error, lost));
                        }
                    }
                }
            };
            let (done, rest) = run.split_at(done);
            let kept = self.scarce_frames(rest.first(), rest.frames());
            self.lent.settle_all(&given.without(&kept));
            for extent in self.extents(done.first(), done.frames()) {
                let extent = Extent { origin: Origin::Exchanged, ..extent };
                self.reserve.insert(platform, extent, true);
            }
            match error {
                ExchangeError::FrameBusy { pfn, .. } if *may_hold > 0 => {
                    // Xen may refuse all frames.
                    *may_hold -= 1;
                    let (before, after) = self.set_aside(rest, pfn);
                    self.give_covered_zeroed(before);
                    self.give_covered_zeroed(after);
                }
                error => {
                    self.give_covered_zeroed(rest);
                    return Err(AllocError::refused(error, plan.limits().node()));
                }
            }
        }
    }

    /// Counts the scarce frames of a run, without those in quarantine.
    pub(super) fn scarce_frames(&self, first: Pfn, frames: u64) -> ScarceFrames {
        let mut scarce = ScarceFrames::default();
        let mfns = self.platform().p2m().mfns(first, frames).flatten();
        mfns.for_each(|mfn| scarce.add(Gfn::new(mfn.number())));
        scarce
    }

    /// Makes an exchange, and counts what it does to low memory.
    pub(super) fn transact<'a>(
        &self,
        exchanger: &Exchanger<'a, P::Xen, P::Linear>,
        run: FrameRun,
        parts: &[Part],
        lists: Lists<'_>,
    ) -> Result<Progress, ExchangeFailure<'a>> {
        let (first, frames) = (run.first(), run.frames());
        let before = self.low_frames(first, frames);
        self.counters.in_transactions.fetch_add(frames, Relaxed);
        let result = exchanger.exchange(run, parts, OnRefusal::Return, lists);
        self.counters.in_transactions.fetch_sub(frames, Relaxed);
        if result.as_ref().err().is_none_or(|failure| failure.remaining.lost() == 0) {
            self.counters.exchanged_low(before, self.low_frames(first, frames));
        }
        result
    }

    /// Takes a run of free frames that the reserve covers.
    fn take_covered(&self, frames: u64) -> Result<FrameRun, AllocError> {
        let platform = self.platform();
        // A first-level table maps 512 frames. A run that has it to itself is mapped faster.
        let aligned = frames.next_power_of_two().min(512);
        let run = platform.take(frames, aligned).or_else(|| platform.take(frames, 1));
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

    /// Gives what remains of a covered run to the kernel, zeroed. `first` is the first frame of the run.
    pub(super) fn give_remaining(&self, first: Pfn, remaining: Remaining<'_>) {
        let platform = self.platform();
        self.reserve.uncover(platform, first, remaining.frames() + remaining.lost());
        for run in remaining {
            // SAFETY: the run is mapped and ours alone ([M1](crate::rules#M1)).
            unsafe { platform.memory().zero(run.first(), run.frames()) };
            platform.give(run);
        }
    }

    /// Sets a frame of a covered run aside. Returns the frames before and after it.
    pub(super) fn set_aside(&self, run: FrameRun, pfn: Pfn) -> (FrameRun, FrameRun) {
        let index = pfn.number() - run.first().number();
        let (before, rest) = run.split_at(index);
        let (_aside, after) = rest.split_at(1);
        let memory = self.platform().memory();
        self.reserve.with(|blocks| blocks.set_aside(memory, pfn));
        (before, after)
    }

    /// Returns the error for a guest without a frame for the reserve's records.
    pub(super) fn no_record_memory(&self) -> AllocError {
        let in_transactions = self.counters.in_transactions.load(Relaxed);
        AllocError::NoGuestMemory { frames: 1, in_transactions }
    }

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
        let Some(mut lists) = platform.lists(frames) else {
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
                self.counters.exchanged.fetch_add(1, Relaxed);
                Ok(self.buffer_of_run(run, plan, false, |extent| extent))
            }
            Err(ExchangeFailure { error, remaining }) => {
                let lost = remaining.lost();
                self.give_remaining(covered, remaining);
                Err(AllocError::of(error, lost))
            }
        }
    }
}
