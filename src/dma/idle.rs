//! Serves requests from idle memory that lies side by side in several blocks of the reserve.

use super::class::class_of_mask;
use super::counters::Source;
use super::plan::Plan;
use super::reserve::IdleSlice;
use super::{Allocator, CoherentBuffer};
use crate::addr::Pfn;
use crate::frames::Candidate;
use crate::platform::Platform;

impl<P: Platform> Allocator<P> {
    /// Serves a request from blocks side by side, if one of a few starts serves.
    pub(super) fn carve_pieces(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        if plan.limits().max_segments() == 1 {
            return None;
        }
        let memory = self.platform().memory();
        let first = self.reserve.with(|blocks| blocks.find_pieces(memory, plan))?;
        self.take_idle(first, plan).then(|| self.buffer_of_idle(first, plan))
    }

    /// Serves a request from idle frames side by side, however they are cut into blocks. Searches all idle
    /// memory, the highest class first.
    ///
    /// The lock of the reserve is held for a bounded number of steps at a time. All steps together are in
    /// proportion to the memory that the reserve has and had handed out.
    pub(super) fn carve_anywhere(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        let memory = self.platform().memory();
        if !self.reserve.with(|blocks| blocks.has_idle(memory, plan)) {
            return None;
        }
        let mut best = None;
        let highest = class_of_mask(plan.limits().mask()).min(self.top_class());
        let first = self.search_idle(plan, highest, &mut best);
        let first = first.or_else(|| self.search_idle(plan, best?, &mut None))?;
        Some(self.buffer_of_idle(first, plan))
    }

    /// Takes the first idle frames of `lowest_class` or above that serve. Of those below, `best` receives
    /// the highest class.
    fn search_idle(
        &self,
        plan: &Plan,
        lowest_class: usize,
        best: &mut Option<usize>,
    ) -> Option<Pfn> {
        let (memory, frames) = (self.platform().memory(), plan.frames());
        // The frames from `first` to `end` are idle, and nothing that fits begins before `first`.
        let (mut first, mut end) = (Pfn::new(0), Pfn::new(0));
        loop {
            match self.reserve.with(|blocks| blocks.next_idle(memory, end)) {
                IdleSlice::Blocks(found) => {
                    if found.start != end {
                        first = first.max(found.start);
                    }
                    end = found.end;
                }
                IdleSlice::Continue(next) => (first, end) = (first.max(next), next),
                IdleSlice::End => return None,
            }
            while end.number().saturating_sub(first.number()) >= frames {
                first = match self.candidate_of_class(plan, first, lowest_class, best) {
                    Candidate::Fits if self.take_idle(first, plan) => return Some(first),
                    Candidate::Fits => first.add(1),
                    Candidate::TryFrom(next) => next.max(first.add(1)),
                };
            }
        }
    }

    /// Takes idle frames out of the reserve and records them as pieces of a buffer. Returns false, and takes
    /// none, if another vCPU has taken a frame of them, or if they are not where the reserve says.
    fn take_idle(&self, first: Pfn, plan: &Plan) -> bool {
        let (memory, p2m) = (self.platform().memory(), self.platform().p2m());
        let (mut at, end) = (first, first.add(plan.frames()));
        let (mut taken, mut moved) = (true, false);
        while at < end && taken && !moved {
            let frames = end.number() - at.number();
            let take = |gfn| self.reserve.with(|blocks| blocks.take_part(memory, at, gfn, frames));
            match p2m.gfn(at).and_then(take) {
                Some(piece) => {
                    at = at.add(piece.frames);
                    moved = !self.is_in_place(&piece);
                }
                None => taken = false,
            }
        }
        if taken && !moved {
            return true;
        }
        self.take_pieces(first, at.number() - first.number(), |piece| {
            self.reserve.insert(self.platform(), piece, true);
        });
        if moved {
            self.found_moved(plan);
        }
        false
    }

    /// Frees all idle memory that was adopted. Makes no hypercall.
    pub(super) fn free_adopted(&self) {
        let memory = self.platform().memory();
        let mut at = Pfn::new(0);
        loop {
            let found = match self.reserve.with(|blocks| blocks.next_idle(memory, at)) {
                IdleSlice::Blocks(found) => found,
                IdleSlice::Continue(next) => {
                    at = next;
                    continue;
                }
                IdleSlice::End => break,
            };
            at = found.start;
            while at < found.end {
                match self.reserve.with(|blocks| blocks.take_adopted(memory, at)) {
                    Ok(block) => {
                        at = at.add(block.order.frames());
                        self.free(block);
                    }
                    Err(frames) => at = at.add(frames),
                }
            }
        }
        self.reserve.remove_pages(self.platform());
    }

    /// Makes a buffer of recorded pieces. If they are one piece, the buffer needs no records.
    fn buffer_of_idle(&self, first: Pfn, plan: &Plan) -> CoherentBuffer<'_, P> {
        let memory = self.platform().memory();
        let piece = self.reserve.with(|blocks| blocks.piece(memory, first));
        let buffer = match piece.filter(|piece| piece.frames == plan.frames()) {
            Some(whole) => {
                self.take_pieces(first, plan.frames(), |_| ());
                self.buffer_of(whole, plan)
            }
            None => self.buffer_of_pieces(first, plan),
        };
        self.counted(buffer, Source::Reserve)
    }
}
