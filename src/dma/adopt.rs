//! Takes memory into the reserve that the kernel has free and that is contiguous already.

use core::sync::atomic::Ordering::Relaxed;

use super::class::{class_of_mask, class_start};
use super::counters::Source;
use super::plan::Plan;
use super::reserve::{Extent, Origin, class_of};
use super::segments::Piece;
use super::{Allocator, CoherentBuffer};
use crate::addr::{Order, PAGE_SIZE, Pfn};
use crate::frames::{Candidate, FrameRun, Search};
use crate::platform::Platform;

/// The share of the guest's free memory that is held aside on the way to memory that fits: an eighth.
pub(super) const SHARE_HELD_ASIDE: u64 = 8;

/// Runs of the kernel's free memory that are tried before Xen is asked. An exchange costs as much as some
/// ten of them.
const NEARBY: u64 = 32;

/// All runs.
pub(super) const EVERYWHERE: u64 = u64::MAX;

/// The answer that ends a search: no frame has this number.
const NOWHERE: Candidate = Candidate::TryFrom(Pfn::new(u64::MAX >> 1));

impl<P: Platform> Allocator<P> {
    /// Adopts a run that serves the request, of `lowest_class` or above. Searches a little of the kernel's
    /// free memory, because an exchange is cheaper than a long search.
    pub(super) fn adopt_nearby(
        &self,
        plan: &Plan,
        lowest_class: usize,
    ) -> Option<CoherentBuffer<'_, P>> {
        let within = plan.not_below(class_start(lowest_class) * PAGE_SIZE as u64)?;
        let class = class_of_mask(plan.limits().mask());
        if !self.backoff.is_due(class) {
            return None;
        }
        // More than is needed, so that the reserve serves the next requests.
        let growth = self.growth_order(plan);
        let larger = match plan.block() {
            Some(block) if block < growth => within.for_block(growth),
            _ => None,
        };
        let run = larger.and_then(|larger| {
            let run = self.search(&larger, NEARBY)?;
            self.growth.grew(class, growth);
            Some(run)
        });
        let run = run.or_else(|| self.search(&within, NEARBY));
        self.backoff.note(class, run.is_some());
        self.adopted(run?, plan)
    }

    /// Returns the order of what joins the reserve next for such requests: a share of the guest's free memory
    /// at most, and no more than may be idle.
    pub(super) fn growth_order(&self, plan: &Plan) -> Order {
        let share = self.platform().free_frames() / SHARE_HELD_ASIDE;
        let most = share.min(self.watermarks.high()).max(1);
        let growth = self.growth.next(class_of_mask(plan.limits().mask()));
        growth.min(Order::new(most.ilog2()).unwrap_or(Order::MAX))
    }

    /// Adopts a run that serves the request. Searches all that the kernel has free.
    pub(super) fn adopt(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        match self.search(plan, EVERYWHERE) {
            Some(run) => self.adopted(run, plan),
            None => self.adopt_untested(plan),
        }
    }

    /// Takes the first run of the highest class that fits. Tries at most `probes` runs of the kernel's free
    /// memory for each of two passes.
    pub(super) fn search(&self, plan: &Plan, probes: u64) -> Option<FrameRun> {
        let start = if probes == EVERYWHERE { 0 } else { self.search_from.load(Relaxed) };
        let mut best = None;
        let highest = class_of_mask(plan.limits().mask()).min(self.top_class());
        let found = self.search_class(plan, highest, Pfn::new(start), probes, &mut best);
        // The class is that of the first frame. Later pieces of the run may be lower.
        found.or_else(|| self.search_class(plan, best?, Pfn::new(start), probes, &mut None))
    }

    /// Takes the first run of `lowest_class` or above that fits. Of the runs below, `best` receives the
    /// highest class. The next search continues where this one ends.
    fn search_class(
        &self,
        plan: &Plan,
        lowest_class: usize,
        start: Pfn,
        probes: u64,
        best: &mut Option<usize>,
    ) -> Option<FrameRun> {
        let (mut remaining, mut stopped) = (probes, None);
        let mut fits = |pfn: Pfn| {
            if remaining == 0 {
                stopped.get_or_insert(pfn);
                return NOWHERE;
            }
            remaining -= 1;
            self.candidate_of_class(plan, pfn, lowest_class, best)
        };
        let found = self.take_first(plan.frames(), start, &mut fits);
        let next = found.as_ref().map(FrameRun::first).or(stopped);
        self.search_from.store(next.map_or(0, Pfn::number), Relaxed);
        found
    }

    /// Probes the run from `pfn` on, which fits if its first frame is of `lowest_class` or above. If it fits
    /// but for that, `best` receives its class if that is higher.
    pub(super) fn candidate_of_class(
        &self,
        plan: &Plan,
        pfn: Pfn,
        lowest_class: usize,
        best: &mut Option<usize>,
    ) -> Candidate {
        let p2m = self.platform().p2m();
        let candidate = plan.candidate(p2m, pfn);
        if candidate == Candidate::Fits {
            let class = p2m.gfn(pfn).map_or(0, |gfn| class_of(gfn, 1));
            if class < lowest_class {
                *best = (*best).max(Some(class));
                return Candidate::TryFrom(pfn.add(1));
            }
        }
        candidate
    }

    /// Takes the first run of free frames of the kernel, from `from` on, that `fits` accepts. Searches slice
    /// by slice.
    pub(super) fn take_first(
        &self,
        frames: u64,
        mut from: Pfn,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Option<FrameRun> {
        loop {
            match self.platform().take_where(frames, from, fits) {
                Search::Taken(run) => return Some(run),
                Search::Continue(next) => from = next,
                Search::End => return None,
            }
        }
    }

    /// Takes a run of `frames` free frames of a translated guest, the first of which is a multiple of
    /// `frames`, a power of two. The first frames serve the request.
    pub(super) fn search_aligned(&self, plan: &Plan, frames: u64) -> Option<FrameRun> {
        let p2m = self.platform().p2m();
        let find = |plan: &Plan| {
            let mut fits = |pfn: Pfn| match pfn.number().checked_next_multiple_of(frames) {
                Some(first) if first == pfn.number() => plan.candidate(p2m, pfn),
                first => Candidate::TryFrom(Pfn::new(first.unwrap_or(u64::MAX))),
            };
            self.take_first(frames, Pfn::new(0), &mut fits)
        };
        let highest = class_of_mask(plan.limits().mask()).min(self.top_class());
        let preferred = plan.not_below(class_start(highest) * PAGE_SIZE as u64);
        preferred.and_then(|preferred| find(&preferred)).or_else(|| find(plan))
    }

    /// Adopts whatever runs the kernel hands out, until one serves. If none does, all adopted memory that is
    /// idle becomes the kernel's. For kernels that cannot search.
    fn adopt_untested(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        if self.can_search() {
            return None;
        }
        let buffer = self.adopt_in_turn(plan);
        if buffer.is_none() {
            self.free_adopted();
        }
        self.watermarks.crossed.store(u64::MAX, Relaxed);
        buffer
    }

    /// Adopts the runs that the kernel hands out, until one serves.
    fn adopt_in_turn(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        let platform = self.platform();
        let frames = plan.frames();
        // In a translated guest an aligned run is likely to serve at once.
        let aligned = plan.align_frames().max(plan.guest_align_frames()).min(512);
        let mut remaining = (platform.free_frames() / SHARE_HELD_ASIDE).max(frames);
        while remaining >= frames {
            remaining -= frames;
            let run = platform.take(frames, aligned).or_else(|| platform.take(frames, 1))?;
            let (first, frames) = (run.first(), run.frames());
            if self.serves(first, frames, plan) {
                return self.adopted(run, plan);
            }
            if self.reserve.cover(platform, first, frames).is_err() {
                platform.give(run);
                return None;
            }
            self.extents(first, frames).for_each(|extent| {
                self.reserve.insert(platform, self.settled(extent), false);
            });
            if let Some(buffer) = self.carve(plan, 0).or_else(|| self.carve_pieces(plan)) {
                return Some(buffer);
            }
        }
        None
    }

    /// Takes the run that the kernel hands out, if it is as [`search_aligned`](Self::search_aligned) says. For
    /// kernels that cannot search.
    pub(super) fn take_untested(&self, plan: &Plan, frames: u64) -> Option<FrameRun> {
        if self.can_search() {
            return None;
        }
        let run = self.platform().take(frames, frames.max(plan.align_frames()).min(512))?;
        let fits = run.first().number().is_multiple_of(frames)
            && plan.candidate(self.platform().p2m(), run.first()) == Candidate::Fits;
        if fits {
            return Some(run);
        }
        self.platform().give(run);
        None
    }

    /// Returns true if the kernel finds free frames by a search.
    fn can_search(&self) -> bool {
        match self.platform().take_where(1, Pfn::new(0), &mut |_| Candidate::Fits) {
            Search::Taken(run) => {
                self.platform().give(run);
                true
            }
            Search::Continue(_) => true,
            Search::End => false,
        }
    }

    /// Makes a buffer of a run that serves the request. What it has beyond that joins the reserve.
    fn adopted(&self, run: FrameRun, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        let platform = self.platform();
        let (first, frames) = (run.first(), run.frames());
        if self.reserve.cover(platform, first, frames).is_err() {
            platform.give(run);
            return None;
        }
        let buffer = self.buffer_of_run(run, plan, false, |extent| self.settled(extent));
        Some(self.counted(buffer, Source::Adopted))
    }

    /// Makes a buffer of the first frames of a run that serves the request, whose frames are covered. The
    /// rest of the run joins the reserve. `owned` says where an extent is from.
    pub(super) fn buffer_of_run(
        &self,
        run: FrameRun,
        plan: &Plan,
        dirty: bool,
        owned: impl Fn(Extent) -> Extent,
    ) -> CoherentBuffer<'_, P> {
        let platform = self.platform();
        let used = plan.frames();
        let rest = run.first().add(used);
        for extent in self.extents(rest, run.frames() - used) {
            self.reserve.insert(platform, owned(extent), dirty);
        }
        let mut pieces = self.extents(run.first(), used);
        let (first, second) = (pieces.next(), pieces.next());
        match (first, second) {
            (Some(extent), None) => self.buffer_of(owned(extent), plan),
            _ => {
                let memory = platform.memory();
                for piece in self.extents(run.first(), used) {
                    self.reserve.with(|blocks| blocks.set_piece(memory, owned(piece)));
                }
                self.buffer_of_pieces(run.first(), plan)
            }
        }
    }

    /// Returns true if the device takes the memory that backs a run.
    pub(super) fn serves(&self, first: Pfn, frames: u64, plan: &Plan) -> bool {
        let extents = self.extents(first, frames);
        plan.is_aligned(first)
            && plan.accepts(extents.map(|Extent { gfn, frames, .. }| Piece::of_frames(gfn, frames)))
    }

    /// Iterates over the extents that back a run, as the P2M has them.
    pub(super) fn extents(&self, first: Pfn, frames: u64) -> impl Iterator<Item = Extent> {
        let p2m = self.platform().p2m();
        let (mut at, end) = (first, first.add(frames));
        core::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (pfn, gfn) = (at, p2m.gfn(at)?);
            let mut frames = 1;
            at = at.add(1);
            while at < end && p2m.gfn(at) == Some(gfn.add(frames)) {
                frames += 1;
                at = at.add(1);
            }
            Some(Extent { pfn, gfn, frames, origin: Origin::Adopted })
        })
    }

    /// Returns an adopted extent with its origin: Xen's, if the reserve lent such memory to the kernel.
    ///
    /// An extent of several classes remains the kernel's: only a part of it may have been lent.
    pub(super) fn settled(&self, extent: Extent) -> Extent {
        let class = class_of(extent.gfn, extent.frames);
        if class_of(extent.gfn, 1) != class {
            return extent;
        }
        match self.lent.settle(class, extent.frames) {
            0 => extent,
            lent if lent == extent.frames => Extent { origin: Origin::Exchanged, ..extent },
            part => {
                self.lent.lend(class, part);
                extent
            }
        }
    }
}
