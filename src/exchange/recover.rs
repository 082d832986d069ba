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
//! Anything else, and the chunk is unmapped again and quarantined. The other chunks are not, where they
//! are on record as the count has it.
//!
//! # What the count says of the other chunks
//! `memory_exchange` (`xen/common/memory.c`, the same in 4.17 and 4.20) goes chunk by chunk and leaves
//! at the first that fails. On every way out it writes the number of chunks before that one to the
//! argument. So those are done, and those behind are as they were: Xen has not even looked at them.
//! That holds for `EFAULT` as for a refusal, with one exception: where the argument itself can't be
//! written, `EFAULT` comes with an old count. The argument is a variable of the exchange's own on the
//! stack of the running vCPU (M3), not memory that a caller lent as the lists are; who makes that
//! read-only does not return from the hypercall. Even so the count is not taken alone. Each frame before
//! the failing chunk has to be on record as the out list says; otherwise nothing of the part is believed.
//! Each frame behind it has to be on record as it was; otherwise nothing from the failing chunk on.
//!
//! After C50 a frame is on record nowhere, and after C24 as it was before: the chunk is lost, and no
//! other. After C52 the chunk is not even looked for.

use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};

use super::given_up::GivenUp;
use super::{Exchanger, Part};
use crate::addr::{Mfn, Pfn};
use crate::paging::LinearMapping;

/// What is known of the frames beneath a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// Xen said it.
    Told,
    /// Xen failed to say it, and it was found out.
    Recovered,
    /// Nobody knows it of these frames, which are never mapped again (M6). Of the others it is known.
    Lost {
        /// The first of them, counted from the first of the run.
        first: u64,
        /// How many.
        frames: u64,
    },
}

impl Knowledge {
    /// Nothing is known of a part.
    pub const fn lost(part: &Part) -> Self {
        Self::Lost { first: part.first(), frames: part.frames() }
    }
}

/// A part in which Xen failed behind the commit point, with a count that can be.
pub(super) struct Torn<'t> {
    /// Its first frame.
    pub first: Pfn,
    pub part: Part,
    /// Frames of the chunks that Xen counted as done.
    pub done: u64,
    /// What Xen answered.
    pub errno: XenErrno,
    /// What lies beneath each frame of the part, by what Xen said: of the failing chunk, what lay
    /// there.
    pub beneath: &'t mut [u64],
}

/// Finds out what is beneath the part. New frames of the failing chunk that were found are mapped, in
/// the P2M and in `beneath` when this returns; nothing else of the part is mapped.
pub(super) fn recover<X: Xen, L: LinearMapping>(
    exchanger: &Exchanger<'_, X, L>,
    torn: Torn<'_>,
) -> Knowledge {
    let Torn { first, part, done, errno, beneath } = torn;
    let chunk = part.chunk();
    let Some(frames_behind) = part.frames().checked_sub(done + chunk) else {
        // Xen says that it did all, and that it failed.
        return Knowledge::lost(&part);
    };
    let (before, rest) = beneath.split_at_mut(done as usize);
    let (failing, behind) = rest.split_at_mut(chunk as usize);
    let mut search = Search {
        exchanger,
        first,
        before,
        given_up: GivenUp::of(failing),
        behind,
        done: 0,
        found: 0,
        kept: 0,
        // Only of this answer it is known what it leaves on record.
        doubtful: errno != XenErrno::EFAULT,
    };
    exchanger.linear.on_record(first, part.frames(), &mut |pfn, mfn| search.see(pfn, mfn));
    let Search { done: done_on_record, found, kept, doubtful, .. } = search;

    let chunk_frames = (done..done + chunk).map(|index| first.add(index));
    let is_true = done_on_record == done && kept == frames_behind;
    let mut confirmed = 0;
    if is_true && !doubtful && found == chunk {
        exchanger.linear.on_record(first.add(done), chunk, &mut |pfn, mfn| {
            confirmed += u64::from(exchanger.p2m.mfn(pfn) == Some(mfn));
        });
    }
    if confirmed == chunk {
        for (pfn, slot) in chunk_frames.zip(failing) {
            *slot = exchanger.p2m.mfn(pfn).map_or(*slot, Mfn::number);
        }
        return Knowledge::Recovered;
    }
    chunk_frames.for_each(|pfn| take_out(exchanger, pfn));
    // What was mapped may be remembered. The frames are quarantined and nobody goes there, so it
    // does no harm where Xen refuses.
    let _best_effort = exchanger.linear.flushes().flush_all(exchanger.xen);
    let first = part.first() + done;
    match (done_on_record == done, kept == frames_behind) {
        (true, true) => Knowledge::Lost { first, frames: chunk },
        // More may have been done than was counted.
        (true, false) => Knowledge::Lost { first, frames: chunk + frames_behind },
        (false, _) => Knowledge::lost(&part),
    }
}

/// What has been seen of the M2P.
struct Search<'s, 'e, X, L> {
    exchanger: &'s Exchanger<'e, X, L>,
    first: Pfn,
    /// What Xen said to be beneath the frames before the chunk.
    before: &'s [u64],
    /// What lay beneath the chunk.
    given_up: GivenUp<'s, u64>,
    /// What lay beneath the frames behind it.
    behind: &'s [u64],
    /// Frames before the chunk that are on record as Xen said.
    done: u64,
    /// Frames of the chunk that one is mapped for. Which one, the P2M says.
    found: u64,
    /// Frames behind the chunk that are on record as they were.
    kept: u64,
    /// Nothing is believed of the chunk: two frames are the domain's for one place, say.
    doubtful: bool,
}

impl<X: Xen, L: LinearMapping> Search<'_, '_, X, L> {
    fn see(&mut self, pfn: Pfn, mfn: Mfn) {
        let Some(index) = pfn.number().checked_sub(self.first.number()) else { return };
        let Some(index) = index.checked_sub(self.before.len() as u64) else {
            self.done += u64::from(self.before.get(index as usize) == Some(&mfn.number()));
            return;
        };
        if let Some(behind) = index.checked_sub(self.given_up.frames()) {
            self.kept += u64::from(self.behind.get(behind as usize) == Some(&mfn.number()));
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
