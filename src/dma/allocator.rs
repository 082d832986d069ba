//! Hands out coherent buffers.

use core::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;
use hypercall::Xen;
use hypercall::trace::Span;

use super::constraints::{Backing, Sleep, Zeroing};
use super::fit::Search;
use super::give_back::Books;
use super::{AllocError, CoherentBuffer, Constraints, GiveBack, Layout, MAX_SEGMENTS};
use crate::addr::{AddressBits, Order, PAGE_SIZE, Pfn};
use crate::exchange::{
    Capability, ExchangeError, ExchangeFailure, Exchanger, Lists, Node, OnRefusal, Part, Placement,
    Progress, Refiller,
};
use crate::frames::{Candidate, FrameRun};
use crate::paging::GuestMemory;
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// How often Xen is asked again for memory that lies where the device reaches it, where that can't
/// be said to Xen.
const TRIES: u32 = 4;

/// Hands out coherent buffers of one guest.
///
/// Nothing is locked while Xen is asked; allocations on several vCPUs run side by side.
#[derive(Debug)]
pub struct Allocator<P: Platform> {
    platform: P,
    capability: Capability,
    policy: GiveBack,
    pub(super) books: Books,
}

impl<P: Platform> Allocator<P> {
    /// An allocator for the guest that `platform` describes. Asks Xen what is to be had.
    pub fn new(platform: P, policy: GiveBack) -> Self {
        let capability = Capability::ask(platform.xen(), platform.p2m());
        Self { platform, capability, policy, books: Books::default() }
    }

    /// The embedding kernel.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// What is to be had here, and why.
    pub const fn capability(&self) -> Capability {
        self.capability
    }

    /// When memory goes back to Xen.
    pub const fn policy(&self) -> GiveBack {
        self.policy
    }

    pub(super) fn exchanger(&self) -> Option<Exchanger<'_, P::Xen, P::Linear>> {
        let Capability::Exchange { limit } = self.capability else { return None };
        let platform = &self.platform;
        let linear = platform.linear()?;
        // SAFETY: all that a platform returns belongs to one guest, and runs come from its frame
        // allocator alone ([M1](crate::rules#M1)): the promises of the trait `Platform`.
        Some(unsafe {
            Exchanger::new(platform.xen(), *platform.p2m(), linear, platform.accounts(), limit)
                .with_options(platform.exchange_options())
        })
    }

    fn refiller(&self) -> Option<Refiller<'_, P::Xen, P::Memory>> {
        let Capability::Refill { limit } = self.capability else { return None };
        let platform = &self.platform;
        // SAFETY: all that a platform returns belongs to one guest, and runs come from its frame
        // allocator alone ([M1](crate::rules#M1)): the promises of the trait `Platform`.
        Some(unsafe {
            Refiller::new(platform.xen(), platform.memory(), platform.accounts(), limit)
        })
    }

    /// Allocates `size` bytes, 1 to 1 GiB.
    ///
    /// Memory that fits as it is serves without a hypercall. Otherwise ordinary frames are
    /// exchanged; of an extent that is larger than the size, the rest becomes ordinary memory.
    ///
    /// # Errors
    /// Why not. Nothing is lost, except where an exchange says quarantine. With
    /// [`OnRefusal::Return`] a buffer may be shorter than asked for, by whole segments.
    pub fn alloc_coherent(
        &self,
        size: u64,
        constraints: &Constraints,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let span = Span::Operation("alloc_coherent");
        self.platform.xen().within(span, || self.alloc(size, constraints))
    }

    fn alloc(
        &self,
        size: u64,
        constraints: &Constraints,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        if let (Node::Exactly(node), true) =
            (constraints.node(), self.platform.p2m().is_translated())
        {
            return Err(AllocError::NodeNotTold { node });
        }
        if self.must_refill(constraints) {
            return match (self.refiller(), self.capability) {
                (Some(refiller), _) => self.refill(&refiller, size, constraints),
                (None, Capability::None { why }) => Err(AllocError::NoExchange(why)),
                (None, _) => unreachable!("a translated guest refills or has nothing"),
            };
        }
        if let Some(buffer) = self.find(size, constraints) {
            return Ok(buffer);
        }
        let limit = match self.capability {
            Capability::Exchange { limit } => limit,
            _ => Order::MAX,
        };
        let layout = Layout::new(size, constraints, limit)?;
        if constraints.sleep() == Sleep::MustNot {
            return Err(AllocError::MustNotSleep);
        }
        let exchanger = match (self.capability, self.exchanger()) {
            (_, Some(exchanger)) => exchanger,
            (Capability::None { why }, None) => return Err(AllocError::NoExchange(why)),
            (_, None) => {
                return Err(AllocError::no_frames(layout.used_frames(), constraints));
            }
        };
        self.exchange(&exchanger, &layout, constraints)
    }

    /// Whether what there is can't serve, because nobody knows what machine memory lies beneath it.
    pub(super) fn must_refill(&self, constraints: &Constraints) -> bool {
        self.platform.p2m().is_translated() && constraints.backing() == Backing::OneExtent
    }

    /// A buffer of memory that fits as it is: in one piece, cut into as many segments as the device
    /// needs. Xen's order limit has no say in it.
    pub(super) fn find(
        &self,
        size: u64,
        constraints: &Constraints,
    ) -> Option<CoherentBuffer<'_, P>> {
        let layout = Layout::new(size, constraints, Order::MAX).ok()?;
        let platform = &self.platform;
        let search = Search::new(platform.p2m(), constraints, &layout);
        let fits = &mut |pfn| search.fits(pfn);
        let run = platform.take_where(layout.used_frames(), search.budget(), fits)?;
        if constraints.zeroing() == Zeroing::Zeroed {
            // SAFETY: the run is mapped and ours alone ([M1](crate::rules#M1)).
            unsafe { platform.memory().zero(run.first(), run.frames()) };
        }
        self.books.found.fetch_add(1, Relaxed);
        let lengths = layout.segments().iter().map(|segment| segment.bytes);
        Some(CoherentBuffer::new(self, run, lengths, false))
    }

    /// Makes ordinary memory of a run that Xen may have put something beneath
    /// ([C56](crate::conformance#C56)).
    pub(super) fn give_zeroed(&self, run: FrameRun) {
        self.give_unfit(run, false);
    }

    /// Gives a run back that does not serve, by the policy if it was exchanged. What another domain
    /// may have left in it ends here ([C56](crate::conformance#C56)).
    pub(super) fn give_unfit(&self, run: FrameRun, exchanged: bool) {
        // SAFETY: the run is mapped and ours alone ([M1](crate::rules#M1)).
        unsafe { self.platform.memory().zero(run.first(), run.frames()) };
        self.give_back(run, exchanged);
    }

    /// A buffer of a translated guest with one extent of machine memory beneath it.
    fn refill(
        &self,
        refiller: &Refiller<'_, P::Xen, P::Memory>,
        size: u64,
        constraints: &Constraints,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        // Several extents beneath one run of guest frames serve nobody, and it is the run that has to
        // be aligned: the device sees guest frames.
        let one_extent = constraints.to_builder().max_segments(1).align(1).build()?;
        let layout = Layout::new(size, &one_extent, refiller.limit())?;
        if constraints.sleep() == Sleep::MustNot {
            return Err(AllocError::MustNotSleep);
        }
        let frames = layout.frames();
        let platform = &self.platform;
        let mut lists = platform.lists(frames).ok_or(AllocError::NoListMemory { words: frames })?;
        let search = Search::new(platform.p2m(), constraints, &layout);
        let budget = search.budget();
        // Xen maps an extent with superpages where the guest's side of it is aligned, too.
        let mut aligned = |pfn: Pfn| match pfn.number().is_multiple_of(frames) {
            true => search.fits(pfn),
            false => Candidate::TryFrom(Pfn::new(pfn.number().next_multiple_of(frames))),
        };
        let run = platform
            .take_where(frames, budget, &mut aligned)
            .or_else(|| platform.take_where(frames, budget, &mut |pfn| search.fits(pfn)))
            .ok_or(AllocError::no_frames(frames, constraints))?;
        match refiller.refill(run, AddressBits::UNLIMITED, lists.as_mut()) {
            Ok(run) => {
                self.books.exchanged.fetch_add(1, Relaxed);
                Ok(self.finish(run, &layout, frames, constraints))
            }
            Err(ExchangeFailure { error, remaining }) => {
                let error = AllocError::of(error, remaining.lost());
                remaining.into_iter().for_each(|run| platform.give(run));
                Err(error)
            }
        }
    }

    fn exchange(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        layout: &Layout,
        constraints: &Constraints,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let frames = layout.frames();
        let words = frames + MAX_SEGMENTS as u64;
        let on_refusal = constraints.on_refusal();
        let mut lent = None;
        let mut placement = constraints.placement();
        let mut rejected: ArrayVec<FrameRun, { TRIES as usize }> = ArrayVec::new();
        let outcome = loop {
            let Some(run) = self.take(frames) else {
                break Err(AllocError::NoGuestMemory { frames });
            };
            // After the run: in a tight guest the lists would take the middle of the last one.
            lent = lent.or_else(|| self.platform.lists(words));
            let Some(lists) = &mut lent else {
                self.platform.give(run);
                break Err(AllocError::NoListMemory { words });
            };
            let parts = parts(layout, placement);
            let (backing, extents) = lists.as_mut().split_at_mut(frames as usize);
            let lists = Lists { backing, extents };
            let Progress { run, done, error } =
                match self.exchange_on_record(exchanger, run, &parts, on_refusal, lists) {
                    Ok(progress) => progress,
                    Err(ExchangeFailure { error, remaining }) => {
                        let error = AllocError::of(error, remaining.lost());
                        remaining.into_iter().for_each(|run| self.give_zeroed(run));
                        break Err(error);
                    }
                };
            match error {
                Some(
                    error @ (ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. }),
                ) if done == 0 && Some(placement) != constraints.wider_placement() => {
                    self.give_zeroed(run);
                    match constraints.wider_placement() {
                        Some(wider) => placement = wider,
                        None => break Err(AllocError::refused(error, constraints.node())),
                    }
                }
                Some(error) if done == 0 || on_refusal != OnRefusal::Return => {
                    self.give_zeroed(run);
                    break Err(AllocError::refused(error, constraints.node()));
                }
                _ if self.in_reach(&run, layout, done, constraints) => break Ok((run, done)),
                _ => {
                    rejected.push(run);
                    // Below the narrower limit only what is too low can be out of reach, and Xen
                    // hands out the highest first.
                    placement = constraints.wider_placement().unwrap_or(placement);
                    if rejected.is_full() {
                        let (lowest, mask) = (constraints.lowest(), constraints.mask());
                        break Err(AllocError::OutOfReach { lowest, mask, tries: TRIES });
                    }
                }
            }
        };
        // Not before: what lies out of reach must not come again.
        rejected.into_iter().for_each(|run| self.give_unfit(run, true));
        let (run, done) = outcome?;
        self.books.exchanged.fetch_add(1, Relaxed);
        Ok(self.finish(run, layout, done, constraints))
    }

    /// Takes a run, aligned as a superpage at most. What waits to be given back is of no use to a
    /// guest that has nothing else left, so then it goes back now.
    pub(super) fn take(&self, frames: u64) -> Option<FrameRun> {
        let take = || self.platform.take(frames, frames.next_power_of_two().min(512));
        take().or_else(|| {
            let report = self.give_back_waiting();
            (report.given > 0).then(take).flatten()
        })
    }

    /// Whether the device takes every segment of the first `done` frames.
    pub(super) fn in_reach(
        &self,
        run: &FrameRun,
        layout: &Layout,
        done: u64,
        constraints: &Constraints,
    ) -> bool {
        let mut first = 0;
        layout.segments().iter().all(|segment| {
            let at = first;
            first += segment.order.frames();
            let gfn = self.platform.p2m().gfn(run.first().add(at));
            let admits = |gfn: crate::addr::Gfn| {
                constraints.admits(gfn.number().saturating_mul(PAGE), segment.bytes)
            };
            first > done || gfn.is_some_and(admits)
        })
    }

    /// Makes a buffer of the first `done` frames of a run: cuts off what nobody asked for, zeroes
    /// the rest.
    pub(super) fn finish(
        &self,
        run: FrameRun,
        layout: &Layout,
        done: u64,
        constraints: &Constraints,
    ) -> CoherentBuffer<'_, P> {
        let mut frames = 0;
        let whole = layout.segments().iter().take_while(|segment| {
            frames += segment.order.frames();
            frames <= done
        });
        let lengths: ArrayVec<u64, MAX_SEGMENTS> = whole.map(|segment| segment.bytes).collect();
        let used = lengths.iter().sum::<u64>().div_ceil(PAGE);
        let (run, surplus) = run.split_at(used);
        if !surplus.is_empty() {
            // SAFETY: mapped and ours alone ([M1](crate::rules#M1)). It goes to whoever asks next,
            // and may hold what another domain left there ([C56](crate::conformance#C56)).
            unsafe { self.platform.memory().zero(surplus.first(), surplus.frames()) };
            self.platform.give(surplus);
        }
        if constraints.zeroing() == Zeroing::Zeroed {
            // SAFETY: the run is mapped and ours alone ([M1](crate::rules#M1)).
            unsafe { self.platform.memory().zero(run.first(), run.frames()) };
        }
        CoherentBuffer::new(self, run, lengths, true)
    }
}

impl<P: Platform> Drop for Allocator<P> {
    /// What waits to be given back stays the guest's, as ordinary memory.
    fn drop(&mut self) {
        self.abandon_waiting();
    }
}

/// What Xen is asked for: a call for each stretch of extents of one order.
fn parts(layout: &Layout, placement: Placement) -> ArrayVec<Part, MAX_SEGMENTS> {
    let mut parts = ArrayVec::new();
    let mut first = 0;
    for alike in layout.segments().chunk_by(|one, next| one.order == next.order) {
        let part = Part::gather(first, alike.len() as u64, alike[0].order, placement);
        first += part.frames();
        parts.push(part);
    }
    parts
}
