//! Makes memory that is in use contiguous in place.

use core::fmt;

use hypercall::Xen;
use hypercall::trace::Span;

use super::constraints::{Backing, Sleep};
use super::plan::Plan;
use super::reserve::{Extent, Origin, class_of};
use super::{AllocError, Allocator, CoherentBuffer, Constraints};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::exchange::{ExchangeError, Node, Relocation, Relocator, Remaining};
use crate::frames::FrameRun;
use crate::paging::{FrameInUse, GuestMemory};
use crate::platform::Platform;

/// Why memory in use was not made contiguous, and the frames that remain of its run.
///
/// The frames that remain hold their bytes. If Xen refused a step midway, other machine frames may back
/// some of them than before.
#[derive(Debug)]
#[must_use = "dropping it leaks the frames that remain"]
pub struct RelocationFailure<'a> {
    /// Why it failed.
    pub error: AllocError,
    /// The frames that are not in quarantine: all of them, unless the error says otherwise.
    pub remaining: Remaining<'a>,
}

impl fmt::Display for RelocationFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl core::error::Error for RelocationFailure<'_> {}

impl<P: Platform> Allocator<P> {
    /// Makes memory that is in use contiguous for devices, and puts it within their reach. The bytes and
    /// the guest addresses stay; the device addresses change.
    ///
    /// If the run suits the limits as it is, nothing moves. Otherwise it gets the machine frames of memory
    /// that the allocator obtains as for a buffer. The old machine frames are zeroed and become free memory
    /// of the kernel. [`frame_align`](Constraints::frame_align) does not apply.
    ///
    /// The caller owns the run ([M1](crate::rules#M1)) and lets no device access it during the call.
    /// Aliases that nothing uses any more are dropped. Xen does not check what else references the frames,
    /// so the kernel must: a PV kernel by
    /// [`check_unreferenced`](crate::paging::LinearMapping::check_unreferenced).
    ///
    /// Makes hypercalls, and the bytes of the run are copied once. It must not be called in an interrupt
    /// handler or under a lock of the kernel's. With [`Sleep::MustNot`], a run that would have to move is
    /// refused.
    ///
    /// # Errors
    /// Why the memory stays as it is. A frame that something references is named by
    /// [`ExchangeError::FrameBusy`]. In a translated guest (PVH) memory in use never moves.
    pub fn make_contiguous(
        &self,
        run: FrameRun,
        limits: &Constraints,
    ) -> Result<CoherentBuffer<'_, P>, RelocationFailure<'_>> {
        let size = run.frames().saturating_mul(PAGE_SIZE as u64);
        let plan = match Plan::new(size, &limits.at_any_guest_address()) {
            Ok(plan) => plan.keeping_content(),
            Err(error) => return Err(refused(run, error)),
        };
        let operation = Span::Operation(limits.operation("make_contiguous", size));
        self.platform().xen().within(operation, || self.make_buffer(run, &plan))
    }

    fn make_buffer(
        &self,
        run: FrameRun,
        plan: &Plan,
    ) -> Result<CoherentBuffer<'_, P>, RelocationFailure<'_>> {
        let (first, frames) = (run.first(), run.frames());
        if let Err(error) = self.check_unused(&run) {
            return Err(refused(run, error.into()));
        }
        if self.reserve.cover(self.platform(), first, frames).is_err() {
            return Err(refused(run, self.no_record_memory()));
        }
        if self.suits(&run, plan) {
            return Ok(self.buffer_of_run(run, plan, false, |extent| self.settled(extent)));
        }
        self.relocate(run, plan).inspect_err(|_| {
            self.reserve.uncover(self.platform(), first, frames);
        })
    }

    /// Drops the aliases of a run that nothing uses, and checks that nothing else references it.
    fn check_unused(&self, run: &FrameRun) -> Result<(), ExchangeError> {
        match self.relocator() {
            Some(relocator) => relocator.check(run),
            None => self.platform().memory().purge(run).map_err(|FrameInUse { pfn, holder }| {
                ExchangeError::FrameBusy { pfn, mfn: None, holder }
            }),
        }
    }

    /// Returns true if a device takes the run as it is.
    fn suits(&self, run: &FrameRun, plan: &Plan) -> bool {
        let limits = plan.limits();
        let is_known = !matches!(limits.node(), Node::Exactly(_))
            && (limits.backing() != Backing::OneExtent || !self.platform().p2m().is_translated());
        is_known && self.serves(run.first(), run.frames(), plan)
    }

    /// Returns the relocator of a PV guest.
    fn relocator(&self) -> Option<Relocator<'_, P::Xen, P::Linear>> {
        let platform = self.platform();
        let linear = platform.linear()?;
        // SAFETY: all that a platform returns belongs to one guest, and runs come from its frame
        // allocator alone ([M1](crate::rules#M1)): the promises of the trait `Platform`.
        Some(unsafe {
            Relocator::new(platform.xen(), *platform.p2m(), linear, platform.accounts())
        })
    }

    /// Gives a covered run the machine frames of memory that suits the device.
    fn relocate(
        &self,
        run: FrameRun,
        plan: &Plan,
    ) -> Result<CoherentBuffer<'_, P>, RelocationFailure<'_>> {
        let Some(relocator) = self.relocator() else {
            return Err(refused(run, AllocError::MemoryInUseStays));
        };
        if plan.limits().sleep() == Sleep::MustNot {
            return Err(refused(run, AllocError::MustNotSleep));
        }
        let spare = match self.alloc(plan) {
            Ok(spare) => spare.into_parts(),
            Err(error) => return Err(refused(run, error)),
        };
        let words = 2 * run.frames();
        let (spare, extent) = spare;
        let Some(mut lists) = self.lists(words) else {
            self.return_spare(spare, extent);
            return Err(refused(run, AllocError::NoListMemory { words }));
        };
        let first = spare.first();
        let Relocation { run, spare, moved, error } =
            relocator.relocate(run, spare, lists.as_mut());
        let Some(error) = error else {
            let buffer = self.buffer_of_spare(run, first, extent, plan);
            // The spare frames have the bytes of the run.
            self.give_remaining_zeroed(first, spare);
            return buffer;
        };
        match spare.whole() {
            Ok(spare) if moved == 0 => self.return_spare(spare, extent),
            Ok(spare) => self.lend_spare(spare.into(), first, extent),
            Err(spare) => self.lend_spare(spare, first, extent),
        }
        Err(RelocationFailure { error: AllocError::of(error, run.lost()), remaining: run })
    }

    /// Makes a buffer of a run that has the machine frames of a spare one, which began at `spare`. `extent`
    /// backed the spare run if it was one piece.
    fn buffer_of_spare(
        &self,
        run: Remaining<'_>,
        spare: Pfn,
        extent: Option<Extent>,
        plan: &Plan,
    ) -> Result<CoherentBuffer<'_, P>, RelocationFailure<'_>> {
        let Ok(run) = run.whole() else { unreachable!("all frames moved, so none is lost") };
        let first = run.first();
        if let Some(extent) = extent {
            return Ok(CoherentBuffer::of_extent(
                self,
                run,
                &Extent { pfn: first, ..extent },
                plan,
            ));
        }
        let memory = self.platform().memory();
        self.take_pieces(spare, run.frames(), |piece| {
            let pfn = first.add(piece.pfn.number() - spare.number());
            self.reserve.with(|blocks| blocks.set_piece(memory, Extent { pfn, ..piece }));
        });
        Ok(CoherentBuffer::of_pieces(self, run, plan))
    }

    /// Returns spare frames to the reserve that still have their machine frames. They may hold bytes of
    /// the run, or of another domain.
    fn return_spare(&self, spare: FrameRun, extent: Option<Extent>) {
        let (first, frames) = (spare.first(), spare.frames());
        // SAFETY: the frames are mapped and ours alone ([M1](crate::rules#M1)).
        unsafe { self.platform().memory().zero(first, frames) };
        match extent {
            Some(extent) => self.release(extent),
            None => self.release_pieces(first, frames),
        }
    }

    /// Makes spare frames free memory of the kernel of which some have machine frames of the run. So the
    /// kernel has scarce memory that came from Xen, in the run or in the spare frames.
    #[cold]
    fn lend_spare(&self, spare: Remaining<'_>, first: Pfn, extent: Option<Extent>) {
        let lend = |extent: Extent| {
            for index in (0..extent.frames).filter(|_| extent.origin == Origin::Exchanged) {
                self.lent.lend(class_of(extent.gfn.add(index), 1), 1);
            }
        };
        match extent {
            Some(extent) => lend(extent),
            None => self.take_pieces(first, spare.frames() + spare.lost(), lend),
        }
        self.give_remaining_zeroed(first, spare);
    }
}

/// Nothing of the run has changed.
fn refused<'a>(run: FrameRun, error: AllocError) -> RelocationFailure<'a> {
    RelocationFailure { error, remaining: run.into() }
}
