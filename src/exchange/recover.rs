//! After an exchange that failed behind the commit point: what lies beneath the run now?
//!
//! Xen could not write the out list (C51): the old frames are gone, and the new ones are the
//! guest's and on record in Xen's M2P, but nobody said which they are. So they are looked for. What is
//! found is believed where all of this holds:
//!
//! * Xen maps it for this domain. Guests number their frames from 0, so frames of others are on
//!   record with the same numbers; those Xen refuses. A mapping is a reference, too: what it accepts
//!   stays the domain's.
//! * It is none of the frames that were given up (M6). Xen takes a chunk's new frames before it frees
//!   the old ones, so an old frame that is on record can only mean that nothing was committed.
//! * There is no other for the same guest frame, and one for each.
//! * It is on record still when all are mapped: between the first look and the mapping, a frame of
//!   another guest may have become another vCPU's.
//!
//! Anything else, and all is unmapped and the run quarantined.
//!
//! # What the count says of the other chunks
//! `memory_exchange` (`xen/common/memory.c`, the same in 4.17 and 4.20) goes chunk by chunk and leaves
//! at the first that fails. On every way out it writes the number of chunks before that one to the
//! argument. So those are done, and those behind are as they were: Xen has not even looked at them.
//! That holds for `EFAULT` as for a refusal, with one exception: where the argument itself can't be
//! written, `EFAULT` comes with an old count. The argument is a variable of the exchange's own on the
//! stack of the running vCPU (M3), not memory that a caller lent as the lists are; who makes that
//! read-only does not return from the hypercall. Even so the count is not taken alone: each frame
//! behind the failing chunk has to be on record as it was.
//!
//! After C50 a frame is on record nowhere, and after C24 as it was before: neither is recovered.

use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};

use super::Exchanger;
use super::given_up::GivenUp;
use crate::addr::{Mfn, Pfn};
use crate::paging::LinearMapping;

/// What is known of the frames beneath a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// Xen said it.
    Told,
    /// Xen failed to say it, and it was found out.
    Recovered,
    /// Nobody knows: what was beneath some of the run is never mapped again (M6).
    Lost,
}

/// A stretch of a part in the first chunk of which Xen failed.
pub(super) struct Torn<'t> {
    /// Its first frame.
    pub first: Pfn,
    /// Frames in the chunk.
    pub chunk: u64,
    /// What lay beneath each frame of the stretch: of the chunk, and of all that Xen did not reach.
    pub beneath: &'t mut [u64],
}

/// Looks for the new frames of the chunk. Where they are found they are mapped, in the P2M and in
/// `beneath` when this returns; otherwise nothing of the stretch is mapped.
pub(super) fn recover<X: Xen, L: LinearMapping>(
    exchanger: &Exchanger<'_, X, L>,
    torn: Torn<'_>,
) -> Knowledge {
    let Torn { first, chunk, beneath } = torn;
    let frames = beneath.len() as u64;
    if frames < chunk {
        // Xen says that it did all, and that it failed.
        return Knowledge::Lost;
    }
    let (given_up, unreached) = beneath.split_at_mut(chunk as usize);
    let (found, kept, doubtful) = (0, 0, false);
    let of = GivenUp::of(given_up);
    let mut search = Search { exchanger, first, given_up: of, unreached, found, kept, doubtful };
    exchanger.linear.on_record(first, frames, &mut |pfn, mfn| search.see(pfn, mfn));
    let Search { found, kept, doubtful, .. } = search;

    let chunk_frames = (0..chunk).map(|index| first.add(index));
    let mut confirmed = 0;
    if !doubtful && (found, kept) == (chunk, frames - chunk) {
        exchanger.linear.on_record(first, chunk, &mut |pfn, mfn| {
            confirmed += u64::from(exchanger.p2m.mfn(pfn) == Some(mfn));
        });
    }
    if confirmed != chunk {
        chunk_frames.for_each(|pfn| take_out(exchanger, pfn));
        // What was mapped may be remembered. The frames are quarantined and nobody goes there, so it
        // does no harm where Xen refuses.
        let _best_effort = exchanger.linear.flushes().flush_all(exchanger.xen);
        return Knowledge::Lost;
    }
    for (pfn, slot) in chunk_frames.zip(given_up) {
        *slot = exchanger.p2m.mfn(pfn).map_or(*slot, Mfn::number);
    }
    Knowledge::Recovered
}

/// What has been seen of the M2P.
struct Search<'s, 'e, X, L> {
    exchanger: &'s Exchanger<'e, X, L>,
    first: Pfn,
    /// What lay beneath the chunk.
    given_up: GivenUp<'s, u64>,
    /// What lay beneath the frames behind it.
    unreached: &'s [u64],
    /// Frames of the chunk that one is mapped for. Which one, the P2M says.
    found: u64,
    /// Frames behind the chunk that are on record as they were.
    kept: u64,
    /// Two frames are the domain's for one place.
    doubtful: bool,
}

impl<X: Xen, L: LinearMapping> Search<'_, '_, X, L> {
    fn see(&mut self, pfn: Pfn, mfn: Mfn) {
        let Some(index) = pfn.number().checked_sub(self.first.number()) else { return };
        if let Some(behind) = index.checked_sub(self.given_up.frames()) {
            self.kept += u64::from(self.unreached.get(behind as usize) == Some(&mfn.number()));
            return;
        }
        if self.doubtful || self.given_up.contains(&mfn.number()) {
            return;
        }
        let pte = Pte::new(mfn, self.exchanger.linear.flags());
        if write(self.exchanger, pfn, pte).is_err() {
            return;
        }
        self.doubtful = self.exchanger.p2m.mfn(pfn).is_some();
        self.exchanger.p2m.set(pfn, Some(mfn));
        self.found += 1;
    }
}

/// Unmaps what the search has mapped at a frame. Where Xen refuses, the P2M goes on saying so (M4).
fn take_out<X: Xen, L: LinearMapping>(exchanger: &Exchanger<'_, X, L>, pfn: Pfn) {
    if exchanger.p2m.mfn(pfn).is_some() && write(exchanger, pfn, Pte::NOT_PRESENT).is_ok() {
        exchanger.p2m.set(pfn, None);
    }
}

/// Writes the linear entry of a frame.
fn write<X: Xen, L: LinearMapping>(
    exchanger: &Exchanger<'_, X, L>,
    pfn: Pfn,
    pte: Pte,
) -> Result<u64, XenErrno> {
    let update = [MmuUpdate::page_table(exchanger.linear.entry(pfn).get(), pte)];
    // SAFETY: nothing uses the run (M2): what is mapped there for a moment is reached by nobody.
    unsafe { exchanger.xen.mmu_update(&update, &mut 0, DomId::SELF) }
}
