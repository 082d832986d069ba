//! The exchange in a PV guest.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hypercall::Xen;

use super::transaction::{Extents, Mapped};
use super::{ExchangeError, ExchangeFailure, Plan};
use crate::addr::{AddressBits, MachineAddr, Mfn, Order};
use crate::frames::FrameRun;
use crate::p2m::P2m;
use crate::paging::LinearMapping;

/// Frames that a failure left in nobody's hands (M1, M6).
#[derive(Debug, Default)]
pub struct Accounts {
    quarantined: AtomicU64,
}

impl Accounts {
    /// Nothing lost yet.
    pub const fn new() -> Self {
        Self { quarantined: AtomicU64::new(0) }
    }

    /// How many frames are quarantined.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Relaxed)
    }

    pub(super) fn quarantine(&self, frames: u64) {
        self.quarantined.fetch_add(frames, Relaxed);
    }
}

/// A run whose machine frames are one extent.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an extent that is dropped is lost; give it back with Exchanger::release"]
pub struct Extent {
    run: FrameRun,
    mfn: Mfn,
    order: Order,
}

impl Extent {
    /// The guest frames.
    pub const fn run(&self) -> &FrameRun {
        &self.run
    }

    /// The first machine frame; the others follow it.
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// The machine address of the first byte.
    pub const fn machine_addr(&self) -> MachineAddr {
        MachineAddr::of(self.mfn)
    }

    /// How many frames, as a power of two.
    pub const fn order(&self) -> Order {
        self.order
    }
}

/// Makes runs of guest frames contiguous in the machine, and ordinary again.
#[derive(Debug)]
pub struct Exchanger<'a, X, L> {
    pub(super) xen: &'a X,
    pub(super) p2m: &'a P2m<'a>,
    pub(super) linear: &'a L,
    pub(super) accounts: &'a Accounts,
    limit: Order,
}

// Not derived: a derive would ask the same of X and L, which are only borrowed.
impl<X, L> Clone for Exchanger<'_, X, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X, L> Copy for Exchanger<'_, X, L> {}

impl<'a, X: Xen, L: LinearMapping> Exchanger<'a, X, L> {
    /// An exchanger for a guest whose frames `p2m` and `linear` describe, with extents up to
    /// `limit` (see [`order_limit`](super::order_limit)).
    pub const fn new(
        xen: &'a X,
        p2m: &'a P2m<'a>,
        linear: &'a L,
        accounts: &'a Accounts,
        limit: Order,
    ) -> Self {
        Self { xen, p2m, linear, accounts, limit }
    }

    /// The same with another limit, for those who want Xen's own answer above the limit.
    #[must_use]
    pub const fn with_limit(self, limit: Order) -> Self {
        Self { limit, ..self }
    }

    /// Swaps the machine frames beneath `run` for one contiguous extent below `2^bits`, zeroed.
    ///
    /// `list` is lent for the time of the call, an entry per frame. It must be memory that Xen can
    /// read, which any mapped memory of the guest outside the run is (M3).
    ///
    /// # Errors
    /// Why not; the run comes back as it was, but for its content, which is zeroed, and except
    /// where the error says quarantine.
    pub fn acquire(
        &self,
        run: FrameRun,
        bits: AddressBits,
        list: &mut [u64],
    ) -> Result<Extent, ExchangeFailure> {
        let checked = Plan::new(run.frames(), bits, self.limit)
            .and_then(|plan| check_list(&run, list).map(|()| plan));
        let plan = match checked {
            Ok(plan) => plan,
            Err(error) => return Err(ExchangeFailure { error, run: Some(run) }),
        };
        let frames = run.frames() as usize;
        let mut out = [run.first().number()];
        let detached = Mapped { exchanger: *self, run }.detach(&mut list[..frames])?;
        let output = Extents { list: &mut out, order: plan.order };
        let run = detached.swap(None, output, bits, |out, index| {
            out.first().map(|first| Mfn::new(*first).add(index))
        })?;
        // SAFETY: the run is mapped again and in our hands alone (M1); what another domain may
        // have left there ends here (C56).
        unsafe { self.linear.zero(run.first(), run.frames()) };
        Ok(Extent { run, mfn: Mfn::new(out[0]), order: plan.order })
    }

    /// Swaps the extent back for single frames, wherever they are: the mirror image of
    /// [`acquire`](Self::acquire). The run comes back zeroed.
    ///
    /// # Errors
    /// Why not. The run is in the error, except where that says quarantine; its memory is ordinary
    /// memory either way, it merely stays contiguous.
    pub fn release(&self, extent: Extent, list: &mut [u64]) -> Result<FrameRun, ExchangeFailure> {
        let Extent { run, mfn, order } = extent;
        let frames = run.frames() as usize;
        if list.len() < 2 * frames {
            let error = ExchangeError::ListTooShort { needed: 2 * frames as u64, len: list.len() };
            return Err(ExchangeFailure { error, run: Some(run) });
        }
        let (old, rest) = list.split_at_mut(frames);
        let out = &mut rest[..frames];
        for (pfn, slot) in run.iter().zip(out.iter_mut()) {
            *slot = pfn.number();
        }
        let detached = Mapped { exchanger: *self, run }.detach(old)?;
        let mut input = [mfn.number()];
        let input = Extents { list: &mut input, order };
        let output = Extents { list: out, order: Order::ZERO };
        let run = detached.swap(Some(input), output, AddressBits::UNLIMITED, |out, index| {
            out.get(index as usize).copied().map(Mfn::new)
        })?;
        // SAFETY: as in `acquire`.
        unsafe { self.linear.zero(run.first(), run.frames()) };
        Ok(run)
    }
}

fn check_list(run: &FrameRun, list: &[u64]) -> Result<(), ExchangeError> {
    if (list.len() as u64) < run.frames() {
        return Err(ExchangeError::ListTooShort { needed: run.frames(), len: list.len() });
    }
    Ok(())
}
