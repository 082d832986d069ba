//! Contiguous machine memory beneath a run of a translated guest.
//!
//! Xen refuses the exchange there and never tells a machine frame. What is left is to give the
//! frames up (`XENMEM_decrease_reservation`) and to have their places populated again with one
//! extent (`XENMEM_populate_physmap`). In between the guest has a hole, and Xen may not be able to
//! fill it: then it is filled frame by frame, and what can't be is accounted for by name (C77).

use core::fmt;

use hypercall::abi::memory::MemoryReservation;
use hypercall::ops::{MemFlags, MemoryOp};
use hypercall::{DomId, Xen, XenErrno};

use super::{Accounts, ExchangeError, Plan, order_permitted};
use crate::addr::{AddressBits, Order, Pfn};
use crate::frames::FrameRun;
use crate::paging::{GuestMemory, Held};

/// A refill that did not happen, and what became of the run.
#[derive(Debug, PartialEq, Eq)]
pub struct RefillFailure {
    /// Why.
    pub error: ExchangeError,
    /// The run, populated, if every frame could be brought back; its content is zeroed where it
    /// was given up.
    pub run: Option<FrameRun>,
    /// The first frame that could not, if there is one, and how many could not.
    pub lost: Option<(Pfn, u64)>,
}

impl fmt::Display for RefillFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.lost {
            None => Ok(()),
            Some((pfn, frames)) => write!(f, "; {frames} frames from pfn {pfn} on are lost"),
        }
    }
}

impl core::error::Error for RefillFailure {}

/// Refills runs of a translated guest with contiguous machine memory.
#[derive(Clone, Copy, Debug)]
pub struct Refiller<'a, X, M> {
    xen: &'a X,
    memory: &'a M,
    accounts: &'a Accounts,
    limit: Order,
}

impl<'a, X: Xen, M: GuestMemory> Refiller<'a, X, M> {
    /// A refiller with extents up to `limit`.
    pub const fn new(xen: &'a X, memory: &'a M, accounts: &'a Accounts, limit: Order) -> Self {
        Self { xen, memory, accounts, limit }
    }

    /// The highest order of an extent.
    pub const fn limit(&self) -> Order {
        self.limit
    }

    /// Puts one extent of machine memory below `2^bits` beneath `run`, zeroed.
    ///
    /// A frame that the kernel says is in use ([`GuestMemory::purge`]) is not given up.
    ///
    /// A run that is aligned to 2 MiB lets Xen map it with superpages. `list` is lent for the time
    /// of the call, an entry per frame.
    ///
    /// # Errors
    /// Why not, and what became of the run.
    pub fn refill(
        &self,
        run: FrameRun,
        bits: AddressBits,
        list: &mut [u64],
    ) -> Result<FrameRun, RefillFailure> {
        let plan = match Plan::new(run.frames(), bits, self.limit) {
            Ok(plan) if list.len() as u64 >= run.frames() => plan,
            Ok(_) => {
                let error = ExchangeError::ListTooShort { needed: run.frames(), len: list.len() };
                return Err(RefillFailure { error, run: Some(run), lost: None });
            }
            Err(error) => return Err(RefillFailure { error, run: Some(run), lost: None }),
        };
        // Xen takes a frame from under whoever else has it, a peer with a grant among them (C76). So
        // nobody but the kernel can say that one is in use.
        if let Err(Held { pfn, holder }) = self.memory.purge(&run) {
            let error = ExchangeError::FrameBusy { pfn, mfn: None, holder };
            return Err(RefillFailure { error, run: Some(run), lost: None });
        }
        // SAFETY: the run is ours alone (M1) and populated; what it holds goes to Xen.
        unsafe { self.memory.zero(run.first(), run.frames()) };

        let list = &mut list[..run.frames() as usize];
        run.iter().zip(list.iter_mut()).for_each(|(pfn, slot)| *slot = pfn.number());
        let given = self.extents(list, Order::ZERO, MemFlags::default(), Operation::Decrease);
        if given.done < run.frames() {
            // Xen stops at the first frame that it refuses; those before it are gone.
            let error = match given.errno {
                Some(errno) => ExchangeError::Refused { errno },
                None => {
                    let first = run.first().add(given.done);
                    ExchangeError::FrameRefused { first, frames: 1 }
                }
            };
            return Err(self.bring_back(run, given.done, error, list));
        }
        let mut first = [run.first().number()];
        let flags = MemFlags::address_bits(bits);
        let populated = self.extents(&mut first, plan.order, flags, Operation::Populate);
        if populated.done == 1 {
            // SAFETY: the run is populated again and in our hands alone (M1, C56).
            unsafe { self.memory.zero(run.first(), run.frames()) };
            return Ok(run);
        }
        // Xen reports an order that it does not permit, and memory that it has not, as "none done".
        let order = plan.order;
        let error = match populated.errno {
            Some(errno) if errno != XenErrno::ENOMEM => ExchangeError::Refused { errno },
            _ if order_permitted(self.xen, order).is_err() => {
                ExchangeError::OrderNotPermitted { order }
            }
            _ => ExchangeError::NoMemory { order, bits },
        };
        let frames = run.frames();
        Err(self.bring_back(run, frames, error, list))
    }

    /// Populates the first `gone` frames of the run one by one.
    fn bring_back(
        &self,
        run: FrameRun,
        gone: u64,
        error: ExchangeError,
        list: &mut [u64],
    ) -> RefillFailure {
        run.iter().zip(list.iter_mut()).for_each(|(pfn, slot)| *slot = pfn.number());
        let list = &mut list[..gone as usize];
        let back = self.extents(list, Order::ZERO, MemFlags::default(), Operation::Populate);
        // SAFETY: these frames are populated again and in our hands alone (M1, C56).
        unsafe { self.memory.zero(run.first(), back.done) };
        if back.done == gone {
            return RefillFailure { error, run: Some(run), lost: None };
        }
        self.accounts.quarantine(run.frames());
        let lost = Some((run.first().add(back.done), gone - back.done));
        RefillFailure { error, run: None, lost }
    }

    fn extents(
        &self,
        list: &mut [u64],
        order: Order,
        mem_flags: MemFlags,
        operation: Operation,
    ) -> Progress {
        if list.is_empty() {
            return Progress { done: 0, errno: None };
        }
        let mut reservation = MemoryReservation {
            extent_start: list.as_mut_ptr(),
            nr_extents: list.len() as u64,
            extent_order: order.get(),
            mem_flags: mem_flags.raw(),
            domid: DomId::SELF,
        };
        let op = match operation {
            Operation::Decrease => MemoryOp::DecreaseReservation(&mut reservation),
            Operation::Populate => MemoryOp::PopulatePhysmap(&mut reservation),
        };
        // SAFETY: the list is a Rust object, exclusively borrowed, so it lies outside the run (M1,
        // M3); the frames named in it are the run's, which nobody uses.
        match unsafe { self.xen.memory_op(op) } {
            Ok(done) => Progress { done: done.min(list.len() as u64), errno: None },
            Err(errno) => Progress { done: 0, errno: Some(errno) },
        }
    }
}

enum Operation {
    Decrease,
    Populate,
}

struct Progress {
    done: u64,
    errno: Option<XenErrno>,
}
