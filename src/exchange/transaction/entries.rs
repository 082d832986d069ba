//! Writes single page-table entries of the linear mapping.

use hypercall::ops::Pte;
use hypercall::{Xen, XenErrno};

use crate::addr::{Mfn, Pfn};
use crate::exchange::error::ExchangeError;
use crate::exchange::guest::GuestHandle;
use crate::frames::FrameRun;
use crate::paging::{LinearMapping, PteBatch};

/// Stands in the list `backing` for a frame whose machine frame is unknown.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// What became of a run that was to be mapped.
pub(super) struct MapResult {
    /// Frames that are not mapped. The P2M has no machine frame for them.
    pub lost: u64,
    /// Why Xen refused to map a frame, for the first of those that it refused.
    pub error: Option<ExchangeError>,
}

/// Clears the entries of a run one by one. No table is unhooked.
pub(super) fn clear_entries<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
) -> Result<(), ExchangeError> {
    let entries = core::iter::repeat(Pte::NOT_PRESENT);
    // SAFETY: `run` proves that nothing else uses these frames and that no Rust object lies in them
    // ([M1](crate::rules#M1)).
    let (done, result) = unsafe { write(guest, run.first(), run.frames(), entries) };
    result.map_err(|errno| ExchangeError::PageTable { pfn: run.first().add(done), errno })
}

/// Maps frames from `first` on, entry by entry.
pub(super) fn map_entries<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    mut first: Pfn,
    backing: &[u64],
    mapping: &mut MapResult,
) {
    for stretch in backing.chunk_by(|one, next| (*one == UNKNOWN) == (*next == UNKNOWN)) {
        if stretch[0] == UNKNOWN {
            give_up(guest, first, stretch.len() as u64);
            mapping.lost += stretch.len() as u64;
        } else {
            map_stretch(guest, first, stretch, mapping);
        }
        first = first.add(stretch.len() as u64);
    }
}

/// Maps frames from `first` on, all of whose machine frames are known.
fn map_stretch<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    mut first: Pfn,
    mut backing: &[u64],
    mapping: &mut MapResult,
) {
    while let Some(refused) = map_up_to_refusal(guest, first, backing) {
        let Refused { done, errno } = refused;
        let pfn = first.add(done);
        let (again, rest) = backing[done as usize..].split_at(1);
        if map_up_to_refusal(guest, pfn, again).is_some() {
            give_up(guest, pfn, 1);
            mapping.lost += 1;
            mapping.error.get_or_insert(ExchangeError::PageTable { pfn, errno });
        }
        (first, backing) = (pfn.add(1), rest);
    }
}

/// A write of an entry that Xen refused.
struct Refused {
    /// The writes before it.
    done: u64,
    errno: XenErrno,
}

/// Maps frames from `first` on and records them, up to the first that Xen refuses to map.
fn map_up_to_refusal<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    first: Pfn,
    backing: &[u64],
) -> Option<Refused> {
    let flags = guest.linear.flags();
    let entries = backing.iter().map(|number| Pte::new(Mfn::new(*number), flags));
    // SAFETY: the frames belong to the transaction's run, so nothing else uses them
    // ([M1](crate::rules#M1)). That the machine frames are the domain's is Xen's word, which it checks
    // again here.
    let (done, result) = unsafe { write(guest, first, backing.len() as u64, entries) };
    // Only now: the P2M must not name a machine frame that is not mapped ([M4](crate::rules#M4)).
    let mapped = backing.iter().take(done as usize);
    guest.p2m.set_run(first, mapped.map(|number| Some(Mfn::new(*number))));
    result.err().map(|errno| Refused { done, errno })
}

/// Takes frames that are not mapped out of the tables. Their entries may still be present if Xen
/// refused to clear them, too. The frames are quarantined, so a second refusal changes nothing.
#[cold]
fn give_up<X: Xen, L: LinearMapping>(guest: &GuestHandle<'_, X, L>, first: Pfn, frames: u64) {
    let entries = core::iter::repeat_n(Pte::NOT_PRESENT, frames as usize);
    guest.p2m.set_run(first, entries.clone().map(|_| None));
    // SAFETY: the frames belong to the transaction's run, so nothing uses them
    // ([M1](crate::rules#M1)).
    let _best_effort = unsafe { write(guest, first, frames, entries) };
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
    ptes: impl Iterator<Item = Pte>,
) -> (u64, Result<(), XenErrno>) {
    let mut batch = PteBatch::new(guest.xen);
    // SAFETY: the function's requirements.
    let collected = unsafe { collect(guest, &mut batch, first, frames, ptes) };
    // SAFETY: the same entries.
    let result = collected.and_then(|()| unsafe { batch.issue() });
    (batch.done(), result)
}

/// Adds writes of the entries of `frames` frames from `first` on to a batch. At most 512 remain in it.
///
/// # Safety
/// As for `write`.
pub(super) unsafe fn collect<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    batch: &mut PteBatch<'_, X>,
    first: Pfn,
    frames: u64,
    mut ptes: impl Iterator<Item = Pte>,
) -> Result<(), XenErrno> {
    let mut at = 0;
    while at < frames {
        let row = guest.linear.entries(first.add(at), frames - at);
        let count = row.count.clamp(1, frames - at);
        // SAFETY: the entries map frames that nothing uses: the function's requirement.
        unsafe { batch.write_row(row.first, count as usize, ptes.by_ref())? };
        at += count;
    }
    Ok(())
}
