//! The state in which no page-table entry maps the run, and the state before it.

use core::ops::Range;

use hypercall::Xen;
use hypercall::trace::{Phase, Span};

use super::mapping;
use super::tables::Tables;
use crate::addr::Order;
use crate::exchange::accounts::UnwindGuard;
use crate::exchange::error::ExchangeError;
use crate::exchange::failure::{ExchangeFailure, Remaining};
use crate::exchange::guest::GuestHandle;
use crate::exchange::options::Scrub;
use crate::exchange::part::Part;
use crate::exchange::request::Lists;
use crate::frames::FrameRun;
use crate::paging::{FrameInUse, LinearMapping};

/// A run that only the linear mapping maps. Its content is zeroed, unless Xen scrubs it.
pub(in crate::exchange) struct Prepared<'t, 'a, X, L>(pub(super) Detached<'t, 'a, X, L>);

/// A run that no page-table entry maps ([M2](crate::rules#M2)).
pub(in crate::exchange) struct Detached<'t, 'a, X, L> {
    pub(super) guest: GuestHandle<'a, X, L>,
    pub(super) run: FrameRun,
    /// The machine frame that backs each frame of the run, or [`UNKNOWN`](super::entries::UNKNOWN).
    pub(super) backing: &'t mut [u64],
    /// Room for the longest out-list.
    pub(super) out_list: &'t mut [u64],
    /// The stretch, counted from the first of the run, in which all frames lie that Xen may have
    /// exchanged.
    pub(super) moved: Range<u64>,
    pub(super) tables: Tables,
    pub(super) guard: UnwindGuard<'a>,
}

impl<'t, 'a, X: Xen, L: LinearMapping> Prepared<'t, 'a, X, L> {
    /// Prepares a run. The parts and the lists fit it.
    ///
    /// # Errors
    /// The P2M has no machine frame for a frame; a part gives up an extent, but consecutive machine
    /// frames do not back it; a frame is in use. The run is as it was.
    pub fn new(
        guest: GuestHandle<'a, X, L>,
        run: FrameRun,
        parts: &[Part],
        lists: Lists<'t>,
        scrub: Scrub,
    ) -> Result<Self, ExchangeFailure<'a>> {
        let Lists { backing, extents: out_list } = lists;
        let backing = &mut backing[..run.frames() as usize];
        let GuestHandle { xen, accounts, .. } = guest;
        let free = note_backing(&guest, &run, backing)
            .and_then(|()| parts.iter().try_for_each(|part| is_extent(&run, part, backing)))
            // The flush that follows covers these addresses, too ([F5](crate::rules#F5)).
            .and_then(|()| xen.within(Span::Phase(Phase::Purge), || purge(&guest, &run)));
        if let Err(error) = free {
            return Err(ExchangeFailure::without_loss(error, run));
        }
        if scrub == Scrub::ByGuest {
            // SAFETY: the run is populated and mapped, and `run` proves that nothing else uses it
            // ([M1](crate::rules#M1)). Xen would pass the content on.
            xen.within(Span::Phase(Phase::Zero), || unsafe {
                guest.linear.zero(run.first(), run.frames())
            });
        }
        let guard = UnwindGuard::new(accounts, run.frames());
        let (moved, tables) = (0..0, Tables::Hooked);
        Ok(Self(Detached { guest, run, backing, out_list, moved, tables, guard }))
    }

    /// Takes the run out of the linear mapping, and flushes.
    ///
    /// # Errors
    /// Xen refused a page-table write or the flush. The run is mapped again as it was.
    pub fn detach(self) -> Result<Detached<'t, 'a, X, L>, ExchangeFailure<'a>> {
        let Self(mut detached) = self;
        match detached.guest.xen.within(Span::Phase(Phase::Detach), || detached.clear()) {
            Ok(()) => Ok(detached),
            Err(error) => Err(detached.restore(error)),
        }
    }
}

impl<'a, X: Xen, L: LinearMapping> Detached<'_, 'a, X, L> {
    /// Clears the page-table entries of the run, forgets its machine frames, and flushes.
    fn clear(&mut self) -> Result<(), ExchangeError> {
        self.tables = Tables::Unsure;
        mapping::clear(&self.guest, &self.run)?;
        self.tables = Tables::Unhooked;
        self.forget_backing();
        self.flush()
    }

    /// Takes the machine frames of the run out of the P2M.
    pub(super) fn forget_backing(&self) {
        self.guest.p2m.set_run(self.run.first(), self.run.iter().map(|_| None));
    }

    /// Has Xen flush every vCPU: the one flush ([F2](crate::rules#F2)), and the last operation before
    /// Xen gets the run.
    pub(super) fn flush(&self) -> Result<(), ExchangeError> {
        let GuestHandle { xen, linear, .. } = self.guest;
        // SAFETY: `Exchanger::new` requires that `xen` and `linear` belong to the same guest.
        let flushed = unsafe { linear.flushes().flush_all(xen) };
        flushed.map_err(|errno| ExchangeError::Flush { errno })
    }

    /// Maps the run again after a failure in which no frame moved.
    #[cold]
    pub(super) fn restore(self, error: ExchangeError) -> ExchangeFailure<'a> {
        let Self { guest, run, backing, tables, guard, .. } = self;
        let mapping = mapping::map(&guest, &run, backing, tables);
        guard.disarm();
        guest.accounts.quarantine(mapping.lost);
        let remaining = Remaining::in_p2m(run, mapping.lost, guest.p2m);
        ExchangeFailure { error: mapping.error.unwrap_or(error), remaining }
    }
}

/// Writes down which machine frame backs each frame of the run.
pub(super) fn note_backing<X, L>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
    backing: &mut [u64],
) -> Result<(), ExchangeError> {
    let mut mfns = guest.p2m.mfns(run.first(), run.frames());
    for (pfn, slot) in run.iter().zip(backing) {
        let mfn = mfns.next().flatten().ok_or(ExchangeError::NotPopulated { pfn })?;
        *slot = mfn.number();
    }
    Ok(())
}

/// Checks that a part which gives up extents is backed by them. Xen takes the machine frames that
/// follow the first: if others backed the part, Xen would take frames that the guest still uses
/// ([M4](crate::rules#M4)).
fn is_extent(run: &FrameRun, part: &Part, backing: &[u64]) -> Result<(), ExchangeError> {
    if part.input() == Order::ZERO {
        return Ok(());
    }
    let order = part.input();
    let backing = &backing[part.first() as usize..][..part.frames() as usize];
    let mut pfn = run.first().add(part.first());
    for extent in backing.chunks_exact(order.frames() as usize) {
        let breaks = |pair: &[u64]| pair[0].checked_add(1) != Some(pair[1]);
        if let Some(index) = extent.windows(2).position(breaks) {
            let pfn = pfn.add(index as u64 + 1);
            return Err(ExchangeError::NotContiguous { pfn, order });
        }
        pfn = pfn.add(order.frames());
    }
    Ok(())
}

/// Has the kernel drop the aliases of the run that nothing uses any more.
pub(super) fn purge<X, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
) -> Result<(), ExchangeError> {
    guest.linear.purge(run).map_err(|FrameInUse { pfn, holder }| {
        let mfn = guest.p2m.mfn(pfn);
        ExchangeError::FrameBusy { pfn, mfn, holder }
    })
}
