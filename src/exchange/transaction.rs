//! The states that a run goes through in a PV guest. Each step takes the state and gives the next.
//!
//! ```text
//! Mapped::detach    zap the linear PTEs, forget the frames, one flush of all vCPUs by Xen
//! Detached::swap    XENMEM_exchange, the answer decoded totally
//! attach            P2M and PTEs to whatever lies beneath the run now; success and failure alike
//! ```

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemFlags, MemoryOp, MmuExtOp, Pte};
use hypercall::{DomId, Xen, XenErrno};

use super::{ExchangeError, ExchangeFailure, Exchanger, Outcome, decode};
use crate::addr::{AddressBits, Mfn, Order, Pfn};
use crate::frames::FrameRun;
use crate::paging::{LinearMapping, PteBatch, PteError};

/// A run that the linear mapping maps, and nothing else does.
pub(super) struct Mapped<'t, X, L> {
    pub exchanger: Exchanger<'t, X, L>,
    pub run: FrameRun,
}

/// A run that nothing maps (M2). Dropping it maps the old frames back.
pub(super) struct Detached<'t, X: Xen, L: LinearMapping> {
    exchanger: Exchanger<'t, X, L>,
    /// `None` once the next state has it.
    run: Option<FrameRun>,
    /// The machine frames that were beneath the run.
    old: &'t mut [u64],
}

/// The extents that go in or come out, as Xen takes them.
pub(super) struct Extents<'l> {
    /// Machine frames on the way in, guest frames on the way out.
    pub list: &'l mut [u64],
    /// The order of each.
    pub order: Order,
}

impl<'t, X: Xen, L: LinearMapping> Mapped<'t, X, L> {
    /// Takes the run out of the linear mapping. `old` receives the machine frames beneath it; it
    /// has an entry per frame.
    pub fn detach(self, old: &'t mut [u64]) -> Result<Detached<'t, X, L>, ExchangeFailure> {
        let Self { exchanger, run } = self;
        for (pfn, slot) in run.iter().zip(old.iter_mut()) {
            match exchanger.p2m.mfn(pfn) {
                Some(mfn) => *slot = mfn.number(),
                None => {
                    let error = ExchangeError::NotPopulated { pfn };
                    return Err(ExchangeFailure { error, run: Some(run) });
                }
            }
        }
        // SAFETY: the run is ours alone (M1) and still mapped. What it holds goes to Xen, which
        // scrubs it from 4.17 on; before that it would go to the next domain.
        unsafe { exchanger.linear.zero(run.first(), run.frames()) };

        // From here on a return by `?` or otherwise restores, by Detached's Drop.
        let detached = Detached { exchanger, run: Some(run), old };
        match detached.zap() {
            Ok(()) => Ok(detached),
            Err(error) => Err(detached.restore(error)),
        }
    }
}

impl<X: Xen, L: LinearMapping> Detached<'_, X, L> {
    fn zap(&self) -> Result<(), ExchangeError> {
        let Some(run) = &self.run else { return Ok(()) };
        let Exchanger { xen, p2m, linear, .. } = self.exchanger;
        let mut batch = PteBatch::new(xen, run.first());
        for pfn in run.iter() {
            // SAFETY: the run is in the transaction's hands (M1): no Rust object lies in it.
            unsafe { batch.write(linear.entry(pfn), Pte::NOT_PRESENT) }
                .map_err(ExchangeError::PageTable)?;
        }
        // SAFETY: as above.
        unsafe { batch.issue() }.map_err(ExchangeError::PageTable)?;
        for pfn in run.iter() {
            p2m.set(pfn, None);
        }
        // Flush rule 2: the one flush, of every vCPU, and the last thing before Xen gets the run.
        let mut done = 0;
        // SAFETY: a flush changes no mapping.
        unsafe { xen.mmuext_op(&[MmuExtOp::tlb_flush_all()], &mut done, DomId::SELF) }
            .map_err(|errno| ExchangeError::Flush { errno })?;
        Ok(())
    }

    /// Has Xen swap `input` for `output` in one chunk, then maps what came: the new frames, or on
    /// refusal the old ones. `came` tells the new frames from the out list.
    pub fn swap(
        mut self,
        input: Option<Extents<'_>>,
        output: Extents<'_>,
        bits: AddressBits,
        came: impl Fn(&[u64], u64) -> Option<Mfn>,
    ) -> Result<FrameRun, ExchangeFailure> {
        let (in_order, in_list) = match input {
            Some(extents) => (extents.order, extents.list),
            None => (Order::ZERO, &mut *self.old),
        };
        let requested = in_list.len() as u64;
        let first_out = output.list.first().copied();
        let reservation = |list: &mut [u64], order: Order, mem_flags: MemFlags| MemoryReservation {
            extent_start: list.as_mut_ptr(),
            nr_extents: list.len() as u64,
            extent_order: order.get(),
            mem_flags: mem_flags.raw(),
            domid: DomId::SELF,
        };
        let mut exchange = MemoryExchange {
            input: reservation(in_list, in_order, MemFlags::default()),
            output: reservation(output.list, output.order, MemFlags::address_bits(bits)),
            nr_exchanged: 0,
        };
        // SAFETY: the lists and the struct are Rust objects, so they lie outside the run, which by
        // M1 holds none (M3); both are exclusively borrowed across the call. Nothing maps the run
        // (M2), and the flush of `zap` has made every vCPU forget that it did.
        let rc = unsafe { self.exchanger.xen.memory_op(MemoryOp::Exchange(&mut exchange)) };
        let out_untouched = output.list.first().copied() == first_out;
        match decode(rc, exchange.nr_exchanged, requested, out_untouched) {
            Outcome::Untouched(errno) => {
                let error = self.explain(errno, in_order.max(output.order), bits);
                Err(self.restore(error))
            }
            Outcome::Torn(errno) => {
                let exchanged = exchange.nr_exchanged;
                Err(self.quarantine(ExchangeError::Torn { errno, exchanged }))
            }
            Outcome::Exchanged => {
                let order = output.order;
                let bad = output.list.iter().map(|number| Mfn::new(*number)).find(|mfn| {
                    let end = mfn.number().checked_add(order.frames());
                    !mfn.is_aligned(order) || end.is_none_or(|end| end > bits.frame_limit())
                });
                if let Some(mfn) = bad {
                    return Err(self.quarantine(ExchangeError::BadExtent { mfn, order, bits }));
                }
                let Some(run) = self.run.take() else {
                    unreachable!("only the transitions, which consume self, take the run");
                };
                let list = &*output.list;
                match attach(&self.exchanger, &run, |index| came(list, index)) {
                    Ok(()) => Ok(run),
                    Err(error) => {
                        self.exchanger.accounts.quarantine(run.frames());
                        Err(ExchangeFailure { error: ExchangeError::PageTable(error), run: None })
                    }
                }
            }
        }
    }

    /// Says what a refusal meant. `EPERM` has two causes, told apart by asking again.
    fn explain(&self, errno: XenErrno, order: Order, bits: AddressBits) -> ExchangeError {
        let run = self.run.as_ref();
        match errno {
            XenErrno::EPERM => match super::order_permitted(self.exchanger.xen, order) {
                Ok(()) => ExchangeError::NotPermitted,
                Err(_) => ExchangeError::OrderNotPermitted { order },
            },
            XenErrno::EINVAL => ExchangeError::FrameRefused {
                first: run.map_or(Pfn::new(0), FrameRun::first),
                frames: run.map_or(0, FrameRun::frames),
            },
            XenErrno::ENOMEM => ExchangeError::NoMemory { order, bits },
            XenErrno::EOPNOTSUPP => ExchangeError::TranslatedGuest,
            errno => ExchangeError::Refused { errno },
        }
    }

    /// Maps the old frames back and says why it came to that (M6).
    fn restore(mut self, error: ExchangeError) -> ExchangeFailure {
        let Some(run) = self.run.take() else { return ExchangeFailure { error, run: None } };
        match self.put_back(&run) {
            Ok(()) => ExchangeFailure { error, run: Some(run) },
            Err(page_table) => {
                self.exchanger.accounts.quarantine(run.frames());
                ExchangeFailure { error: ExchangeError::PageTable(page_table), run: None }
            }
        }
    }

    fn put_back(&self, run: &FrameRun) -> Result<(), PteError> {
        attach(&self.exchanger, run, |index| self.old.get(index as usize).copied().map(Mfn::new))
    }

    /// Leaves the run unmapped for good: nobody knows what is beneath it (M6).
    fn quarantine(mut self, error: ExchangeError) -> ExchangeFailure {
        if let Some(run) = self.run.take() {
            self.exchanger.accounts.quarantine(run.frames());
        }
        ExchangeFailure { error, run: None }
    }
}

impl<X: Xen, L: LinearMapping> Drop for Detached<'_, X, L> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            // The owner is gone with the state, so the frames stay mapped but belong to nobody.
            let _restored = self.put_back(&run);
            self.exchanger.accounts.quarantine(run.frames());
        }
    }
}

/// Maps `beneath(i)` at frame *i* of the run and records it: the one way in for new frames and for
/// old ones. Turns not-present entries into present ones, so there is nothing to flush.
fn attach<X: Xen, L: LinearMapping>(
    exchanger: &Exchanger<'_, X, L>,
    run: &FrameRun,
    beneath: impl Fn(u64) -> Option<Mfn>,
) -> Result<(), PteError> {
    let Exchanger { xen, p2m, linear, .. } = *exchanger;
    let mut batch = PteBatch::new(xen, run.first());
    for (index, pfn) in run.iter().enumerate() {
        let Some(mfn) = beneath(index as u64) else {
            return Err(PteError { pfn, errno: XenErrno::EINVAL });
        };
        p2m.set(pfn, Some(mfn));
        // SAFETY: nothing uses the run (M2); the frame beneath it is the domain's, by Xen's word.
        unsafe { batch.write(linear.entry(pfn), Pte::new(mfn, linear.flags()))? };
    }
    // SAFETY: as above.
    unsafe { batch.issue() }
}
