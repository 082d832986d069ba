//! Contiguous machine memory that backs a run of a translated guest.
//!
//! Xen never reports a machine frame to such a guest. A refill takes one of two ways:
//!
//! * `XENMEM_exchange`, if Xen permits it. No released Xen does ([C26](crate::conformance#C26)), so the
//!   first refill tries it with one frame, and [`Accounts`] remember the answer. Xen puts the extent
//!   into the places of the run, and leaves the out-list as it is ([C79](crate::conformance#C79)).
//! * Otherwise `XENMEM_decrease_reservation` gives the frames up, and `XENMEM_populate_physmap`
//!   populates their places with one extent. In between the guest has a hole. If Xen has no extent for
//!   it, the hole is filled frame by frame.
//!
//! Frames that Xen does not return are quarantined ([C77](crate::conformance#C77)).

use hypercall::abi::hvm::{HVMMEM_MMIO_DM, HVMMEM_RAM_RW};
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{HvmOp, MemFlags, MemoryOp};
use hypercall::trace::{Phase, Span};
use hypercall::{DomId, Xen, XenErrno};

use super::accounts::{Accounts, UnwindGuard};
use super::error::ExchangeError;
use super::failure::{ExchangeFailure, LOST, Remaining};
use super::part::Node;
use super::permission::{Permission, order_permitted, why_not_permitted};
use super::reply::ExchangeReply;
use super::request::has_room;
use crate::addr::{AddressBits, Order, Pfn};
use crate::frames::FrameRun;
use crate::paging::{FrameInUse, GuestMemory};

/// Refills runs of a translated guest with contiguous machine memory.
#[derive(Clone, Copy, Debug)]
pub struct Refiller<'a, X, M> {
    xen: &'a X,
    memory: &'a M,
    accounts: &'a Accounts,
    limit: Order,
}

impl<'a, X: Xen, M: GuestMemory> Refiller<'a, X, M> {
    /// Returns a refiller for extents up to `limit`
    /// ([`Capability::Refill`](super::Capability::Refill)).
    ///
    /// # Safety
    /// * `xen` and `memory` belong to the same translated guest, the one that this code runs in.
    /// * Every [`FrameRun`] of the program names frames of that guest.
    pub const unsafe fn new(
        xen: &'a X,
        memory: &'a M,
        accounts: &'a Accounts,
        limit: Order,
    ) -> Self {
        Self { xen, memory, accounts, limit }
    }

    /// Returns the highest order of an extent.
    pub const fn limit(&self) -> Order {
        self.limit
    }

    /// Backs `run` with one extent of machine memory below `2^bits`, zeroed.
    ///
    /// If the run is aligned to 2 MiB, Xen can map it with superpages. `list` is lent for the time of
    /// the call and has an entry per frame; after a failure it says which frames remain.
    ///
    /// Makes hypercalls that take time in proportion to the run, so it must not be called in an
    /// interrupt handler or under a lock of the kernel's.
    ///
    /// The first refill of the guest also exchanges the first frame of its run, to try whether Xen
    /// permits that ([`Accounts::translated_exchange`]).
    ///
    /// # Errors
    /// * Before anything moves: the run or the list has a wrong size, the order is above the limit, or
    ///   the kernel says that a frame is in use ([`GuestMemory::purge`]).
    /// * Xen refused to take a frame, or has no such extent. Each frame that Xen does not return is
    ///   quarantined, and costs a hypercall. The others remain, zeroed. If Xen refused an exchange, each
    ///   frame of the run costs a hypercall that asks whether memory backs it.
    /// * An exchange failed past its commit point. Frames that nothing backs and that Xen does not
    ///   populate again are quarantined, and those of which Xen does not tell
    ///   ([M6](crate::rules#M6)). The others remain, zeroed.
    pub fn refill<'l>(
        &self,
        run: FrameRun,
        bits: AddressBits,
        list: &'l mut [u64],
    ) -> Result<FrameRun, ExchangeFailure<'l>> {
        let order = match self.check(&run, list) {
            Ok(order) => order,
            Err(error) => return Err(ExchangeFailure::without_loss(error, run)),
        };
        self.xen.within(Span::Phase(Phase::Zero), || {
            // SAFETY: the run is populated, and `run` proves that nothing else uses it
            // ([M1](crate::rules#M1)). Xen may pass its content on.
            unsafe { self.memory.zero(run.first(), run.frames()) };
        });
        let list = list_frames(&run, &mut list[..run.frames() as usize]);
        let guard = UnwindGuard::new(self.accounts, run.frames());
        let backed = self.back(&run, order, bits, list);
        if backed.is_ok() {
            // What came from Xen may hold anything ([C56](crate::conformance#C56)).
            self.zero(run.first(), run.frames());
        }
        guard.disarm();
        match backed {
            Ok(()) => Ok(run),
            Err(NotBacked { error, lost }) => {
                self.accounts.quarantine(lost);
                Err(ExchangeFailure { error, remaining: Remaining::without_lost(run, lost, list) })
            }
        }
    }

    /// Checks the request before anything moves. Returns the order of the extent.
    fn check(&self, run: &FrameRun, list: &[u64]) -> Result<Order, ExchangeError> {
        let frames = run.frames();
        let bad_size = ExchangeError::BadSize { frames };
        if !frames.is_power_of_two() {
            return Err(bad_size);
        }
        let order = Order::new(frames.ilog2()).map_err(|_| bad_size)?;
        if order > self.limit {
            return Err(ExchangeError::OrderNotPermitted { order });
        }
        has_room(frames, list)?;
        // Xen takes a frame from every other holder of it, a peer with a grant included
        // ([C76](crate::conformance#C76)). So the kernel alone can say that a frame is in use.
        self.xen.within(Span::Phase(Phase::Purge), || self.memory.purge(run)).map_err(
            |FrameInUse { pfn, holder }| ExchangeError::FrameBusy { pfn, mfn: None, holder },
        )?;
        Ok(order)
    }

    /// Backs the run with one extent, in the way that Xen permits.
    ///
    /// # Errors
    /// Why not. The list says which frames are [`LOST`].
    fn back(
        &self,
        run: &FrameRun,
        order: Order,
        bits: AddressBits,
        list: &mut [u64],
    ) -> Result<(), NotBacked> {
        if self.may_exchange(list)? {
            let reply = self.exchange(run.first(), order, bits);
            if is_done(&reply) {
                return Ok(());
            }
            if reply.result != Err(XenErrno::EOPNOTSUPP) {
                return Err(self.not_exchanged(run, order, bits, &reply, list));
            }
            // The guest was migrated to a Xen that does not permit it.
            self.accounts.trial().record(Permission::Denied);
        }
        let swapped =
            self.xen.within(Span::Phase(Phase::Exchange), || self.swap(run, order, bits, list));
        swapped.map_err(|(error, gone)| {
            let lost = self.bring_back(run, &mut list[..gone as usize]);
            NotBacked { error, lost }
        })
    }

    /// Returns true if Xen exchanges memory of this guest. The first call tries it with the first frame
    /// of the list, which is free.
    ///
    /// # Errors
    /// The trial failed past its commit point, and the frame is lost.
    fn may_exchange(&self, list: &mut [u64]) -> Result<bool, NotBacked> {
        let trial = self.accounts.trial();
        if trial.begin() {
            let frame = &mut list[..1];
            let first = Pfn::new(frame[0]);
            let reply = self.exchange(first, Order::ZERO, AddressBits::UNLIMITED);
            let permission = match reply.result {
                _ if is_done(&reply) => Permission::Granted,
                Err(XenErrno::EOPNOTSUPP) => Permission::Denied,
                answer => Permission::Unknown(answer.err()),
            };
            trial.record(permission);
            match permission {
                Permission::Granted => self.zero(first, 1),
                Permission::Denied => {}
                Permission::Unknown(_) => {
                    let Recovered { lost, .. } = self.recover(frame);
                    if lost > 0 {
                        return Err(NotBacked { error: torn(&reply), lost });
                    }
                }
            }
        }
        Ok(trial.answer() == Some(Permission::Granted))
    }

    /// Exchanges what backs the frames from `first` on for one extent, which takes their places.
    fn exchange(&self, first: Pfn, order: Order, bits: AddressBits) -> ExchangeReply {
        let (mut input, mut output) = ([first.number()], [first.number()]);
        let one = |list: &mut [u64; 1], mem_flags: MemFlags| MemoryReservation {
            extent_start: list.as_mut_ptr(),
            nr_extents: 1,
            extent_order: order.get(),
            mem_flags: mem_flags.raw(),
            domid: DomId::SELF,
        };
        let mut argument = MemoryExchange {
            input: one(&mut input, MemFlags::default()),
            output: one(&mut output, MemFlags::address_bits(bits)),
            nr_exchanged: 0,
        };
        // SAFETY: lists and argument are locals, so they lie outside the run and nothing else touches
        // them ([M1](crate::rules#M1), [M3](crate::rules#M3)). The frames are the run's, which nothing
        // uses ([M2](crate::rules#M2)).
        let result = self.xen.within(Span::Phase(Phase::Exchange), || unsafe {
            self.xen.memory_op(MemoryOp::Exchange(&mut argument))
        });
        ExchangeReply { result, nr_exchanged: argument.nr_exchanged }
    }

    /// Returns why Xen did not exchange the run, and recovers its frames.
    fn not_exchanged(
        &self,
        run: &FrameRun,
        order: Order,
        bits: AddressBits,
        reply: &ExchangeReply,
        list: &mut [u64],
    ) -> NotBacked {
        let Recovered { holes, lost } = self.recover(list);
        let error = match reply.result {
            Err(errno) if errno != XenErrno::EFAULT && reply.nr_exchanged == 0 && holes == 0 => {
                match errno {
                    XenErrno::EINVAL => {
                        ExchangeError::FrameRefused { first: run.first(), frames: run.frames() }
                    }
                    XenErrno::ENOMEM => ExchangeError::NoMemory { order, bits, node: Node::Any },
                    XenErrno::EPERM => why_not_permitted(self.xen, order),
                    errno => ExchangeError::Refused { errno },
                }
            }
            _ => torn(reply),
        };
        NotBacked { error, lost }
    }

    /// Asks Xen what backs each frame of the list, after an exchange that failed. The guest has no M2P,
    /// and the out-list does not change, so nothing else tells ([M6](crate::rules#M6)).
    ///
    /// Populates the holes, and zeroes the frames that are backed. Marks the others as [`LOST`].
    fn recover(&self, list: &mut [u64]) -> Recovered {
        let mut recovered = Recovered { holes: 0, lost: 0 };
        for entry in list {
            let pfn = Pfn::new(*entry);
            let backed = match self.xen.hvm_op(HvmOp::GetMemType(pfn)) {
                Ok(HVMMEM_RAM_RW) => true,
                Ok(HVMMEM_MMIO_DM) => {
                    recovered.holes += 1;
                    let place = &mut [pfn.number()];
                    let flags = MemFlags::default();
                    self.call(Operation::Populate, place, Order::ZERO, flags).done == 1
                }
                _ => false,
            };
            if backed {
                self.zero(pfn, 1);
            } else {
                *entry = LOST;
                recovered.lost += 1;
            }
        }
        recovered
    }

    /// Gives the frames up and populates their places with one extent.
    ///
    /// # Errors
    /// Why it failed, and how many frames of the run are gone, counted from the first.
    fn swap(
        &self,
        run: &FrameRun,
        order: Order,
        bits: AddressBits,
        list: &mut [u64],
    ) -> Result<(), (ExchangeError, u64)> {
        let given = self.call(Operation::Decrease, list, Order::ZERO, MemFlags::default());
        if given.done < run.frames() {
            // Xen stops at the first frame that it refuses; those before it are gone.
            let error = match given.errno {
                Some(errno) => ExchangeError::Refused { errno },
                None => {
                    let first = run.first().add(given.done);
                    ExchangeError::FrameRefused { first, frames: 1 }
                }
            };
            return Err((error, given.done));
        }
        let mut first = [run.first().number()];
        let flags = MemFlags::address_bits(bits);
        let populated = self.call(Operation::Populate, &mut first, order, flags);
        if populated.done == 1 {
            return Ok(());
        }
        // Xen reports "none done" both for an order that it does not permit and for a lack of memory.
        let error = match populated.errno {
            Some(errno) if errno != XenErrno::ENOMEM => ExchangeError::Refused { errno },
            _ if order_permitted(self.xen, order) == Permission::Denied => {
                ExchangeError::OrderNotPermitted { order }
            }
            _ => ExchangeError::NoMemory { order, bits, node: Node::Any },
        };
        Err((error, run.frames()))
    }

    /// Populates the first `list.len()` frames of the run one by one, and zeroes them. Marks those that
    /// Xen does not return as [`LOST`], and returns their number.
    fn bring_back(&self, run: &FrameRun, list: &mut [u64]) -> u64 {
        list_frames(run, list);
        let (mut lost, mut at) = (0, 0);
        while at < list.len() {
            let rest = &mut list[at..];
            let back = self.call(Operation::Populate, rest, Order::ZERO, MemFlags::default()).done;
            if back > 0 {
                self.zero(run.first().add(at as u64), back);
            }
            // Xen stops at the first frame that it has no memory for. It may have some for the next.
            at += back as usize;
            if let Some(entry) = list.get_mut(at) {
                *entry = LOST;
                lost += 1;
                at += 1;
            }
        }
        lost
    }

    /// Zeroes frames that are populated again.
    fn zero(&self, first: Pfn, frames: u64) {
        self.xen.within(Span::Phase(Phase::Zero), || {
            // SAFETY: Xen reported these frames as populated. They belong to the run that this
            // refill owns, so nothing else uses them ([M1](crate::rules#M1)).
            unsafe { self.memory.zero(first, frames) };
        });
    }

    fn call(
        &self,
        operation: Operation,
        list: &mut [u64],
        order: Order,
        mem_flags: MemFlags,
    ) -> Answer {
        if list.is_empty() {
            return Answer { done: 0, errno: None };
        }
        let extents = list.len() as u64;
        let mut reservation = MemoryReservation {
            extent_start: list.as_mut_ptr(),
            nr_extents: extents,
            extent_order: order.get(),
            mem_flags: mem_flags.raw(),
            domid: DomId::SELF,
        };
        let op = match operation {
            Operation::Decrease => MemoryOp::DecreaseReservation(&mut reservation),
            Operation::Populate => MemoryOp::PopulatePhysmap(&mut reservation),
        };
        // SAFETY: the list is a Rust object and exclusively borrowed. So it lies outside the run and
        // nothing else touches it ([M1](crate::rules#M1), [M3](crate::rules#M3)). The frames that it
        // names are the run's, which nothing uses.
        match unsafe { self.xen.memory_op(op) } {
            Ok(done) => Answer { done: done.min(extents), errno: None },
            Err(errno) => Answer { done: 0, errno: Some(errno) },
        }
    }
}

/// Fills the list with the first frames of a run.
fn list_frames<'l>(run: &FrameRun, list: &'l mut [u64]) -> &'l mut [u64] {
    run.iter().zip(list.iter_mut()).for_each(|(pfn, entry)| *entry = pfn.number());
    list
}

/// Returns true if Xen exchanged the one extent that it was asked for.
fn is_done(reply: &ExchangeReply) -> bool {
    reply.result.is_ok() && reply.nr_exchanged == 1
}

/// Returns the error for an exchange that may have passed its commit point.
fn torn(reply: &ExchangeReply) -> ExchangeError {
    ExchangeError::Torn { errno: reply.result.err(), exchanged: reply.nr_exchanged }
}

/// Why a run is not backed by an extent, and the number of its frames that are lost.
struct NotBacked {
    error: ExchangeError,
    lost: u64,
}

/// What was found after an exchange that failed: frames that had become holes, and those that are lost.
struct Recovered {
    holes: u64,
    lost: u64,
}

enum Operation {
    Decrease,
    Populate,
}

/// How many extents Xen did, and the error if it returned one.
struct Answer {
    done: u64,
    errno: Option<XenErrno>,
}
