//! Takes a run out of the linear mapping and puts it back: whole tables where they can be unhooked, and
//! single entries elsewhere.

use hypercall::ops::Pte;
use hypercall::{Xen, XenErrno};

use super::entries::{MapResult, collect, map_entries};
use super::tables::{Piece, Table, Tables, pieces};
use crate::exchange::error::ExchangeError;
use crate::exchange::guest::GuestHandle;
use crate::frames::FrameRun;
use crate::paging::{LinearMapping, PteBatch};

/// Clears the entries of a run, or unhooks whole tables.
///
/// Never inlined, so that at most one batch is on the stack.
#[inline(never)]
pub(super) fn clear<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
) -> Result<(), ExchangeError> {
    let mut batch = PteBatch::new(guest.xen);
    let collected = collect_clearing(guest, &mut batch, run);
    // SAFETY: the writes that were collected.
    let result = collected.and_then(|()| unsafe { batch.issue() });
    result.map_err(|errno| refused_clearing(guest, run, batch.done(), errno))
}

/// Adds the clearing of all entries of a run to a batch. At most 512 remain in it.
///
/// # Errors
/// Xen refused a write of an earlier batch.
pub(super) fn collect_clearing<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    batch: &mut PteBatch<'_, X>,
    run: &FrameRun,
) -> Result<(), XenErrno> {
    for Piece { first, frames, table } in pieces(guest, run.first(), run.frames()) {
        // SAFETY: `run` proves that nothing else uses these frames and that no Rust object lies in them
        // ([M1](crate::rules#M1)). A table is named for its own frames alone.
        unsafe {
            match table {
                Some(table) => table.collect_unhooking(guest, batch)?,
                None => {
                    let entries = core::iter::repeat(Pte::NOT_PRESENT);
                    collect(guest, batch, first, frames, entries)?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the error for a write of [`collect_clearing`] that Xen refused after `done` others.
#[cold]
pub(super) fn refused_clearing<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
    mut done: u64,
    errno: XenErrno,
) -> ExchangeError {
    let mut pfn = run.first();
    for Piece { first, frames, table } in pieces(guest, run.first(), run.frames()) {
        let (writes, within) = match table {
            Some(_) => (Table::WRITES, 0),
            None => (frames, done),
        };
        if done < writes {
            pfn = first.add(within);
            break;
        }
        done -= writes;
    }
    ExchangeError::PageTable { pfn, errno }
}

/// Maps the frames of a run to the machine frames in `backing`, and records them in the P2M. Leaves
/// out the frames whose machine frame is [`UNKNOWN`](super::entries::UNKNOWN).
///
/// This is the one way in for old and for new frames. It turns not-present entries into present ones,
/// so there is nothing to flush ([F3](crate::rules#F3)). A frame that Xen refuses to map is tried once
/// more, and then left out. It costs two hypercalls; all others are mapped.
pub(super) fn map<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
    backing: &[u64],
    tables: Tables,
) -> MapResult {
    let mut mapping = MapResult { lost: 0, error: None };
    let mut rest = backing;
    for Piece { first, frames, table } in pieces(guest, run.first(), run.frames()) {
        let (backing, after) = rest.split_at(frames as usize);
        rest = after;
        match table {
            Some(table) if tables != Tables::Hooked => {
                table.map(guest, first, backing, tables, &mut mapping);
            }
            _ => map_entries(guest, first, backing, &mut mapping),
        }
    }
    mapping
}
