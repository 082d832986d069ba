//! The linear mapping's entries of a run: out, and in again.

use hypercall::Xen;
use hypercall::ops::Pte;

use crate::addr::Mfn;
use crate::exchange::Exchanger;
use crate::frames::FrameRun;
use crate::paging::{LinearMapping, PteBatch, PteError};

/// Maps what `beneath` says at each frame of the run and records it: the one way in for new frames
/// and for old ones. Turns not-present entries into present ones, so there is nothing to flush.
///
/// Where Xen refuses an entry, the run is left unmapped as a whole: it can't be given to anyone.
pub(super) fn attach<X: Xen, L: LinearMapping>(
    exchanger: &Exchanger<'_, X, L>,
    run: &FrameRun,
    beneath: &[u64],
) -> Result<(), PteError> {
    // SAFETY: nothing uses the run (M2); the frames beneath it are the domain's, by Xen's word.
    if let Err(error) = unsafe { write(exchanger, run, Some(beneath)) } {
        unmap(exchanger, run);
        return Err(error);
    }
    // Only now: a P2M that names what Xen would not map would be a lie (M4).
    exchanger.p2m.set_run(run.first(), beneath.iter().map(|number| Some(Mfn::new(*number))));
    Ok(())
}

/// Writes the linear entry of each frame of the run: that it maps what `beneath` says, or nothing.
/// Never part of its callers, so that there is one batch on the stack at a time.
///
/// # Safety
/// Nobody uses the run (M1), and what is beneath it is the domain's.
#[inline(never)]
pub(super) unsafe fn write<X: Xen, L: LinearMapping>(
    exchanger: &Exchanger<'_, X, L>,
    run: &FrameRun,
    beneath: Option<&[u64]>,
) -> Result<(), PteError> {
    let Exchanger { xen, linear, .. } = *exchanger;
    let flags = linear.flags();
    let mut batch = PteBatch::new(xen);
    let mut written = || {
        let mut done = 0;
        while done < run.frames() {
            let left = run.frames() - done;
            let row = linear.entries(run.first().add(done), left);
            let end = done + row.count.clamp(1, left);
            let ptes = (done..end).map(|index| match beneath {
                Some(beneath) => Pte::new(Mfn::new(beneath[index as usize]), flags),
                None => Pte::NOT_PRESENT,
            });
            // SAFETY: the caller's.
            unsafe { batch.write_row(row.first, ptes)? };
            done = end;
        }
        // SAFETY: the caller's.
        unsafe { batch.issue() }
    };
    written().map_err(|refusal| PteError::of(refusal, run.first()))
}

/// Takes the run out of the linear mapping and the P2M again: what was mapped before a refusal, and
/// what a recovery had mapped. A refusal changes nothing: the run is nobody's either way. Apart from
/// `attach`, so that there is one batch on the stack at a time.
#[cold]
#[inline(never)]
fn unmap<X: Xen, L: LinearMapping>(exchanger: &Exchanger<'_, X, L>, run: &FrameRun) {
    let mut batch = PteBatch::new(exchanger.xen);
    for pfn in run.iter() {
        exchanger.p2m.set(pfn, None);
        // SAFETY: nothing uses the run (M2).
        let _best_effort = unsafe { batch.write(exchanger.linear.entry(pfn), Pte::NOT_PRESENT) };
    }
    // SAFETY: as above.
    let _best_effort = unsafe { batch.issue() };
}
