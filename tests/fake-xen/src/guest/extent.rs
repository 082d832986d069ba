//! One extent in exchange for a run, and back: the shortest way to contiguous memory, for tests.

#![expect(unsafe_code, reason = "vouches for the model, whose frames are numbers only")]

use std::ops::Deref;

use hypercall::{AddressBits, Mfn, Order, Xen};
use xen_contig::exchange::{
    Accounts, ExchangeError, ExchangeFailure, ExchangeOptions, Exchanger, Lists, OnRefusal, Part,
    Placement, Progress, Refiller, Relocator,
};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::P2m;
use xen_contig::paging::{GuestMemory, LinearMapping};

use super::FakeGuest;
use crate::xen::FakeXen;

/// A run that one extent backs.
#[derive(Debug, PartialEq, Eq)]
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

    /// How many frames, as a power of two.
    pub const fn order(&self) -> Order {
        self.order
    }
}

/// An [`Exchanger`] of a model guest that can also exchange a whole run for one extent, and back.
#[derive(Debug)]
pub struct ExtentExchanger<'a, X, L> {
    exchanger: Exchanger<'a, X, L>,
    p2m: P2m<'a>,
    linear: &'a L,
}

impl FakeGuest {
    /// An exchanger for this guest.
    pub fn exchanger<'a>(
        &'a self,
        accounts: &'a Accounts,
        limit: Order,
    ) -> ExtentExchanger<'a, FakeXen, Self> {
        self.exchanger_via(self.xen(), self, accounts, limit)
    }

    /// The same with something in between: `xen` and `linear` pass on to this guest.
    pub fn exchanger_via<'a, X: Xen, L: LinearMapping>(
        &'a self,
        xen: &'a X,
        linear: &'a L,
        accounts: &'a Accounts,
        limit: Order,
    ) -> ExtentExchanger<'a, X, L> {
        let p2m = self.p2m();
        // SAFETY: all parts are this model's, and runs name its frames, which are numbers only
        // ([M1](xen_contig::rules#M1)).
        let exchanger = unsafe { Exchanger::new(xen, p2m, linear, accounts, limit) };
        ExtentExchanger { exchanger, p2m, linear }
    }

    /// A relocator for this guest, with something in between: `xen` passes on to its hypervisor.
    pub fn relocator_via<'a, X: Xen>(
        &'a self,
        xen: &'a X,
        accounts: &'a Accounts,
    ) -> Relocator<'a, X, Self> {
        // SAFETY: all parts are this model's, and runs name its frames, which are numbers only
        // ([M1](xen_contig::rules#M1)).
        unsafe { Relocator::new(xen, self.p2m(), self, accounts) }
    }

    /// A refiller for this guest.
    pub fn refiller<'a>(
        &'a self,
        accounts: &'a Accounts,
        limit: Order,
    ) -> Refiller<'a, FakeXen, Self> {
        self.refiller_via(self, accounts, limit)
    }

    /// The same with something in between: `memory` passes on to this guest.
    pub fn refiller_via<'a, M: GuestMemory>(
        &'a self,
        memory: &'a M,
        accounts: &'a Accounts,
        limit: Order,
    ) -> Refiller<'a, FakeXen, M> {
        // SAFETY: all parts are this model's, and runs name its frames, which are numbers only
        // ([M1](xen_contig::rules#M1)).
        unsafe { Refiller::new(self.xen(), memory, accounts, limit) }
    }
}

impl<'a, X: Xen, L: LinearMapping> ExtentExchanger<'a, X, L> {
    /// The same with other options.
    #[must_use]
    pub fn with_options(self, options: ExchangeOptions) -> Self {
        Self { exchanger: self.exchanger.with_options(options), ..self }
    }

    /// Exchanges the machine frames of `run` for one extent below `2^bits`, zeroed. `list` has an entry
    /// per frame.
    ///
    /// # Errors
    /// What the exchange returned. The run remains, zeroed, unless the error says quarantine.
    pub fn acquire(
        &self,
        run: FrameRun,
        bits: AddressBits,
        list: &mut [u64],
    ) -> Result<Extent, ExchangeFailure<'a>> {
        let frames = run.frames();
        let order = frames.is_power_of_two().then(|| Order::new(frames.ilog2()).ok()).flatten();
        let Some(order) = order else {
            return Err(failure(ExchangeError::BadSize { frames }, run));
        };
        let part = Part::gather(0, 1, order, Placement::below(bits));
        let run = self.whole(run, part, Lists { backing: list, extents: &mut [0] })?;
        let mfn = self.p2m.mfn(run.first()).expect("an exchanged run is populated");
        Ok(Extent { run, mfn, order })
    }

    /// Exchanges the extent for single frames. The run comes back zeroed. `list` has two entries per
    /// frame. If Xen no longer permits the order ([C04](xen_contig::conformance#C04)), the extent
    /// is given up frame by frame.
    ///
    /// # Errors
    /// What the exchange returned. The run remains as ordinary memory, unless the error says quarantine.
    pub fn release(
        &self,
        extent: Extent,
        list: &mut [u64],
    ) -> Result<FrameRun, ExchangeFailure<'a>> {
        let Extent { run, order, .. } = extent;
        let (frames, len) = (run.frames(), list.len());
        let Some((backing, extents)) = list.split_at_mut_checked(frames as usize) else {
            return Err(failure(ExchangeError::ListTooShort { needed: frames, len }, run));
        };
        let refused = match self.whole(run, Part::scatter(0, order), Lists { backing, extents }) {
            Err(ExchangeFailure {
                error: error @ ExchangeError::OrderNotPermitted { .. },
                remaining,
            }) => remaining.whole().map_err(|remaining| ExchangeFailure { error, remaining })?,
            other => return other,
        };
        let (backing, extents) = list.split_at_mut(frames as usize);
        self.whole(refused, Part::replace(0, frames), Lists { backing, extents })
    }

    /// Exchanges the part, and zeroes the run: part of it may have come from Xen even after a refusal.
    fn whole(
        &self,
        run: FrameRun,
        part: Part,
        lists: Lists<'_>,
    ) -> Result<FrameRun, ExchangeFailure<'a>> {
        let Progress { run, error, .. } =
            self.exchanger.exchange(run, &[part], OnRefusal::Undo, lists)?;
        // SAFETY: the run is mapped again, and nothing else uses the model's frames
        // ([M1](xen_contig::rules#M1)).
        unsafe { self.linear.zero(run.first(), run.frames()) };
        match error {
            Some(error) => Err(failure(error, run)),
            None => Ok(run),
        }
    }
}

impl<'a, X, L> Deref for ExtentExchanger<'a, X, L> {
    type Target = Exchanger<'a, X, L>;

    fn deref(&self) -> &Self::Target {
        &self.exchanger
    }
}

fn failure<'a>(error: ExchangeError, run: FrameRun) -> ExchangeFailure<'a> {
    ExchangeFailure { error, remaining: run.into() }
}
