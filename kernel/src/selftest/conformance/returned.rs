//! Frames that a test returns to Xen for a while, with contents that Xen does not remove.

use alloc::vec::Vec;

use hypercall::Xen;
use hypercall::abi::memory::MemoryReservation;
use hypercall::ops::MemoryOp;

use super::TestOutcome;
use super::m2p::Answer;
use super::raw::{Specimen, extents};
use crate::selftest::reservation::can_refill;
use crate::selftest::{Check, TestContext, fail};
use crate::vcpu::xen;

/// The highest order of [`ReturnedFrames::extent`]. Each frame needs several hypercalls.
pub const HIGHEST: u32 = 11;

/// Returns frames to Xen.
///
/// # Safety
/// The frames contain no Rust objects, and no code accesses them until they are populated again.
pub unsafe fn decrease(list: &mut [u64]) -> Answer {
    // SAFETY: by this function's contract no code uses the frames. The list lives across the call.
    unsafe { xen().memory_op(MemoryOp::DecreaseReservation(&mut extents(list, 0))) }
}

/// Populates guest frames that have no memory.
pub fn populate(
    list: &mut [u64],
    order: u32,
    oddity: impl FnOnce(&mut MemoryReservation),
) -> Answer {
    let mut reservation = extents(list, order);
    oddity(&mut reservation);
    // SAFETY: Xen populates frames without memory, which contain no Rust objects. The list lives
    // across the call.
    unsafe { xen().memory_op(MemoryOp::PopulatePhysmap(&mut reservation)) }
}

/// Frames that were returned to Xen. Their places are populated again when this is dropped.
///
/// Xen does not scrub what a living domain returns (`free_domheap_pages`), unless it was booted with
/// `scrub-domheap` or is a debug build. It hands out first what it got last. So the next frames from
/// Xen contain the pattern of these, unless other code removes it.
pub struct ReturnedFrames<'c> {
    /// `None` once the places are populated.
    specimen: Option<Specimen<'c>>,
}

impl<'c> ReturnedFrames<'c> {
    /// Returns a run of frames to Xen.
    pub fn make(context: &TestContext<'c>, frames: u64) -> Result<Self, TestOutcome> {
        can_refill()?;
        Self::of(Specimen::take(context, frames)?)
    }

    /// Returns an extent to Xen, in PV. Xen then has an extent of this order that is not zeroed.
    ///
    /// Returns `None` if that is not possible here. A test of zeroing then runs without it.
    pub fn extent(context: &TestContext<'c>, order: u32) -> Result<Option<Self>, TestOutcome> {
        if order > HIGHEST || can_refill().is_err() {
            return Ok(None);
        }
        let mut specimen = match Specimen::contiguous(context, order) {
            Err(TestOutcome::Skip(_)) => return Ok(None),
            specimen => specimen?,
        };
        specimen.soil()?;
        Self::of(specimen).map(Some)
    }

    fn of(specimen: Specimen<'c>) -> Result<Self, TestOutcome> {
        let mut list = specimen.gfns().to_vec();
        let frames = list.len() as u64;
        // SAFETY: a specimen contains no Rust objects, and no code accesses it before it is
        // populated.
        let answer = unsafe { decrease(&mut list) };
        let returned = Self { specimen: Some(specimen) };
        if answer != Ok(frames) {
            fail!("expected Xen to take {frames} frames, it answered {answer:?}");
        }
        Ok(returned)
    }

    /// Returns the frames.
    pub fn specimen(&mut self) -> &mut Specimen<'c> {
        let Some(specimen) = &mut self.specimen else {
            unreachable!("the places are populated last")
        };
        specimen
    }

    /// Returns the numbers of the places.
    pub fn pfns(&mut self) -> Vec<u64> {
        self.specimen().pfns()
    }

    /// Populates the places frame by frame and frees the frames.
    pub fn fill(mut self) -> Check {
        self.fill_places()
    }

    /// Frees the frames, whose places the test has populated.
    pub fn put_back(mut self) -> Check {
        self.specimen.take().map_or(Ok(()), Specimen::put_back)
    }

    fn fill_places(&mut self) -> Check {
        let Some(mut specimen) = self.specimen.take() else { return Ok(()) };
        let mut list = specimen.pfns();
        let answer = populate(&mut list, 0, |_| ());
        let filled = answer.unwrap_or(0);
        for (index, gfn) in list.iter().take(filled as usize).enumerate() {
            specimen.replace(index, *gfn);
        }
        if filled != list.len() as u64 {
            // The specimen frees the frames that have memory.
            fail!("Xen populated {filled} of {} frames", list.len());
        }
        specimen.put_back()
    }
}

impl Drop for ReturnedFrames<'_> {
    fn drop(&mut self) {
        // A test that failed has its own error. What could not be populated is missing in the
        // accounts.
        let _missing = self.fill_places();
    }
}
