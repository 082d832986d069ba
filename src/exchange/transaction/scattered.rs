//! Exchanges frames that do not lie side by side for extents.
//!
//! Xen takes any frames of the guest for an extent, and a PV guest numbers the machine frames of an
//! extent as it likes. So only the frames that a buffer uses need to lie side by side: the *run*. What
//! an extent has beyond that, its surplus, gets the numbers of *other* frames that are given up with the
//! run, wherever they lie.
//!
//! Xen numbers an extent from the guest frame that it is given, so its M2P at first gives the surplus
//! numbers that follow the run. These belong to frames that are not in the transaction. The record of each
//! surplus frame is corrected before the frame is mapped ([M4](crate::rules#M4)). Where Xen refuses that,
//! the frame is quarantined.

use arrayvec::ArrayVec;
use hypercall::abi::memory::MemoryExchange;
use hypercall::ops::{MemFlags, MemoryOp, MmuUpdate, Pte};
use hypercall::trace::{Phase, Span};
use hypercall::{DomId, Xen, XenErrno};

use super::ask::reservation;
use super::detached::purge;
use super::diagnose::NOWHERE;
use super::entries::{MapResult, UNKNOWN, map_entries};
use super::places::Places;
use super::recover::recover;
use crate::addr::{Mfn, Order, Pfn};
use crate::exchange::accounts::UnwindGuard;
use crate::exchange::error::ExchangeError;
use crate::exchange::failure::Remaining;
use crate::exchange::guest::GuestHandle;
use crate::exchange::options::Scrub;
use crate::exchange::part::{Node, Part};
use crate::exchange::permission::{Permission, node_permitted, why_not_permitted};
use crate::exchange::reply::{ExchangeReply, Rest};
use crate::exchange::request::{Lists, has_room};
use crate::exchange::scattered_frames::ScatteredFrames;
use crate::frames::FrameRun;
use crate::paging::{LinearMapping, PteBatch};

/// Records that one hypercall corrects.
const RECORDS: usize = 256;

/// Marks an entry of `backing` that Xen's M2P confirms. No frame number is that high.
const CONFIRMED: u64 = 1 << 63;

/// What became of the frames of an exchange.
#[must_use = "dropping it leaks the frames that remain"]
pub(crate) struct ScatteredExchange<'a> {
    /// The run, mapped. Its content is undefined. If there is an error, other machine frames may back it
    /// than before.
    ///
    /// Of the other frames, those remain that have a machine frame in the P2M.
    pub run: Remaining<'a>,
    /// The number of other frames that are quarantined.
    pub others_lost: u64,
    /// Why not all frames were exchanged and mapped.
    pub error: Option<ExchangeError>,
}

impl<'a, X: Xen, L: LinearMapping> GuestHandle<'a, X, L> {
    /// Exchanges a run and other frames for the extents of a part. The first `used` frames of each extent
    /// become the run, side by side; the last extent may have fewer. The surplus becomes the other frames.
    ///
    /// All frames come back mapped. What Xen exchanged before a refusal is kept.
    pub(in crate::exchange) fn exchange_scattered(
        self,
        run: FrameRun,
        others: &mut ScatteredFrames<'_>,
        part: &Part,
        used: u64,
        lists: Lists<'_>,
        scrub: Scrub,
    ) -> ScatteredExchange<'a> {
        let others = others.sorted();
        let places =
            Places { run: run.first(), frames: run.frames(), others, order: part.output(), used };
        let mut frames = Frames { guest: self, places, backing: lists.backing };
        if let Err(error) = frames.prepare(&run, part, lists.extents, scrub) {
            return ScatteredExchange { run: run.into(), others_lost: 0, error: Some(error) };
        }
        let guard = UnwindGuard::new(self.accounts, part.frames());
        let detached = self.xen.within(Span::Phase(Phase::Detach), || frames.detach());
        let refused = self.xen.within(Span::Phase(Phase::Exchange), || {
            detached.and_then(|()| frames.exchange(part, lists.extents))
        });
        let mapping = self.xen.within(Span::Phase(Phase::Attach), || frames.attach());
        guard.disarm();
        self.accounts.quarantine(mapping.lost);
        let others_lost = frames.places.others.iter();
        let others_lost =
            others_lost.filter(|number| self.p2m.mfn(Pfn::new(**number)).is_none()).count() as u64;
        ScatteredExchange {
            run: Remaining::in_p2m(run, mapping.lost - others_lost, self.p2m),
            others_lost,
            error: refused.err().or(mapping.error),
        }
    }
}

/// The frames of an exchange, and the machine frame that backs each, or [`UNKNOWN`].
struct Frames<'s, 'a, X, L> {
    guest: GuestHandle<'a, X, L>,
    places: Places<'s>,
    backing: &'s mut [u64],
}

impl<X: Xen, L: LinearMapping> Frames<'_, '_, X, L> {
    fn pfns(&self) -> impl Iterator<Item = Pfn> + '_ {
        (0..self.places.count()).map(|index| self.places.pfn(index).0)
    }

    /// Checks the request, writes down what backs the frames, and drops their aliases. Nothing has moved
    /// yet.
    fn prepare(
        &mut self,
        run: &FrameRun,
        part: &Part,
        extents: &[u64],
        scrub: Scrub,
    ) -> Result<(), ExchangeError> {
        let (count, guest) = (self.places.count() as u64, self.guest);
        let holds = self.places.used > 0
            && self.places.used <= part.output().frames()
            && self.places.is_complete();
        if part.frames() != count || part.input() != Order::ZERO || !holds {
            return Err(ExchangeError::BadPart { first: 0, frames: part.frames(), run: count });
        }
        has_room(count, self.backing)?;
        has_room(part.out_extents(), extents)?;
        for index in 0..count as usize {
            let (pfn, _) = self.places.pfn(index);
            let mfn = guest.p2m.mfn(pfn).ok_or(ExchangeError::NotPopulated { pfn })?;
            self.backing[index] = mfn.number();
        }
        let single = |number: &u64| {
            // SAFETY: the caller lent its `ScatteredFrames`, which own the frame. This value does not
            // outlive them ([M1](crate::rules#M1)).
            unsafe { FrameRun::new(Pfn::new(*number), 1) }
        };
        // Rule [F5](crate::rules#F5): before the flush, which covers these addresses, too.
        guest.xen.within(Span::Phase(Phase::Purge), || {
            purge(&guest, run)?;
            self.places.others.iter().try_for_each(|number| purge(&guest, &single(number)))
        })?;
        if scrub == Scrub::ByGuest {
            guest.xen.within(Span::Phase(Phase::Zero), || {
                // SAFETY: the frames are populated and mapped, and nothing else uses them
                // ([M1](crate::rules#M1)).
                self.pfns().for_each(|pfn| unsafe { guest.linear.zero(pfn, 1) });
            });
        }
        Ok(())
    }

    /// Takes the frames out of the linear mapping and out of the P2M, and flushes.
    fn detach(&self) -> Result<(), ExchangeError> {
        let (done, result) = self.write(self.pfns().map(|pfn| (pfn, Pte::NOT_PRESENT)));
        if let Err(errno) = result {
            return Err(ExchangeError::PageTable { pfn: self.places.pfn(done as usize).0, errno });
        }
        for pfn in self.pfns() {
            self.guest.p2m.set(pfn, None);
        }
        // Rule [F2](crate::rules#F2): the one flush, before Xen gets the frames.
        // SAFETY: `Exchanger::new` requires that `xen` and `linear` belong to the same guest.
        let flushed = unsafe { self.guest.linear.flushes().flush_all(self.guest.xen) };
        flushed.map_err(|errno| ExchangeError::Flush { errno })
    }

    /// Writes entries of the linear mapping. Returns how many Xen wrote, up to the first that it refused.
    ///
    /// Never inlined, so that at most one batch is on the stack.
    #[inline(never)]
    fn write(&self, entries: impl Iterator<Item = (Pfn, Pte)>) -> (u64, Result<(), XenErrno>) {
        let mut batch = PteBatch::new(self.guest.xen);
        let mut result = Ok(());
        for (pfn, pte) in entries {
            // SAFETY: the frame belongs to the transaction, so nothing uses it ([M1](crate::rules#M1)).
            // A machine frame in an entry is the domain's, by Xen's word.
            result = unsafe { batch.write(self.guest.linear.entry(pfn), pte) };
            if result.is_err() {
                break;
            }
        }
        // SAFETY: the same writes.
        let result = result.and_then(|()| unsafe { batch.issue() });
        (batch.done(), result)
    }

    /// Asks Xen, writes down the new machine frames, and corrects Xen's records of the surplus.
    fn exchange(&mut self, part: &Part, out_list: &mut [u64]) -> Result<(), ExchangeError> {
        let count = self.places.count();
        let out_list = &mut out_list[..part.out_extents() as usize];
        for (extent, entry) in out_list.iter_mut().enumerate() {
            *entry = self.places.asked_for(extent);
        }
        let mut question = MemoryExchange {
            input: reservation(&mut self.backing[..count], Order::ZERO, MemFlags::default()),
            output: reservation(out_list, part.output(), part.placement().mem_flags()),
            nr_exchanged: 0,
        };
        // SAFETY: nothing maps the frames since `detach` ([M2](crate::rules#M2)), whose flush made every
        // vCPU forget that they were mapped ([F2](crate::rules#F2)). The lists are Rust objects, and no
        // Rust object lies in a frame of the transaction ([M1](crate::rules#M1)). Nothing else touches
        // them during the call ([M3](crate::rules#M3)).
        let result = unsafe { self.guest.xen.memory_op(MemoryOp::Exchange(&mut question)) };
        let reply = ExchangeReply { result, nr_exchanged: question.nr_exchanged };
        let outcome = reply.outcome_of(part, out_list, |extent| self.places.asked_for(extent));
        let done = outcome.exchanged as usize;
        let extents = self.backing[..done].chunks_exact_mut(part.output().frames() as usize);
        for (first, extent) in out_list.iter().zip(extents) {
            (*first..).zip(extent).for_each(|(mfn, frame)| *frame = mfn);
        }
        // Before a search of the records, which would find the surplus in place of the run.
        let corrected = self.correct_records(done);
        let (placement, order) = (part.placement(), part.output());
        let error = match outcome.rest {
            Rest::Complete => None,
            Rest::Refused(XenErrno::ENOMEM) => {
                Some(ExchangeError::NoMemory { order, bits: placement.bits, node: placement.node })
            }
            Rest::Refused(XenErrno::EINVAL) => match placement.node {
                Node::Exactly(node)
                    if node_permitted(self.guest.xen, node) == Permission::Denied =>
                {
                    Some(ExchangeError::NodeNotPermitted { node })
                }
                _ => Some(self.refused_frame(done)),
            },
            Rest::Refused(XenErrno::EPERM) => Some(why_not_permitted(self.guest.xen, order)),
            Rest::Refused(errno) => Some(ExchangeError::Refused { errno }),
            Rest::Torn(errno) => {
                self.recover_from(done);
                Some(ExchangeError::Torn { errno, exchanged: reply.nr_exchanged })
            }
            Rest::BadExtent(mfn) => {
                self.recover_from(0);
                Some(ExchangeError::BadExtent { mfn, order, bits: placement.bits })
            }
        };
        error.map_or(corrected, Err)
    }

    /// Finds the frame that Xen refuses in the first extent that it did not exchange.
    ///
    /// Xen takes all frames of an extent before it looks for memory. So a question for memory that cannot
    /// exist moves nothing, and its error says whether Xen would take the frames (`ENOMEM`) or not
    /// (`EINVAL`).
    #[cold]
    fn refused_frame(&mut self, done: usize) -> ExchangeError {
        let guest = self.guest;
        let (mut first, mut frames) = (done, self.places.order.frames() as usize);
        loop {
            let asked = (frames / 2).max(1);
            let order = Order::new(asked.ilog2()).unwrap_or(Order::ZERO);
            let stays = self.places.pfn(first).0.number();
            let mut out_list = [stays];
            let mut question = MemoryExchange {
                input: reservation(
                    &mut self.backing[first..first + asked],
                    Order::ZERO,
                    MemFlags::default(),
                ),
                output: reservation(&mut out_list, order, NOWHERE.mem_flags()),
                nr_exchanged: 0,
            };
            // SAFETY: as for the exchange itself: no entry maps the frames ([M2](crate::rules#M2)), every
            // vCPU was flushed ([F2](crate::rules#F2)), and nothing else touches the lists, which lie
            // outside the frames ([M3](crate::rules#M3)).
            let result = unsafe { guest.xen.memory_op(MemoryOp::Exchange(&mut question)) };
            if result.is_ok() || question.nr_exchanged > 0 || out_list != [stays] {
                // Xen cannot have such memory. What backs the frames is unknown.
                self.backing[first..first + asked].fill(UNKNOWN);
                return ExchangeError::Torn { errno: result.err(), exchanged: 0 };
            }
            match result {
                Err(XenErrno::EINVAL) if frames == 1 => {
                    let pfn = self.places.pfn(first).0;
                    let mfn = Some(Mfn::new(self.backing[first]));
                    let holder = guest.linear.holder(pfn, mfn);
                    return ExchangeError::FrameBusy { pfn, mfn, holder };
                }
                Err(XenErrno::EINVAL) => frames = asked,
                Err(XenErrno::ENOMEM) if frames > 1 => {
                    (first, frames) = (first + asked, frames - asked)
                }
                Err(XenErrno::EFAULT) => {
                    self.backing[first..first + asked].fill(UNKNOWN);
                    return ExchangeError::Torn { errno: result.err(), exchanged: 0 };
                }
                _ => {
                    let (first, frames) = (self.places.pfn(done).0, self.places.order.frames());
                    return ExchangeError::FrameRefused { first, frames };
                }
            }
        }
    }

    /// Finds out what backs the frames from `done` on, of which Xen's reply does not tell.
    ///
    /// Of the surplus, a machine frame is known only if it is the old one: Xen's records of new ones name
    /// other frames.
    #[cold]
    fn recover_from(&mut self, done: usize) {
        let (guest, others) = (self.guest, self.places.others);
        let mut index = done;
        while index < self.places.count() {
            let (first, is_run) = self.places.pfn(index);
            let mut end = index + 1;
            while is_run && end < self.places.count() && self.places.pfn(end).1 {
                end += 1;
            }
            if is_run {
                recover(&guest, first, &mut self.backing[index..end]);
            }
            index = end;
        }
        let Some((first, last)) = others.first().zip(others.last()) else { return };
        guest.linear.on_record(Pfn::new(*first), last - first + 1, &mut |pfn, mfn| {
            let Ok(other) = others.binary_search(&pfn.number()) else { return };
            let index = self.places.index_of_other(other);
            if index >= done && self.backing[index] == mfn.number() {
                self.backing[index] |= CONFIRMED;
            }
        });
        for index in done..self.places.count() {
            let entry = &mut self.backing[index];
            if !self.places.pfn(index).1 {
                *entry = if *entry & CONFIRMED == 0 { UNKNOWN } else { *entry & !CONFIRMED };
            }
        }
    }

    /// Has Xen record the numbers of the other frames for the surplus of the first `done` frames. Where Xen
    /// refuses, what backs the frame is marked as unknown.
    ///
    /// Never inlined, so that at most one batch is on the stack.
    #[inline(never)]
    fn correct_records(&mut self, done: usize) -> Result<(), ExchangeError> {
        let (mut index, mut refusal) = (0, Ok(()));
        while index < done {
            let mut updates = ArrayVec::<_, RECORDS>::new();
            let mut corrected = ArrayVec::<usize, RECORDS>::new();
            while index < done && !updates.is_full() {
                let (pfn, is_run) = self.places.pfn(index);
                if !is_run && self.backing[index] != UNKNOWN {
                    let mfn = Mfn::new(self.backing[index]);
                    updates.push(MmuUpdate::machine_to_phys(mfn, pfn.number()));
                    corrected.push(index);
                }
                index += 1;
            }
            let mut from = 0;
            while from < updates.len() {
                let mut written = 0;
                // SAFETY: the writes change no mapping. They name machine frames that Xen has just handed
                // out for this transaction, which nothing maps or uses ([M1](crate::rules#M1),
                // [M2](crate::rules#M2)). Updates and counter are borrowed, so nothing else touches them
                // during the call ([M3](crate::rules#M3)).
                let result = unsafe {
                    self.guest.xen.mmu_update(&updates[from..], &mut written, DomId::SELF)
                };
                let Err(errno) = result else { break };
                from += (written as usize).min(updates.len() - from - 1);
                let mfn = Mfn::new(self.backing[corrected[from]]);
                refusal = refusal.and(Err(ExchangeError::Record { mfn, errno }));
                self.backing[corrected[from]] = UNKNOWN;
                from += 1;
            }
        }
        refusal
    }

    /// Maps the machine frames that back the frames now. Those that are unknown, and those that Xen refuses
    /// to map, are left out.
    fn attach(&self) -> MapResult {
        let (guest, flags) = (self.guest, self.guest.linear.flags());
        let known = |index: &usize| self.backing[*index] != UNKNOWN;
        let entry = |index: usize| {
            (self.places.pfn(index).0, Pte::new(Mfn::new(self.backing[index]), flags))
        };
        let count = self.places.count();
        let (mut written, _) = self.write((0..count).filter(known).map(entry));
        let mut mapping = MapResult { lost: 0, error: None };
        for index in 0..count {
            let pfn = self.places.pfn(index).0;
            if known(&index) && written > 0 {
                written -= 1;
                guest.p2m.set(pfn, Some(Mfn::new(self.backing[index])));
            } else {
                map_entries(&guest, pfn, &self.backing[index..=index], &mut mapping);
            }
        }
        mapping
    }
}
