//! Grows the reserve where the guest has too few free frames in a row.
//!
//! A buffer needs its own frames side by side. What the extents have beyond the buffer is numbered like
//! other free frames, wherever they lie, and these are given up in its place. So 589 pages need 589 free
//! frames in a row and 435 elsewhere, not 1024 in a row. The same serves devices that take a part of each
//! extent.

use super::class::{ScarceFrames, class_of_mask};
use super::counters::Source;
use super::grow::{HeldAside, REFUSED_IN_A_ROW, Wanted};
use super::plan::Plan;
use super::reserve::{Extent, Origin};
use super::{AllocError, Allocator, CoherentBuffer};
use crate::addr::{Gfn, Pfn};
use crate::exchange::{ExchangeError, Exchanger, Lists, Part, ScatteredExchange, ScatteredFrames};
use crate::frames::FrameRun;
use crate::platform::Platform;

impl<P: Platform> Allocator<P> {
    /// Exchanges a run as long as the buffer, and single frames, for extents. Returns `None` if the device
    /// does not reach what Xen handed out; then the reserve has it. Frames that Xen refuses are set aside,
    /// and the exchange is tried with others.
    pub(super) fn grow_scattered(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        plan: &Plan,
        wanted: &Wanted,
        held: &mut HeldAside,
    ) -> Result<Option<CoherentBuffer<'_, P>>, AllocError> {
        let mut refused = 0;
        loop {
            match self.exchange_scattered(exchanger, plan, wanted, held) {
                Err(AllocError::Exchange(ExchangeError::FrameBusy { .. }))
                    if refused < REFUSED_IN_A_ROW =>
                {
                    refused += 1;
                }
                result => return result,
            }
        }
    }

    /// Makes the exchange once. A frame that Xen refuses is set aside.
    fn exchange_scattered(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        plan: &Plan,
        wanted: &Wanted,
        held: &mut HeldAside,
    ) -> Result<Option<CoherentBuffer<'_, P>>, AllocError> {
        let platform = self.platform();
        let Wanted { extents, order, used, placement } = *wanted;
        let surplus = wanted.frames() - plan.frames();
        let run = self.take_covered_for(plan, plan.frames())?;
        let words = wanted.frames() + extents + surplus;
        let Some(mut lists) = self.lists(words) else {
            self.give_covered(run);
            return Err(AllocError::NoListMemory { words });
        };
        let (backing, rest) = lists.as_mut().split_at_mut(wanted.frames() as usize);
        let (extents_list, numbers) = rest.split_at_mut(extents as usize);
        let mut others = ScatteredFrames::new(&mut numbers[..surplus as usize]);
        for _ in 0..surplus {
            if let Err(error) = self.take_covered(1).map(|single| others.add(single)) {
                self.give_covered(run);
                others.into_runs().for_each(|single| self.give_covered(single));
                return Err(error);
            }
        }
        let first = run.first();
        let given = self.scarce_frames_of(first, plan.frames(), &others);
        let result = {
            let _in_transaction = self.counters.enter_transaction(wanted.frames());
            let part = Part::gather(0, extents, order, placement);
            let lists = Lists { backing, extents: extents_list };
            exchanger.exchange_scattered(run, &mut others, &part, used, lists)
        };
        let kept = self.scarce_frames_of(first, plan.frames(), &others);
        self.counters.exchanged_low(&given, &kept);
        let ScatteredExchange { run, others_lost, error } = result;
        let exchanged = |extent| Extent { origin: Origin::Exchanged, ..extent };
        let run = match (error, run.whole()) {
            (None, Ok(run)) => run,
            (error, remaining) => {
                let remaining = remaining.map_or_else(|remaining| remaining, FrameRun::into);
                self.lent.settle_all(&given.without(&kept));
                self.lent.lend_all(&kept.without(&given));
                let lost = remaining.lost() + others_lost;
                let Some(error) = error else { unreachable!("a frame is lost by an error alone") };
                match remaining.whole() {
                    Ok(run) => self.give_unless_refused(run, &error),
                    Err(remaining) => self.give_remaining_zeroed(first, remaining),
                }
                others.into_runs().for_each(|single| self.give_unless_lost(single, &error));
                return Err(match lost {
                    0 => AllocError::refused(error, plan.limits().node()),
                    lost => AllocError::of(error, lost),
                });
            }
        };
        self.lent.settle_all(&given);
        let idle_before = self.idle_by_class();
        for single in others.into_runs() {
            for extent in self.extents(single.first(), 1) {
                self.reserve.insert(platform, exchanged(extent), true);
            }
        }
        if self.serves(run.first(), run.frames(), plan) {
            self.growth.grew(class_of_mask(plan.limits().mask()), order);
            let buffer = self.buffer_of_run(run, plan, true, exchanged);
            return Ok(Some(self.counted(buffer, Source::Exchanged)));
        }
        for extent in self.extents(run.first(), run.frames()) {
            self.reserve.insert(platform, exchanged(extent), true);
        }
        held.hold(wanted.frames(), || idle_before);
        Ok(None)
    }

    /// Gives a covered run to the kernel, zeroed, and sets the frame aside that Xen refused.
    fn give_unless_refused(&self, run: FrameRun, error: &ExchangeError) {
        let frames = run.first()..run.first().add(run.frames());
        let (before, after) = match error {
            ExchangeError::FrameBusy { pfn, .. } if frames.contains(pfn) => {
                self.set_aside(run, *pfn, error)
            }
            _ => (run, FrameRun::EMPTY),
        };
        self.give_covered_zeroed(before);
        self.give_covered_zeroed(after);
    }

    /// Gives a covered frame to the kernel, zeroed, unless it is quarantined.
    fn give_unless_lost(&self, single: FrameRun, error: &ExchangeError) {
        match self.platform().p2m().gfn(single.first()) {
            Some(_) => self.give_unless_refused(single, error),
            None => self.reserve.uncover(self.platform(), single.first(), 1),
        }
    }

    fn scarce_frames_of(
        &self,
        first: Pfn,
        frames: u64,
        others: &ScatteredFrames<'_>,
    ) -> ScarceFrames {
        let p2m = self.platform().p2m();
        let mut scarce = self.scarce_frames(first, frames);
        others.iter().filter_map(|pfn| p2m.mfn(pfn)).for_each(|mfn| {
            scarce.add(Gfn::new(mfn.number()));
        });
        scarce
    }
}
