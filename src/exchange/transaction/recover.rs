//! Finds out which machine frames back a part after Xen failed past its commit point.
//!
//! Xen could not write the out-list ([C51](crate::conformance#C51)). The old frames are gone. The
//! new ones are the guest's and are recorded in Xen's M2P, but Xen did not report which they are. So
//! they are searched for. A frame that is found is believed if all of this holds:
//!
//! * Xen maps it for this domain. Guests number their frames from 0, so the M2P records frames of other
//!   domains with the same numbers; Xen refuses those. A mapping is a reference, too: a frame that Xen
//!   accepts stays the domain's.
//! * It is not one of the frames that were given up ([M6](crate::rules#M6)). Xen takes a chunk's new
//!   frames before it frees the old ones. So a record of an old frame means that nothing was
//!   committed.
//! * There is one frame for each guest frame of the chunk, and no second one for any.
//! * The M2P still records it when all are mapped. Between the first search and the mapping, another
//!   vCPU may have received a frame that was another guest's.
//!
//! Otherwise the chunk is unmapped again, and its frames are unknown. The other chunks are known if the
//! M2P records for them what the count says.
//!
//! # What the count says of the other chunks
//! `memory_exchange` (`xen/common/memory.c`, the same in 4.17 and 4.20) works chunk by chunk and returns
//! at the first that fails. On every return it writes the number of chunks before that one to the
//! argument. So those are done, and Xen has not touched those after it. There is one exception: if
//! Xen cannot write the argument itself, `EFAULT` comes with an old count. The argument is a local
//! variable on the stack of the running vCPU ([M3](crate::rules#M3)). A vCPU whose stack is read-only
//! does not return from the hypercall. Even so, the count is not believed alone. The M2P must record
//! each frame before the failing chunk as the out-list says; otherwise the whole part is unknown. It
//! must record each frame after the chunk as before; otherwise all from the failing chunk on is unknown.
//!
//! After [C50](crate::conformance#C50) the M2P does not record one of the frames, and after
//! [C24](crate::conformance#C24) it records the old ones: the chunk is unknown, and no other. After
//! [C52](crate::conformance#C52) the chunk is not searched for.

use core::ops::Range;

use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};

use crate::addr::{Mfn, Pfn};
use crate::exchange::error::ExchangeError;
use crate::exchange::guest::GuestHandle;
use crate::paging::LinearMapping;

/// Xen failed past the commit point, or its reply contradicts itself. It is asked nothing more.
pub(super) struct TornExchange {
    /// What is reported.
    pub error: ExchangeError,
    /// The frames whose machine frame is unknown, counted from the first of the run. Empty if the
    /// new ones were found.
    pub unknown: Range<u64>,
}

/// A part in which Xen failed past the commit point, with a count that is possible.
pub(super) struct TornPart<'t> {
    /// Its first frame.
    pub first: Pfn,
    /// The number of frames in a chunk.
    pub chunk: u64,
    /// The frames of the chunks that Xen counted as done.
    pub done: u64,
    /// Xen's answer.
    pub errno: XenErrno,
    /// The machine frame of each frame, as far as Xen reported it. Of the failing chunk, the old ones.
    pub backing: &'t mut [u64],
}

/// Finds out which machine frames back the part. Returns the frames of which that is unknown, counted
/// from its first one.
///
/// If new frames of the failing chunk were found, they are in `backing` and in the P2M, and mapped.
/// Nothing else of the part is mapped.
pub(super) fn recover<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    torn: TornPart<'_>,
) -> Range<u64> {
    let TornPart { first, chunk, done, errno, backing } = torn;
    let frames = backing.len() as u64;
    if done + chunk > frames {
        // Xen says that it did everything, and that it failed.
        return 0..frames;
    }
    let (before, rest) = backing.split_at_mut(done as usize);
    let (failing, after) = rest.split_at_mut(chunk as usize);
    // A chunk has up to 262,144 frames, and the M2P at least as many records. Sorted, each record
    // takes 18 comparisons and no memory.
    failing.sort_unstable();
    let mut search = RecordedFrames {
        guest,
        first,
        before,
        given_up: failing,
        after,
        done: 0,
        found: 0,
        kept: 0,
        // After any other error it is not known what the M2P records.
        doubtful: errno != XenErrno::EFAULT,
    };
    guest.linear.on_record(first, frames, &mut |pfn, mfn| search.visit(pfn, mfn));
    let before_is_recorded = search.done == done;
    let after_is_recorded = search.kept == frames - done - chunk;
    let chunk_is_found = !search.doubtful && search.found == chunk;

    let failing_pfns = (done..done + chunk).map(|index| first.add(index));
    if before_is_recorded && after_is_recorded && chunk_is_found {
        let mut confirmed = 0;
        guest.linear.on_record(first.add(done), chunk, &mut |pfn, mfn| {
            confirmed += u64::from(guest.p2m.mfn(pfn) == Some(mfn));
        });
        if confirmed == chunk {
            for (pfn, slot) in failing_pfns.zip(failing) {
                *slot = guest.p2m.mfn(pfn).map_or(*slot, Mfn::number);
            }
            return 0..0;
        }
    }
    failing_pfns.for_each(|pfn| forget(guest, pfn));
    // A vCPU may remember a mapping that the search made. Nothing accesses quarantined frames, so it
    // does no harm if Xen refuses the flush.
    // SAFETY: `Exchanger::new` requires that `xen` and `linear` belong to the same guest.
    let _best_effort = unsafe { guest.linear.flushes().flush_all(guest.xen) };
    match before_is_recorded {
        true if after_is_recorded => done..done + chunk,
        // Xen may have done more than it counted.
        true => done..frames,
        false => 0..frames,
    }
}

/// What the M2P records of a part.
struct RecordedFrames<'s, 'a, X, L> {
    guest: &'s GuestHandle<'a, X, L>,
    first: Pfn,
    /// The machine frames before the failing chunk, as Xen reported them.
    before: &'s [u64],
    /// The old machine frames of the failing chunk, sorted.
    given_up: &'s [u64],
    /// The old machine frames after it.
    after: &'s [u64],
    /// Frames before the chunk that are recorded as Xen reported.
    done: u64,
    /// Frames of the chunk that a new machine frame is mapped for. The P2M has which one.
    found: u64,
    /// Frames after the chunk that are recorded as before.
    kept: u64,
    /// Nothing is believed of the chunk: two frames of the domain claim one place, for example.
    doubtful: bool,
}

impl<X: Xen, L: LinearMapping> RecordedFrames<'_, '_, X, L> {
    /// Takes note of a record.
    fn visit(&mut self, pfn: Pfn, mfn: Mfn) {
        let Some(index) = pfn.number().checked_sub(self.first.number()) else { return };
        let is_at = |list: &[u64], index: u64| {
            usize::try_from(index).ok().and_then(|index| list.get(index)) == Some(&mfn.number())
        };
        let Some(in_rest) = index.checked_sub(self.before.len() as u64) else {
            self.done += u64::from(is_at(self.before, index));
            return;
        };
        if let Some(in_after) = in_rest.checked_sub(self.given_up.len() as u64) {
            self.kept += u64::from(is_at(self.after, in_after));
            return;
        }
        if self.doubtful || self.given_up.binary_search(&mfn.number()).is_ok() {
            return;
        }
        let pte = Pte::new(mfn, self.guest.linear.flags());
        if write(self.guest, pfn, pte).is_err() {
            return;
        }
        self.doubtful = self.guest.p2m.mfn(pfn).is_some();
        self.guest.p2m.set(pfn, Some(mfn));
        self.found += 1;
    }
}

/// Unmaps what the search mapped at a frame. The frame is quarantined: a P2M without it keeps it out
/// of use even if Xen refuses to clear the entry.
fn forget<X: Xen, L: LinearMapping>(guest: &GuestHandle<'_, X, L>, pfn: Pfn) {
    if guest.p2m.mfn(pfn).is_some() {
        let _best_effort = write(guest, pfn, Pte::NOT_PRESENT);
        guest.p2m.set(pfn, None);
    }
}

/// Writes the linear entry of a frame.
fn write<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    pfn: Pfn,
    pte: Pte,
) -> Result<u64, XenErrno> {
    let update = [MmuUpdate::page_table(guest.linear.entry(pfn).get(), pte)];
    // SAFETY: the frame belongs to the transaction's run ([M1](crate::rules#M1)), so no reference or
    // code is in use through its linear address, which the entry maps.
    unsafe { guest.xen.mmu_update(&update, &mut 0, DomId::SELF) }
}
