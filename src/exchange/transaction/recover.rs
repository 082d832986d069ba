//! Finds out which machine frames back a part if Xen's reply does not tell.
//!
//! Xen may have failed past its commit point ([C50](crate::conformance#C50),
//! [C51](crate::conformance#C51), [C52](crate::conformance#C52)), or before it with the same error
//! ([C24](crate::conformance#C24)). Its reply may also contradict itself. Then Xen's M2P decides, frame
//! by frame, and neither the count nor the out-list is believed alone:
//!
//! 1. A frame is *confirmed* if the M2P records for it the machine frame that `backing` names: the one
//!    that Xen reported, or the old one. Xen removes the record of a frame that it frees, so a record of
//!    an old frame means that it was not exchanged.
//! 2. For the other frames, each machine frame with a record that names them is a *candidate*. Xen is
//!    asked to map it. Guests number their frames from 0, so most candidates are frames of other
//!    domains; Xen refuses those. A mapping is a reference, so a candidate that Xen accepts stays the
//!    domain's.
//! 3. A candidate is confirmed if the M2P still records it when all are mapped. Between the search and
//!    the mapping, another vCPU may have received a frame that was another guest's.
//!
//! A frame with no confirmed machine frame, or with two candidates that Xen accepts, is unknown
//! ([M6](crate::rules#M6)). A confirmed frame is mapped with the rest of the run, where Xen checks once
//! more that it is the domain's.

use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};

use super::entries::UNKNOWN;
use crate::addr::{Mfn, Pfn};
use crate::exchange::error::ExchangeError;
use crate::exchange::guest::GuestHandle;
use crate::exchange::reply::FRAME_LIMIT;
use crate::paging::LinearMapping;

/// Xen failed, perhaps past its commit point, or its reply contradicts itself. It is asked to exchange
/// nothing more. Frames whose machine frame is unknown are marked in the list `backing`.
pub(super) struct TornExchange {
    /// What is reported.
    pub error: ExchangeError,
}

/// Marks an entry of `backing` while the search runs: the M2P confirms it. No frame number is that
/// high.
const CONFIRMED: u64 = 1 << 63;

/// Finds out which machine frames back the frames from `first` on, and writes them to `backing`. Frames
/// of which that is unknown are [`UNKNOWN`] there.
///
/// `backing` has the machine frames that Xen reported, as far as it did, and the old ones.
#[cold]
pub(super) fn recover<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    first: Pfn,
    backing: &mut [u64],
) {
    for entry in backing.iter_mut().filter(|entry| **entry >= FRAME_LIMIT) {
        // No record is that high, so the frame is searched for.
        *entry = FRAME_LIMIT;
    }
    let mut search = M2pSearch { guest, first, backing };
    search.each_record(|search, index, mfn| {
        if search.backing[index] == mfn.number() {
            search.backing[index] |= CONFIRMED;
        }
    });
    if !search.backing.iter().all(|entry| is_confirmed(*entry)) {
        search.each_record(M2pSearch::try_candidate);
        search.each_record(|search, index, mfn| {
            if search.backing[index] != UNKNOWN && search.candidate(index) == Some(mfn) {
                search.backing[index] = mfn.number() | CONFIRMED;
            }
        });
    }
    search.finish();
}

/// Returns true if the M2P confirms an entry of `backing`.
const fn is_confirmed(entry: u64) -> bool {
    entry != UNKNOWN && entry & CONFIRMED != 0
}

/// A search of Xen's M2P for the machine frames of a part.
struct M2pSearch<'s, 'a, X, L> {
    guest: &'s GuestHandle<'a, X, L>,
    first: Pfn,
    backing: &'s mut [u64],
}

impl<X: Xen, L: LinearMapping> M2pSearch<'_, '_, X, L> {
    /// Calls `visit` with each record of the M2P that names a frame of the part, and with the place of
    /// that frame in the part.
    fn each_record(&mut self, mut visit: impl FnMut(&mut Self, usize, Mfn)) {
        let (guest, first, frames) = (self.guest, self.first, self.backing.len() as u64);
        guest.linear.on_record(first, frames, &mut |pfn, mfn| {
            let index = pfn.number().checked_sub(first.number());
            if let Some(index) = index.filter(|index| *index < frames)
                && mfn.number() < FRAME_LIMIT
            {
                visit(self, index as usize, mfn);
            }
        });
    }

    /// Returns the frame's candidate that Xen has mapped. The P2M notes it.
    fn candidate(&self, index: usize) -> Option<Mfn> {
        self.guest.p2m.mfn(self.pfn(index))
    }

    fn pfn(&self, index: usize) -> Pfn {
        self.first.add(index as u64)
    }

    /// Asks Xen to map a candidate of a frame that is not confirmed. If Xen has already accepted
    /// another one, neither is believed.
    fn try_candidate(&mut self, index: usize, mfn: Mfn) {
        let entry = self.backing[index];
        if is_confirmed(entry) || entry == UNKNOWN {
            return;
        }
        let pte = Pte::new(mfn, self.guest.linear.flags());
        if write(self.guest, self.pfn(index), pte).is_err() {
            return;
        }
        if self.candidate(index).is_some() {
            self.backing[index] = UNKNOWN;
        }
        self.guest.p2m.set(self.pfn(index), Some(mfn));
    }

    /// Removes the marks, and unmaps the candidates that are not believed.
    fn finish(self) {
        let mut forgotten = 0;
        for index in 0..self.backing.len() {
            if is_confirmed(self.backing[index]) {
                self.backing[index] &= !CONFIRMED;
                continue;
            }
            self.backing[index] = UNKNOWN;
            if self.candidate(index).is_some() {
                let pfn = self.pfn(index);
                // The frame is quarantined. A P2M without it keeps it out of use even if Xen refuses to
                // clear the entry.
                let _best_effort = write(self.guest, pfn, Pte::NOT_PRESENT);
                self.guest.p2m.set(pfn, None);
                forgotten += 1;
            }
        }
        if forgotten > 0 {
            // A vCPU may remember a mapping that the search made. Nothing accesses quarantined frames,
            // so it does no harm if Xen refuses the flush.
            let GuestHandle { xen, linear, .. } = self.guest;
            // SAFETY: `Exchanger::new` requires that `xen` and `linear` belong to the same guest.
            let _best_effort = unsafe { linear.flushes().flush_all(*xen) };
        }
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
