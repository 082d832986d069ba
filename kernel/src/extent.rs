//! The exchange of a whole run for one extent, and back.

use core::ops::Deref;

use hypercall::Xen;
use xen_contig::addr::{AddressBits, MachineAddr, Mfn, Order};
use xen_contig::exchange::{
    Accounts, ExchangeError, ExchangeFailure, ExchangeOptions, Exchanger, Lists, OnRefusal, Part,
    Placement, Progress,
};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::P2m;
use xen_contig::paging::LinearMapping;

/// A run that one extent backs.
#[derive(Debug)]
#[must_use = "dropping an extent leaks its frames"]
pub struct ExtentRun {
    run: FrameRun,
    mfn: Mfn,
    order: Order,
}

impl ExtentRun {
    /// Returns the guest frames.
    pub const fn run(&self) -> &FrameRun {
        &self.run
    }

    /// Returns the first machine frame. The others follow it.
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// Returns the machine address of the first byte.
    pub const fn machine_addr(&self) -> MachineAddr {
        MachineAddr::of(self.mfn)
    }

    /// Returns the order of the extent.
    pub const fn order(&self) -> Order {
        self.order
    }
}

/// An [`Exchanger`] that can also exchange a whole run for one extent, and back.
#[derive(Debug)]
pub struct WholeRunExchanger<'a, X, L> {
    exchanger: Exchanger<'a, X, L>,
    p2m: P2m<'a>,
    linear: &'a L,
}

impl<'a, X: Xen, L: LinearMapping> WholeRunExchanger<'a, X, L> {
    /// Returns an exchanger for extents up to `limit`.
    ///
    /// # Safety
    /// * `xen`, `p2m` and `linear` belong to the same PV guest, the one that this code runs in.
    /// * Every [`FrameRun`] of the program names frames of that guest.
    pub unsafe fn new(
        xen: &'a X,
        p2m: P2m<'a>,
        linear: &'a L,
        accounts: &'a Accounts,
        limit: Order,
    ) -> Self {
        // SAFETY: the function's requirements are those of `Exchanger::new`.
        let exchanger = unsafe { Exchanger::new(xen, p2m, linear, accounts, limit) };
        Self { exchanger, p2m, linear }
    }

    /// Returns the same exchanger with other options.
    #[must_use]
    pub fn with_options(self, options: ExchangeOptions) -> Self {
        Self { exchanger: self.exchanger.with_options(options), ..self }
    }

    /// Exchanges the machine frames of `run` for one zeroed extent below `2^bits`.
    ///
    /// `list` must have an entry for each frame.
    ///
    /// # Errors
    /// The error of the exchange. The run remains and is zeroed, unless the error reports
    /// quarantine.
    pub fn acquire(
        &self,
        run: FrameRun,
        bits: AddressBits,
        list: &mut [u64],
    ) -> Result<ExtentRun, ExchangeFailure<'a>> {
        let frames = run.frames();
        let order = frames.is_power_of_two().then(|| Order::new(frames.ilog2()).ok()).flatten();
        let Some(order) = order else {
            return Err(failure(ExchangeError::BadSize { frames }, run));
        };
        let part = Part::gather(0, 1, order, Placement::below(bits));
        let run = self.whole(run, part, Lists { backing: list, extents: &mut [0] })?;
        match self.p2m.mfn(run.first()) {
            Some(mfn) => Ok(ExtentRun { run, mfn, order }),
            None => Err(failure(ExchangeError::NotPopulated { pfn: run.first() }, run)),
        }
    }

    /// Exchanges the extent for single frames and returns the run zeroed.
    ///
    /// `list` must have two entries for each frame. If Xen no longer permits the order, the extent
    /// is exchanged frame by frame.
    ///
    /// # Errors
    /// The error of the exchange. The run remains as ordinary memory, unless the error reports
    /// quarantine.
    pub fn release(
        &self,
        extent: ExtentRun,
        list: &mut [u64],
    ) -> Result<FrameRun, ExchangeFailure<'a>> {
        let ExtentRun { run, order, .. } = extent;
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

    /// Exchanges the part and zeroes the run. After a refusal Xen may still have replaced some
    /// frames.
    fn whole(
        &self,
        run: FrameRun,
        part: Part,
        lists: Lists<'_>,
    ) -> Result<FrameRun, ExchangeFailure<'a>> {
        let Progress { run, error, .. } =
            self.exchanger.exchange(run, &[part], OnRefusal::Undo, lists)?;
        // SAFETY: the run is mapped again, and `run` proves that nothing else uses it
        // ([M1](xen_contig::rules#M1)).
        unsafe { self.linear.zero(run.first(), run.frames()) };
        match error {
            Some(error) => Err(failure(error, run)),
            None => Ok(run),
        }
    }
}

impl<'a, X, L> Deref for WholeRunExchanger<'a, X, L> {
    type Target = Exchanger<'a, X, L>;

    fn deref(&self) -> &Self::Target {
        &self.exchanger
    }
}

fn failure<'a>(error: ExchangeError, run: FrameRun) -> ExchangeFailure<'a> {
    ExchangeFailure { error, remaining: run.into() }
}
