//! Writes the page-table entries that map a run linearly.

use core::ops::Range;

use hypercall::ops::Pte;
use hypercall::{Xen, XenErrno};

use crate::addr::{Mfn, Pfn};
use crate::exchange::error::ExchangeError;
use crate::exchange::guest::GuestHandle;
use crate::frames::FrameRun;
use crate::paging::{LinearMapping, PteBatch};

/// What became of a run that was to be mapped.
pub(super) struct MapResult {
    /// Frames that Xen refused to map. They are unmapped, and the P2M has no machine frame for them.
    pub refused: u64,
    /// Why, for the first of them.
    pub error: Option<ExchangeError>,
}

/// Clears the entries of a run.
pub(super) fn clear<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
) -> Result<(), ExchangeError> {
    let entries = run.iter().map(|_| Pte::NOT_PRESENT);
    // SAFETY: `run` proves that nothing else uses these frames and that no Rust object lies in them
    // ([M1](crate::rules#M1)).
    let (done, result) = unsafe { write(guest, run.first(), run.frames(), entries) };
    result.map_err(|errno| ExchangeError::PageTable { pfn: run.first().add(done), errno })
}

/// Maps the frames of a run to the machine frames in `backing`, and records them in the P2M. Leaves
/// out the frames of `unknown`, counted from the first of the run.
///
/// This is the one way in for old and for new frames. It turns not-present entries into present ones,
/// so there is nothing to flush ([F3](crate::rules#F3)). A frame that Xen refuses to map is left out
/// and costs a hypercall; all others are mapped.
pub(super) fn map<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
    backing: &[u64],
    unknown: &Range<u64>,
) -> MapResult {
    let mut mapping = MapResult { refused: 0, error: None };
    for mut stretch in [0..unknown.start, unknown.end..run.frames()] {
        while !stretch.is_empty() {
            let first = run.first().add(stretch.start);
            let backing = &backing[stretch.start as usize..stretch.end as usize];
            let flags = guest.linear.flags();
            let entries = backing.iter().map(|number| Pte::new(Mfn::new(*number), flags));
            // SAFETY: `run` proves that nothing else uses these frames ([M1](crate::rules#M1)). That
            // the machine frames are the domain's is Xen's word, which it checks again here.
            let (done, result) =
                unsafe { write(guest, first, stretch.end - stretch.start, entries) };
            // Only now: the P2M must not name a machine frame that is not mapped
            // ([M4](crate::rules#M4)).
            let mapped = backing.iter().take(done as usize);
            guest.p2m.set_run(first, mapped.map(|number| Some(Mfn::new(*number))));
            stretch.start += done;
            if let Err(errno) = result {
                let pfn = first.add(done);
                give_up(guest, pfn);
                mapping.refused += 1;
                mapping.error.get_or_insert(ExchangeError::PageTable { pfn, errno });
                stretch.start += 1;
            }
        }
    }
    mapping
}

/// Takes a frame that Xen refused to map out of the tables. Its entry may still be present if Xen
/// refused to clear it, too. The frame is quarantined, so a second refusal changes nothing.
#[cold]
fn give_up<X: Xen, L: LinearMapping>(guest: &GuestHandle<'_, X, L>, pfn: Pfn) {
    guest.p2m.set(pfn, None);
    // SAFETY: the frame belongs to the transaction's run, so nothing uses it ([M1](crate::rules#M1)).
    let _best_effort = unsafe { write(guest, pfn, 1, core::iter::once(Pte::NOT_PRESENT)) };
}

/// Writes the entries of `frames` frames from `first` on. Returns how many were written, up to the
/// first that Xen refused.
///
/// Never inlined, so that at most one batch is on the stack.
///
/// # Safety
/// * Nothing uses the frames ([M1](crate::rules#M1)).
/// * The machine frames in the entries belong to this domain.
#[inline(never)]
unsafe fn write<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    first: Pfn,
    frames: u64,
    mut ptes: impl Iterator<Item = Pte>,
) -> (u64, Result<(), XenErrno>) {
    let mut batch = PteBatch::new(guest.xen);
    let mut written = || {
        let mut at = 0;
        while at < frames {
            let row = guest.linear.entries(first.add(at), frames - at);
            let count = row.count.clamp(1, frames - at);
            let ptes = ptes.by_ref().take(count as usize);
            // SAFETY: the entries map frames that nothing uses: the function's requirement.
            unsafe { batch.write_row(row.first, ptes)? };
            at += count;
        }
        // SAFETY: the same entries.
        unsafe { batch.issue() }
    };
    let result = written();
    (batch.done(), result)
}
