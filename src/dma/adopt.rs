//! Takes memory into the reserve that the kernel has free and that is contiguous already.

use core::sync::atomic::Ordering::Relaxed;

use super::class::{class_of_mask, class_start};
use super::plan::Plan;
use super::reserve::{Extent, Origin, class_of};
use super::{Allocator, CoherentBuffer};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::frames::{Candidate, FrameRun, Search};
use crate::platform::Platform;

/// The share of the guest's free memory that is held aside on the way to memory that fits: an eighth.
pub(super) const SHARE_HELD_ASIDE: u64 = 8;

impl<P: Platform> Allocator<P> {
    /// Adopts a run that serves the request, of `lowest_class` or above. Searches one slice of the
    /// kernel's free memory, because an exchange may be cheaper than a long search.
    pub(super) fn adopt_nearby(
        &self,
        plan: &Plan,
        lowest_class: usize,
    ) -> Option<CoherentBuffer<'_, P>> {
        let within = plan.not_below(class_start(lowest_class) * PAGE_SIZE as u64)?;
        // More than is needed, so that the reserve serves the next requests.
        let class = class_of_mask(plan.limits().mask());
        let growth = self.growth.next(class);
        let larger = match plan.block() {
            Some(block) if block < growth => within.for_block(growth),
            _ => None,
        };
        let run = larger.and_then(|larger| {
            let run = self.search(&larger, 1)?;
            self.growth.grew(class, growth);
            Some(run)
        });
        let run = run.or_else(|| self.search(&within, 1))?;
        self.adopted(run, plan)
    }

    /// Adopts a run that serves the request. Searches all that the kernel has free.
    pub(super) fn adopt(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        match self.search(plan, u64::MAX) {
            Some(run) => self.adopted(run, plan),
            None => self.adopt_untested(plan),
        }
    }

    /// Takes the first run of the highest class that fits, from at most `slices` slices of the kernel's
    /// free memory.
    pub(super) fn search(&self, plan: &Plan, slices: u64) -> Option<FrameRun> {
        let start = if slices == u64::MAX { 0 } else { self.search_from.load(Relaxed) };
        let mut best = None;
        let highest = class_of_mask(plan.limits().mask()).min(self.top_class());
        let found = self.search_class(plan, highest, Pfn::new(start), slices, &mut best);
        found.or_else(|| {
            let plan = plan.not_below(class_start(best?) * PAGE_SIZE as u64)?;
            self.search_class(&plan, 0, Pfn::new(start), slices, &mut None)
        })
    }

    /// Takes the first run of `lowest_class` or above that fits. Of the runs below, `best` receives the
    /// highest class.
    fn search_class(
        &self,
        plan: &Plan,
        lowest_class: usize,
        start: Pfn,
        slices: u64,
        best: &mut Option<usize>,
    ) -> Option<FrameRun> {
        let p2m = self.platform().p2m();
        let mut from = start;
        for _ in 0..slices {
            let mut fits = |pfn: Pfn| match plan.candidate(p2m, pfn) {
                Candidate::Fits => {
                    let class = p2m.gfn(pfn).map_or(0, |gfn| class_of(gfn, 1));
                    if class >= lowest_class {
                        return Candidate::Fits;
                    }
                    *best = (*best).max(Some(class));
                    Candidate::TryFrom(pfn.add(1))
                }
                no => no,
            };
            match self.platform().take_where(plan.frames(), from, &mut fits) {
                Search::Taken(run) => return Some(run),
                Search::Continue(next) => from = next,
                Search::End => {
                    self.search_from.store(0, Relaxed);
                    return None;
                }
            }
        }
        self.search_from.store(from.number(), Relaxed);
        None
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
            let mut from = Pfn::new(0);
            loop {
                match self.platform().take_where(frames, from, &mut fits) {
                    Search::Taken(run) => return Some(run),
                    Search::Continue(next) => from = next,
                    Search::End => return None,
                }
            }
        };
        let highest = class_of_mask(plan.limits().mask()).min(self.top_class());
        let preferred = plan.not_below(class_start(highest) * PAGE_SIZE as u64);
        preferred.and_then(|preferred| find(&preferred)).or_else(|| find(plan))
    }

    /// Adopts whatever runs the kernel hands out, until one serves. For kernels that cannot search.
    fn adopt_untested(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        let platform = self.platform();
        if self.can_search() {
            return None;
        }
        let mut remaining = platform.free_frames() / SHARE_HELD_ASIDE;
        while remaining >= plan.frames() {
            remaining -= plan.frames();
            let run = platform.take(plan.frames(), 1)?;
            let (first, frames) = (run.first(), run.frames());
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
        self.counters.adopted.fetch_add(1, Relaxed);
        Some(self.buffer_of_run(run, plan, false, |extent| self.settled(extent)))
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
    pub(super) fn settled(&self, extent: Extent) -> Extent {
        let class = class_of(extent.gfn, extent.frames);
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
