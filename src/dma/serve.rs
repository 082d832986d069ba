//! The way of a request: from the reserve, from free memory of the kernel, or from Xen.

use hypercall::Xen;
use hypercall::trace::{Phase, Span};

use super::class::class_of_mask;
use super::constraints::{Backing, Sleep};
use super::counters::Source;
use super::plan::Plan;
use super::reserve::Extent;
use super::{AllocError, Allocator, CoherentBuffer, Constraints};
use crate::addr::Pfn;
use crate::exchange::Node;
use crate::frames::FrameRun;
use crate::paging::GuestMemory;
use crate::platform::Platform;

impl<P: Platform> Allocator<P> {
    /// Allocates `size` bytes, zeroed, 1 to 1 GiB.
    ///
    /// May make hypercalls, which take time in proportion to the size. With [`Sleep::MustNot`] it makes
    /// none, takes the lock of the reserve alone, and may be called by an interrupt handler if that lock
    /// masks interrupts. If no block of the reserve serves at once, such a call searches all idle memory,
    /// with the lock released after each slice.
    ///
    /// # Errors
    /// Nothing is lost, except where an exchange says quarantine.
    /// * [`AllocError::Constraints`], [`AllocError::LargerThanReach`], [`AllocError::TooManySegments`] and
    ///   others about the request itself: no memory can satisfy it.
    /// * [`AllocError::MustNotSleep`]: no block of the reserve serves, and the caller must not sleep.
    /// * [`AllocError::NoGuestMemory`], [`AllocError::NoListMemory`], [`AllocError::NoFramesInReach`]: the
    ///   kernel has too little free memory.
    /// * [`AllocError::Exchange`], [`AllocError::NoMemoryOnNode`], [`AllocError::OutOfReach`]: Xen refused,
    ///   or has no such memory.
    /// * [`AllocError::NoExchange`], [`AllocError::OrderNotPermitted`]: Xen does not permit it at all.
    pub fn alloc_coherent(
        &self,
        size: u64,
        constraints: &Constraints,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let plan = Plan::unchecked(size, constraints);
        plan.check()?;
        let operation = Span::Operation(constraints.operation("alloc_coherent", size));
        self.platform().xen().within(operation, || self.alloc(&plan))
    }

    pub(super) fn alloc(&self, plan: &Plan) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let limits = plan.limits();
        let translated = self.platform().p2m().is_translated();
        match limits.node() {
            Node::Exactly(node) if translated => return Err(AllocError::NodeUnknown { node }),
            // Xen does not report the node of a frame, so no memory that the guest has can serve.
            Node::Exactly(_) => return self.obtain_from_xen(plan, Self::grow),
            Node::Any | Node::Near(_) => {}
        }
        if translated && limits.backing() == Backing::OneExtent {
            return self.obtain_from_xen(plan, Self::refill);
        }
        if limits.sleep() == Sleep::MustNot {
            return self
                .carve(plan, self.preferred_class(plan))
                .or_else(|| self.carve(plan, 0))
                .or_else(|| self.carve_pieces(plan))
                .or_else(|| self.carve_anywhere(plan))
                .ok_or(AllocError::MustNotSleep);
        }
        let result = self.obtain(plan);
        // Trim only now, because memory of the last buffer may have served this request.
        self.trim_excess();
        result
    }

    /// Serves a request that only new memory of Xen's can serve. What is idle is freed if the kernel has
    /// too little to ask for that.
    fn obtain_from_xen<'a>(
        &'a self,
        plan: &Plan,
        ask: impl Fn(&'a Self, &Plan) -> Result<CoherentBuffer<'a, P>, AllocError>,
    ) -> Result<CoherentBuffer<'a, P>, AllocError> {
        if plan.limits().sleep() == Sleep::MustNot {
            return Err(AllocError::MustNotSleep);
        }
        let mut result = ask(self, plan);
        if let Err(error) = &result
            && (error.is_for_want_of_guest_memory()
                || matches!(error, AllocError::NoFramesInReach { .. }))
            && self.reclaim(u64::MAX) > 0
        {
            result = ask(self, plan);
        }
        self.trim_excess();
        result
    }

    /// Serves a request whose caller may sleep, by the cheapest means first.
    fn obtain(&self, plan: &Plan) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let preferred = self.preferred_class(plan);
        if let Some(buffer) = self.carve(plan, preferred) {
            return Ok(buffer);
        }
        // A request without limits takes low memory last.
        if preferred > 0
            && let Some(buffer) = self.adopt_nearby(plan, preferred).or_else(|| self.carve(plan, 0))
        {
            return Ok(buffer);
        }
        if let Some(buffer) = self.carve_pieces(plan).or_else(|| self.adopt_nearby(plan, 0)) {
            return Ok(buffer);
        }
        // Xen takes only powers of two as limits. What it hands out within another reach may not serve, and
        // the frames that are given up for it may be the only ones that would have served.
        if plan.limits().is_beyond_xen()
            && let Some(buffer) = self.serve_from_guest(plan)
        {
            return Ok(buffer);
        }
        let refusal = match self.grow(plan) {
            Err(error) if error.may_pass_with_other_memory() => error,
            result => return result,
        };
        if let Some(buffer) = self.serve_from_guest(plan) {
            return Ok(buffer);
        }
        if refusal.is_for_want_of_guest_memory() && self.reclaim(u64::MAX) > 0 {
            return self.adopt(plan).map_or_else(|| self.grow(plan), Ok);
        }
        Err(refusal)
    }

    /// Serves a request from all that the kernel has free, then from all that the reserve has idle, then
    /// from both together. For the last, idle memory within reach becomes the kernel's.
    fn serve_from_guest(&self, plan: &Plan) -> Option<CoherentBuffer<'_, P>> {
        self.adopt(plan).or_else(|| self.carve_anywhere(plan)).or_else(|| {
            let freed = self.reclaim_of(plan.classes(), u64::MAX);
            (freed > 0).then(|| self.adopt(plan))?
        })
    }

    /// Returns the lowest class that a request should be served from. A request that reaches all memory
    /// of the guest should leave lower classes to those that do not.
    fn preferred_class(&self, plan: &Plan) -> usize {
        let reached = class_of_mask(plan.limits().mask());
        if reached >= self.top_class() { self.top_class() } else { 0 }
    }

    /// Serves a request from the reserve in one piece.
    pub(super) fn carve(&self, plan: &Plan, lowest_class: usize) -> Option<CoherentBuffer<'_, P>> {
        let memory = self.platform().memory();
        let extent = self.reserve.with(|blocks| blocks.carve(memory, plan, lowest_class))?;
        if self.is_in_place(&extent) {
            return Some(self.counted(self.buffer_of(extent, plan), Source::Reserve));
        }
        self.reserve.insert(self.platform(), extent, true);
        self.found_moved(plan);
        None
    }

    /// Handles idle memory that is not where the reserve says: the domain was restored. A caller that must
    /// not sleep may be an interrupt handler, so it does not call the kernel's frame allocator.
    pub(super) fn found_moved(&self, plan: &Plan) {
        if plan.limits().sleep() == Sleep::May {
            self.dissolve_moved();
        }
    }

    /// Counts a buffer, and notes where its memory came from.
    pub(super) fn counted<'a>(
        &self,
        buffer: CoherentBuffer<'a, P>,
        source: Source,
    ) -> CoherentBuffer<'a, P> {
        self.counters.count(source);
        buffer.with_source(source)
    }

    /// Makes a buffer of an extent, whose frames the reserve covers.
    pub(super) fn buffer_of(&self, extent: Extent, plan: &Plan) -> CoherentBuffer<'_, P> {
        let run = self.run_of(extent.pfn, plan);
        CoherentBuffer::of_extent(self, run, &extent, plan)
    }

    /// Makes a buffer of several pieces, which are recorded.
    pub(super) fn buffer_of_pieces(&self, first: Pfn, plan: &Plan) -> CoherentBuffer<'_, P> {
        let run = self.run_of(first, plan);
        CoherentBuffer::of_pieces(self, run, plan)
    }

    /// Makes a run of the frames from `first` on that serve a request. Zeroes them, unless the request
    /// keeps the content.
    fn run_of(&self, first: Pfn, plan: &Plan) -> FrameRun {
        let platform = self.platform();
        // SAFETY: the frames were just taken out of the reserve, which owned them; nothing else does
        // ([M1](crate::rules#M1)).
        let run = unsafe { FrameRun::new(first, plan.frames()) };
        if plan.is_zeroed() {
            platform.xen().within(Span::Phase(Phase::Zero), || {
                // SAFETY: the frames are populated and mapped, and `run` proves that nothing else uses
                // them ([M1](crate::rules#M1)).
                unsafe { platform.memory().zero(run.first(), run.frames()) };
            });
        }
        run
    }
}
