//! Takes memory into the reserve that Xen exchanges for ordinary frames.

use core::sync::atomic::Ordering::Relaxed;

use hypercall::Xen;
use hypercall::ops::MemoryOp;

use super::adopt::SHARE_HELD_ASIDE;
use super::class::{ScarceFrames, class_of_mask};
use super::counters::Source;
use super::plan::{ExtentPlan, Plan};
use super::reserve::{CLASSES, Extent, Origin, class_of};
use super::{AllocError, Allocator, CoherentBuffer};

use crate::addr::{Gfn, Order, PAGE_SIZE, Pfn};
use crate::exchange::{
    Capability, ExchangeError, ExchangeFailure, Exchanger, Lists, OnRefusal, Part, Placement,
    Progress,
};
use crate::frames::FrameRun;
use crate::platform::Platform;

/// Extents that Xen is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub extents: u64,
    pub order: Order,
    /// The frames of each extent that the buffer may use.
    pub used: u64,
    pub placement: Placement,
}

impl Wanted {
    /// Returns the number of frames of all extents.
    pub const fn frames(&self) -> u64 {
        self.extents << self.order.get()
    }
}

/// Frames that a request holds aside: memory of Xen's that does not serve, and frames that Xen refused.
pub(super) struct HeldAside {
    frames: u64,
    most: u64,
    /// The idle frames of each class before the first was held aside.
    idle_before: Option<[u64; CLASSES]>,
}

impl HeldAside {
    /// Counts memory of Xen's that joins the reserve. `idle` are the idle frames of each class.
    pub fn hold(&mut self, frames: u64, idle: impl FnOnce() -> [u64; CLASSES]) {
        self.frames += frames;
        self.idle_before.get_or_insert_with(idle);
    }
}

/// The frames that Xen may refuse one after the other, before it is taken to refuse all.
///
/// If something references a frame, the next one may be referenced, too, such as the pages of a ring. They
/// are set aside, so the next request goes on after them. Each costs a search for the refused frame: a
/// dozen hypercalls.
pub(super) const REFUSED_IN_A_ROW: u32 = 8;

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
        if !self.machine_has(plan) {
            return Err(AllocError::out_of_reach(plan.limits()));
        }
        let most = self.platform().free_frames() / SHARE_HELD_ASIDE;
        let mut held = HeldAside { frames: 0, most, idle_before: None };
        let result = self.grow_within(&exchanger, plan, limit, &mut held);
        match (held.idle_before, &result) {
            (Some(_), Ok(_)) => self.watermarks.crossed.store(u64::MAX, Relaxed),
            (Some(idle), Err(_)) => self.trim_to(&idle),
            (None, _) => {}
        }
        result
    }

    /// Returns false if the machine's memory ends below what the device reaches. Asks Xen if the device has
    /// a lowest address.
    fn machine_has(&self, plan: &Plan) -> bool {
        let lowest = plan.limits().lowest().div_ceil(PAGE_SIZE as u64);
        if lowest == 0 {
            return true;
        }
        // SAFETY: the call only returns a number.
        let highest = unsafe { self.platform().xen().memory_op(MemoryOp::MaximumRamPage) };
        // The header of Xen says that this is the last frame. Releases return the one after it.
        highest.map_or(true, |highest| lowest + (plan.frames() - 1) <= highest)
    }

    /// Grows by extents of each size, longest first. What Xen handed out in vain is held aside.
    fn grow_within(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        plan: &Plan,
        limit: Order,
        held: &mut HeldAside,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let limits = plan.limits();
        let mut refusal = None;
        let placements = [Some(limits.placement()), limits.wider_placement()];
        'placements: for placement in placements.into_iter().flatten() {
            for wanted in self.sizes(plan, limit, placement) {
                match self.grow_by_size(exchanger, plan, wanted, held) {
                    Ok(Some(buffer)) => return Ok(buffer),
                    Ok(None) if held.frames >= held.most => break 'placements,
                    Ok(None) => {}
                    Err(error) if error.may_pass_with_smaller_extents() => {
                        self.growth.refused(class_of_mask(limits.mask()), wanted.order);
                        refusal = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(match (refusal, plan.block()) {
            (Some(refusal), _) => refusal,
            (None, Some(order)) if order > limit => AllocError::OrderNotPermitted { order, limit },
            (None, _) => AllocError::out_of_reach(limits),
        })
    }

    /// Yields what to ask Xen for, in order.
    fn sizes(
        &self,
        plan: &Plan,
        limit: Order,
        placement: Placement,
    ) -> impl Iterator<Item = Wanted> {
        let growth = self.growth_order(plan).min(limit);
        let block = plan.block().filter(|block| *block <= limit);
        let more = block.filter(|block| *block < growth).map(|_| growth);
        let wanted = move |extents, order, used| Wanted { extents, order, used, placement };
        let one = move |order: Order| wanted(1, order, order.frames());
        let several = move |it: ExtentPlan| wanted(it.count, it.order, it.frames);
        let is_whole = |it: &ExtentPlan| it.frames == it.order.frames();
        let (whole, parts) = (plan.extents(limit), plan.extents(limit));
        let pieces = whole.filter(is_whole).chain(parts.filter(move |it| !is_whole(it)));
        more.into_iter().chain(block).map(one).chain(pieces.map(several))
    }

    /// Grows by extents of one size. What an extent has beyond its part of the buffer lies after the buffer,
    /// or elsewhere if the guest has too few free frames in a row.
    fn grow_by_size(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        plan: &Plan,
        wanted: Wanted,
        held: &mut HeldAside,
    ) -> Result<Option<CoherentBuffer<'_, P>>, AllocError> {
        if wanted.used < wanted.order.frames() {
            return self.grow_scattered(exchanger, plan, &wanted, held);
        }
        let is_ahead = plan.block().is_some_and(|block| block < wanted.order);
        match self.grow_by(exchanger, plan, wanted, held) {
            Err(AllocError::NoGuestMemory { .. })
                if !is_ahead && wanted.frames() > plan.frames() =>
            {
                self.grow_scattered(exchanger, plan, &wanted, held)
            }
            result => result,
        }
    }

    /// Grows by some extents. Returns `None` if Xen has none of this order that is high enough for the
    /// device, or if as much is held aside as may be.
    ///
    /// Xen hands out the memory of its highest zone first, and a zone is a class here. So if what it hands
    /// out is of a lower class than the device's lowest address, it has no better. Within a class the
    /// addresses have no order: what is out of reach is held aside, twice as many extents each time.
    fn grow_by(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        plan: &Plan,
        wanted: Wanted,
        held: &mut HeldAside,
    ) -> Result<Option<CoherentBuffer<'_, P>>, AllocError> {
        let limits = plan.limits();
        let lowest_class = class_of(Gfn::new(limits.lowest() / PAGE_SIZE as u64), 1);
        let carve = || {
            let buffer = self.carve(plan, 0).or_else(|| self.carve_pieces(plan))?;
            Some(buffer.with_source(Source::Exchanged))
        };
        let (mut asked, mut doubles) = (wanted, wanted.extents == 1);
        loop {
            let run = match self.exchange(exchanger, plan, &asked, held) {
                Err(error)
                    if asked.extents > wanted.extents && error.may_pass_with_smaller_extents() =>
                {
                    // Xen may have exchanged some of them.
                    if let Some(buffer) = carve() {
                        return Ok(Some(buffer));
                    }
                    (asked, doubles) = (wanted, false);
                    continue;
                }
                result => result?,
            };
            let exchanged = |extent| Extent { origin: Origin::Exchanged, ..extent };
            if self.serves(run.first(), plan.frames(), plan) {
                self.growth.grew(class_of_mask(limits.mask()), asked.order);
                let buffer = self.buffer_of_run(run, plan, true, exchanged);
                return Ok(Some(self.counted(buffer, Source::Exchanged)));
            }
            held.hold(asked.frames(), || self.idle_by_class());
            let mut is_lower = false;
            for extent in self.extents(run.first(), run.frames()) {
                is_lower |= class_of(extent.gfn, extent.frames) < lowest_class;
                self.reserve.insert(self.platform(), exchanged(extent), true);
            }
            // A part of it may serve.
            if let Some(buffer) = carve() {
                return Ok(Some(buffer));
            }
            if is_lower || held.frames >= held.most {
                return Ok(None);
            }
            if doubles {
                let room = (held.most - held.frames) >> asked.order.get();
                asked.extents = (2 * asked.extents).min(room).max(1);
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
        held: &mut HeldAside,
    ) -> Result<FrameRun, AllocError> {
        let platform = self.platform();
        let Wanted { extents, order, placement, .. } = *wanted;
        let frames = wanted.frames();
        let parts = [Part::gather(0, extents, order, placement)];
        let mut refused_in_a_row = 0;
        loop {
            let run = self.take_covered_for(plan, frames)?;
            // After the run: in a tight guest the lists would take the middle of the last one.
            let words = frames + extents;
            let Some(mut lists) = self.lists(words) else {
                self.give_covered(run);
                return Err(AllocError::NoListMemory { words });
            };
            let (backing, extents) = lists.as_mut().split_at_mut(frames as usize);
            let lists = Lists { backing, extents };
            let covered = run.first();
            let (given, result) = self.transact(exchanger, run, &parts, lists);
            let (run, done, error) = match result {
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
                            self.give_covered(run);
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
                ExchangeError::FrameBusy { pfn, .. }
                    if held.frames < held.most && refused_in_a_row < REFUSED_IN_A_ROW =>
                {
                    // Of the frames before the refused one, Xen would have taken each.
                    let is_first = pfn == rest.first();
                    refused_in_a_row = if is_first { refused_in_a_row + 1 } else { 0 };
                    held.frames += 1;
                    let (before, after) = self.set_aside(rest, pfn, &error);
                    self.give_covered(before);
                    self.give_covered(after);
                }
                error => {
                    self.give_covered(rest);
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

    /// Makes an exchange, and counts what it does to low memory. Returns the scarce frames that backed the
    /// run, too.
    pub(super) fn transact<'a>(
        &self,
        exchanger: &Exchanger<'a, P::Xen, P::Linear>,
        run: FrameRun,
        parts: &[Part],
        lists: Lists<'_>,
    ) -> (ScarceFrames, Result<Progress, ExchangeFailure<'a>>) {
        let (first, frames) = (run.first(), run.frames());
        let given = self.scarce_frames(first, frames);
        let in_transaction = self.counters.enter_transaction(frames);
        let result = exchanger.exchange(run, parts, OnRefusal::Return, lists);
        drop(in_transaction);
        self.counters.exchanged_low(&given, &self.scarce_frames(first, frames));
        (given, result)
    }
}
