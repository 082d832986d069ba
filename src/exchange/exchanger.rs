//! The exchange in a PV guest.

use hypercall::Xen;
use hypercall::trace::{Phase, Span};

use super::accounts::Accounts;
use super::failure::ExchangeFailure;
use super::guest::GuestHandle;
use super::options::{ExchangeOptions, Fuse, Scrub};
use super::part::Part;
use super::request::{Lists, OnRefusal, Progress, check};
use super::scattered_frames::ScatteredFrames;
use super::transaction::{Prepared, ScatteredExchange};
use crate::addr::Order;
use crate::frames::FrameRun;
use crate::p2m::P2m;
use crate::paging::LinearMapping;

/// Exchanges the machine frames that back runs of guest frames, in a PV guest.
#[derive(Debug)]
pub struct Exchanger<'a, X, L> {
    guest: GuestHandle<'a, X, L>,
    limit: Order,
    options: ExchangeOptions,
}

// Not derived: a derive would also require `X: Clone` and `L: Clone`, which are only borrowed.
impl<X, L> Clone for Exchanger<'_, X, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X, L> Copy for Exchanger<'_, X, L> {}

impl<'a, X: Xen, L: LinearMapping> Exchanger<'a, X, L> {
    /// Returns an exchanger for extents up to `limit`
    /// ([`Capability::Exchange`](super::Capability::Exchange)).
    ///
    /// # Safety
    /// * `xen`, `p2m` and `linear` belong to the same PV guest, the one that this code runs in.
    /// * Every [`FrameRun`] of the program names frames of that guest.
    pub const unsafe fn new(
        xen: &'a X,
        p2m: P2m<'a>,
        linear: &'a L,
        accounts: &'a Accounts,
        limit: Order,
    ) -> Self {
        let options = ExchangeOptions { fuse: Fuse::On, scrub: Scrub::ByGuest };
        Self { guest: GuestHandle { xen, p2m, linear, accounts }, limit, options }
    }

    /// Returns the same exchanger with other options.
    #[must_use]
    pub const fn with_options(self, options: ExchangeOptions) -> Self {
        Self { options, ..self }
    }

    /// Returns the highest order of an extent.
    pub const fn limit(&self) -> Order {
        self.limit
    }

    /// Exchanges the machine frames that back the given parts of a run, one part per hypercall.
    ///
    /// The run is unmapped once and mapped once, with one flush in all ([F2](crate::rules#F2)). The last
    /// batch of unmapping, the flush and the first part share a multicall, unless [`Fuse::Off`] is
    /// chosen. So a run of up to 512 frames and one part takes two hypercalls.
    ///
    /// Frames that no part names keep their machine frames. The content of the run is lost. Memory that
    /// comes from Xen may hold anything ([C56](crate::conformance#C56)): the caller zeroes the frames
    /// that [`Progress::done`] counts. In all other frames of the run, and in what remains after a
    /// failure, nothing is left that came from Xen.
    ///
    /// Makes hypercalls that take time in proportion to the run, so it must not be called in an
    /// interrupt handler or under a lock of the kernel's. It takes no lock of its own, and several vCPUs
    /// may exchange different runs at the same time.
    ///
    /// # Errors
    /// * Before anything moves: a part or a list does not fit the run, an order is above the limit, a
    ///   part gives up an extent but is not backed by one, a frame is not populated or in use. The run
    ///   remains as it was.
    /// * Xen refused a page-table write or the flush. What was exchanged in the same multicall is
    ///   undone, or quarantined if there was no flush. A frame that Xen refuses to map again is
    ///   quarantined; the others remain.
    /// * Xen failed, perhaps past its commit point. Frames whose machine frame is unknown are
    ///   quarantined ([M6](crate::rules#M6)); the others remain.
    ///
    /// If Xen refuses a part, this returns `Ok` with the cause in [`Progress::error`]. To find the cause,
    /// the library may exchange one frame of the run for another.
    pub fn exchange(
        &self,
        run: FrameRun,
        parts: &[Part],
        on_refusal: OnRefusal,
        lists: Lists<'_>,
    ) -> Result<Progress, ExchangeFailure<'a>> {
        let xen = self.guest.xen;
        let checked =
            xen.within(Span::Phase(Phase::Plan), || check(&run, parts, &lists, self.limit));
        if let Err(error) = checked {
            return Err(ExchangeFailure::without_loss(error, run));
        }
        let ExchangeOptions { fuse, scrub } = self.options;
        let prepared = Prepared::new(self.guest, run, parts, lists, scrub)?;
        let exchanged = match fuse {
            Fuse::On => prepared.detach_and_exchange(parts)?,
            Fuse::Off => {
                let detached = prepared.detach()?;
                xen.within(Span::Phase(Phase::Exchange), || detached.exchange(parts))
            }
        };
        let exchanged = match on_refusal {
            OnRefusal::Undo => exchanged.undo(parts),
            OnRefusal::Return => exchanged,
        };
        exchanged.attach(parts)
    }

    /// Exchanges a run and frames elsewhere for the extents of a part, by one hypercall. The first `used`
    /// frames of each extent become the run; the surplus becomes the other frames.
    ///
    /// As [`exchange`](Self::exchange), it must not be called in an interrupt handler or under a lock.
    /// What Xen exchanged before a refusal is kept.
    pub(crate) fn exchange_scattered(
        &self,
        run: FrameRun,
        others: &mut ScatteredFrames<'_>,
        part: &Part,
        used: u64,
        lists: Lists<'_>,
    ) -> ScatteredExchange<'a> {
        self.guest.exchange_scattered(run, others, part, used, lists, self.options.scrub)
    }
}
