//! Returns idle memory: scarce memory to Xen, all other memory to the kernel.
//!
//! Released buffers stay in the reserve. If more is idle in a class than [`Retain`](super::Retain) says,
//! the next allocation that may sleep trims it after it was served. Scarce memory that came from Xen
//! returns to Xen, because other domains need it, too. All other memory becomes free memory of the kernel,
//! without a hypercall.

use core::array;
use core::sync::atomic::Ordering::Relaxed;

use hypercall::Xen;
use hypercall::trace::{Operation, Span};

use super::Allocator;
use super::class::LentFrames;
use super::release::taken;
use super::reserve::{Block, CLASSES, Extent, Origin, class_of};
use crate::addr::{Order, PAGE_SIZE, Pfn};
use crate::exchange::{
    ExchangeError, ExchangeFailure, Exchanger, Lists, Part, Placement, Progress,
};
use crate::frames::{Candidate, FrameRun};
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The longest run of lent frames that is returned to Xen at once.
const LONGEST_LENT: u64 = 512;

/// The most frames that one trim sets aside. If Xen refuses more than that, it may refuse all.
const MOST_SET_ASIDE: u64 = 64;

/// A block that Xen refused to take.
struct Refused {
    /// The frames that it did not take.
    frames: u64,
    /// No frame was set aside, so the same would be refused again.
    is_final: bool,
}

/// The result of a trim. All memory is counted in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimReport {
    /// Frames that Xen exchanged for others. A frame counts again if Xen handed out low memory for it, which
    /// was returned, too.
    pub returned: u64,
    /// Frames that became free memory of the kernel.
    pub freed: u64,
    /// Frames whose machine frames are unknown after a failure: they are quarantined
    /// ([M6](crate::rules#M6)).
    pub quarantined: u64,
    /// Frames that Xen refused to take. They are set aside, and the next trim offers them again.
    pub set_aside: u64,
    /// Why the last exchange was refused, if one was. Its memory stays in the reserve.
    pub error: Option<ExchangeError>,
}

impl<P: Platform> Allocator<P> {
    /// Trims what is idle above the watermarks of [`Retain`](super::Retain). Makes hypercalls if there is
    /// any.
    ///
    /// Each allocation that may sleep does the same after it was served. A kernel with an idle thread can
    /// call this there.
    ///
    /// May sleep and calls the kernel's frame allocator. It must not be called in an interrupt handler or
    /// under a lock of the kernel's. No lock is held during a hypercall.
    pub fn trim_excess(&self) {
        if self.watermarks.crossed.load(Relaxed) == 0 {
            return;
        }
        let mut crossed = self.watermarks.crossed.swap(0, Relaxed);
        self.highest_offer.store(CLASSES as u64, Relaxed);
        self.merge_recent();
        while crossed > 0 {
            let class = crossed.trailing_zeros() as usize;
            crossed &= crossed - 1;
            if class < CLASSES
                && self.reserve.with(|blocks| blocks.idle(class)) > self.watermarks.high()
            {
                let (mut all, mut report) = (u64::MAX, TrimReport::default());
                self.trim_class(class, self.watermarks.low, &mut all, &mut report);
            }
        }
    }

    /// Returns the number of idle frames in each class.
    pub(super) fn idle_by_class(&self) -> [u64; CLASSES] {
        self.merge_recent();
        self.reserve.with(|blocks| array::from_fn(|class| blocks.idle(class)))
    }

    /// Trims each class until no more than `idle` of its frames are idle.
    pub(super) fn trim_to(&self, idle: &[u64; CLASSES]) {
        self.highest_offer.store(CLASSES as u64, Relaxed);
        self.merge_recent();
        for (class, idle) in idle.iter().enumerate() {
            let (mut all, mut report) = (u64::MAX, TrimReport::default());
            self.trim_class(class, *idle, &mut all, &mut report);
        }
    }

    /// Gives idle memory up, at least `bytes` if there is as much: first what Xen refused to take, then
    /// what the kernel has of Xen's scarce memory, then idle blocks of the reserve, the smallest first.
    ///
    /// For a kernel that runs out of memory and may sleep, and for a driver that is done.
    /// `trim(u64::MAX)` leaves nothing idle; what the reserve needs for its records is freed, too.
    ///
    /// Makes hypercalls, may sleep and calls the kernel's frame allocator. It must not be called in an
    /// interrupt handler or under a lock of the kernel's. No lock is held during a hypercall.
    pub fn trim(&self, bytes: u64) -> TrimReport {
        let operation = Span::Operation(Operation::new("trim", bytes));
        self.platform().xen().within(operation, || self.trim_frames(bytes.div_ceil(PAGE)))
    }

    fn trim_frames(&self, frames: u64) -> TrimReport {
        let mut report = TrimReport::default();
        self.highest_offer.store(CLASSES as u64, Relaxed);
        self.growth.reset();
        self.backoff.reset();
        self.extents_of_xen.reset();
        self.retry_set_aside(&mut report);
        self.return_lent(&mut report);
        let mut remaining = frames;
        self.merge_recent();
        // The lowest class first: other domains need low memory most.
        for class in 0..CLASSES {
            self.trim_class(class, 0, &mut remaining, &mut report);
        }
        // The records may have been in lent frames, which are free only now, and Xen may have handed out
        // lower memory than it has since.
        let mut lent = u64::MAX;
        loop {
            self.reserve.remove_pages(self.platform());
            if self.lent.total() == 0 || self.lent.total() >= lent {
                break;
            }
            lent = self.lent.total();
            self.return_lent(&mut report);
        }
        report
    }

    /// Trims a class until no more than `low` frames are idle, or `remaining` frames were given up.
    fn trim_class(&self, class: usize, low: u64, remaining: &mut u64, report: &mut TrimReport) {
        let memory = self.platform().memory();
        while *remaining > 0 {
            let block = self.reserve.with(|blocks| {
                let above = blocks.idle(class) > low;
                above.then(|| blocks.take_smallest(memory, class)).flatten()
            });
            let Some(block) = block else { return };
            let frames = block.order.frames();
            let exchanger = self.exchanger().filter(|_| self.belongs_to_xen(&block));
            let returned = match exchanger {
                Some(exchanger) => self.return_block(&exchanger, block, report),
                None => {
                    report.freed += frames;
                    // Xen has none of a higher class, but it may have some later.
                    if block.origin == Origin::Exchanged {
                        self.lend_gained(class, frames);
                    }
                    self.free(block);
                    Ok(())
                }
            };
            let kept = match returned {
                Ok(()) => 0,
                Err(Refused { is_final: true, .. }) => return,
                Err(Refused { frames, .. }) => frames,
            };
            *remaining = remaining.saturating_sub(frames - kept);
        }
    }

    /// Returns true if a block has to be returned to Xen: Xen exchanged it, it is scarce, and Xen has
    /// memory of a higher class.
    fn belongs_to_xen(&self, block: &Block) -> bool {
        let class = class_of(block.gfn, block.order.frames());
        block.origin == Origin::Exchanged
            && LentFrames::is_scarce(class)
            && (class as u64) < self.highest_offer.load(Relaxed)
    }

    /// Exchanges a block for memory without an address limit, which becomes the kernel's. A frame that Xen
    /// refuses is set aside.
    ///
    /// # Errors
    /// How many frames are in the reserve again, if Xen refused.
    fn return_block(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        block: Block,
        report: &mut TrimReport,
    ) -> Result<(), Refused> {
        let Err(rest) = self.return_run(exchanger, taken(&block), block.order, report) else {
            return Ok(());
        };
        let frames = rest.frames();
        let (rest, after) = match self.set_refused_aside(rest, report) {
            Ok(others) => others,
            Err(rest) => (rest, FrameRun::EMPTY),
        };
        let is_final = rest.frames() == frames;
        for part in [&rest, &after] {
            for extent in self.extents(part.first(), part.frames()) {
                let extent = Extent { origin: Origin::Exchanged, ..extent };
                self.reserve.insert(self.platform(), extent, true);
            }
        }
        Err(Refused { frames, is_final })
    }

    /// Sets the frame of a run aside that Xen refused. Returns the frames before and after it.
    ///
    /// # Errors
    /// The run, if the refusal did not name a frame, or if this trim has set aside [`MOST_SET_ASIDE`]
    /// frames already.
    fn set_refused_aside(
        &self,
        run: FrameRun,
        report: &mut TrimReport,
    ) -> Result<(FrameRun, FrameRun), FrameRun> {
        let frames = run.first()..run.first().add(run.frames());
        let (pfn, error) = match report.error {
            Some(error @ ExchangeError::FrameBusy { pfn, .. }) if frames.contains(&pfn) => {
                (pfn, error)
            }
            _ => return Err(run),
        };
        if report.set_aside == MOST_SET_ASIDE {
            return Err(run);
        }
        report.set_aside += 1;
        Ok(self.set_aside(run, pfn, &error))
    }

    /// Exchanges a covered run, an extent of `order`, for memory without an address limit, which becomes
    /// the kernel's. Asks for an extent first, so that neither the host nor the guest is fragmented.
    ///
    /// # Errors
    /// What remains of the run, if Xen refused.
    fn return_run(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        run: FrameRun,
        order: Order,
        report: &mut TrimReport,
    ) -> Result<(), FrameRun> {
        let (mut order, mut rest) = (order.min(exchanger.limit()), run);
        let mut longest = rest.frames();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(longest);
            let Err((unreturned, error)) = self.return_part(exchanger, part, order, report) else {
                rest = after;
                continue;
            };
            rest = unreturned.join(after);
            // A kernel without memory for the lists may have some for shorter ones, and more with each part
            // that it receives.
            if !matches!(error, ExchangeError::NoListMemory { .. }) || longest == 1 {
                self.counters.refusals.fetch_add(1, Relaxed);
                report.error = Some(error);
                return Err(rest);
            }
            longest = longest.next_power_of_two() / 2;
            order = order.min(Order::new(longest.ilog2()).unwrap_or(Order::ZERO));
        }
        Ok(())
    }

    /// Exchanges a part of a run for extents of `order`, or for single frames if Xen has none. If extents of
    /// an order are low memory, Xen may have higher memory in shorter ones, or in single frames, such as the guest gave it.
    fn return_part(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        mut part: FrameRun,
        order: Order,
        report: &mut TrimReport,
    ) -> Result<(), (FrameRun, ExchangeError)> {
        let class = self.highest_class(part.first(), part.frames());
        // After a partial exchange, the rest need not be a whole number of such extents.
        let whole = Order::new(part.frames().trailing_zeros()).unwrap_or(Order::MAX);
        let longest = order.min(whole).up_to().rev().take(2).filter(|order| *order > Order::ZERO);
        for order in longest {
            let order_index = order.get() as usize;
            if !self.extents_of_xen.is_due(order_index) {
                continue;
            }
            match self.return_as(exchanger, part, (order, class), report) {
                Ok(None) => {
                    self.extents_of_xen.note(order_index, true);
                    return Ok(());
                }
                Ok(Some(low)) => {
                    self.extents_of_xen.note(order_index, false);
                    part = low;
                }
                Err((rest, _)) => {
                    part = rest;
                    break;
                }
            }
        }
        self.return_as(exchanger, part, (Order::ZERO, class), report).map(|_| ())
    }

    /// Exchanges a run that had memory up to `class` for extents of `order`. Returns the run if Xen handed out
    /// low memory, unless `order` is 0.
    fn return_as(
        &self,
        exchanger: &Exchanger<'_, P::Xen, P::Linear>,
        run: FrameRun,
        (order, class): (Order, usize),
        report: &mut TrimReport,
    ) -> Result<Option<FrameRun>, (FrameRun, ExchangeError)> {
        let (first, frames) = (run.first(), run.frames());
        let extents = frames >> order.get();
        let words = frames + extents;
        let Some(mut lists) = self.lists(words) else {
            return Err((run, ExchangeError::NoListMemory { words }));
        };
        let swap = Part::swap(0, extents, order, Placement::ANYWHERE);
        let (backing, extents) = lists.as_mut().split_at_mut(frames as usize);
        let (_, result) = self.transact(exchanger, run, &[swap], Lists { backing, extents });
        match result {
            Ok(Progress { run, done, error }) => {
                let (returned, rest) = run.split_at(done);
                if order > Order::ZERO && self.is_low_offer(first, done) {
                    return Ok(Some(returned.join(rest)));
                }
                self.settle_offer(class, first, done);
                report.returned += done;
                self.counters.returned.fetch_add(done, Relaxed);
                self.give_covered_zeroed(returned);
                error.map_or(Ok(None), |error| Err((rest, error)))
            }
            Err(ExchangeFailure { error, remaining }) => match remaining.whole() {
                Ok(run) => Err((run, error)),
                Err(remaining) => {
                    report.error = Some(error);
                    report.quarantined += remaining.lost();
                    let scarce = self.scarce_frames(first, frames);
                    report.freed += remaining.frames() - scarce.total();
                    self.lent.lend_all(&scarce);
                    self.give_remaining(first, remaining);
                    Ok(None)
                }
            },
        }
    }

    /// Returns the highest class of a run's frames.
    pub(super) fn highest_class(&self, first: Pfn, frames: u64) -> usize {
        self.extents(first, frames).map(|it| class_of(it.gfn, it.frames)).max().unwrap_or(0)
    }

    /// Returns true if a part of what Xen handed out lies below memory that the guest had at the start,
    /// and below what Xen handed out before.
    fn is_low_offer(&self, first: Pfn, frames: u64) -> bool {
        let enough = (self.top_class() as u64).min(self.highest_offer.load(Relaxed));
        self.extents(first, frames).any(|Extent { gfn, frames, .. }| {
            let class = class_of(gfn, frames);
            LentFrames::is_scarce(class) && (class as u64) < enough
        })
    }

    /// Records what Xen handed out for frames of `class`.
    fn settle_offer(&self, class: usize, first: Pfn, frames: u64) {
        if frames == 0 {
            return;
        }
        // If it handed out lower memory, it has some of `class` now.
        let is_lower = self.lend_offer(class, first, frames);
        let highest = self.highest_class(first, frames).max(if is_lower { class } else { 0 });
        self.highest_offer.store(highest as u64, Relaxed);
    }

    /// Offers the frames that Xen refused once more.
    fn retry_set_aside(&self, report: &mut TrimReport) {
        let (memory, Some(exchanger)) = (self.platform().memory(), self.exchanger()) else {
            return;
        };
        let count = self.reserve.with(|blocks| blocks.set_aside_frames());
        for _ in 0..count {
            let Some(pfn) = self.reserve.with(|blocks| blocks.take_set_aside(memory)) else {
                return;
            };
            // SAFETY: the reserve owned the frame, and has just forgotten it ([M1](crate::rules#M1)).
            let run = unsafe { FrameRun::new(pfn, 1) };
            if self.return_run(&exchanger, run, Order::ZERO, report).is_err() {
                self.reserve.with(|blocks| blocks.set_aside(memory, pfn));
                if !matches!(report.error, Some(ExchangeError::FrameBusy { .. })) {
                    return;
                }
            }
        }
    }

    /// Returns scarce memory of Xen's that the kernel had, as far as it is free.
    fn return_lent(&self, report: &mut TrimReport) {
        let Some(exchanger) = self.exchanger() else { return };
        let (mut highest, mut longest) = (CLASSES, LONGEST_LENT);
        while let Some(class) = self.lent.highest_class(highest) {
            let lent = self.lent.of_class(class);
            let frames = longest.min(1 << lent.checked_ilog2().unwrap_or(0));
            let is_offered = (class as u64) < self.highest_offer.load(Relaxed);
            let Some(run) = is_offered.then(|| self.take_of_class(class, frames)).flatten() else {
                if is_offered && frames > 1 {
                    longest = frames / 2;
                    continue;
                }
                // The kernel uses the others of this class, or Xen has none of a higher one.
                let Some(lower) = class.checked_sub(1) else { return };
                (highest, longest) = (lower, LONGEST_LENT);
                continue;
            };
            let settled = self.lent.settle(class, frames);
            if self.reserve.cover(self.platform(), run.first(), frames).is_err() {
                self.lent.lend(class, settled);
                self.platform().give(run);
                return;
            }
            let quarantined = report.quarantined;
            let Err(rest) = self.return_run(&exchanger, run, Order::ZERO, report) else {
                if report.quarantined > quarantined {
                    return;
                }
                continue;
            };
            let (others, is_final) = match self.set_refused_aside(rest, report) {
                Ok((before, after)) => ([before, after], false),
                Err(rest) => ([rest, FrameRun::EMPTY], true),
            };
            let scarce = |run: &FrameRun| self.scarce_frames(run.first(), run.frames());
            let still = others.iter().map(|run| scarce(run).of_class(class)).sum();
            self.lent.lend(class, settled.min(still));
            others.into_iter().for_each(|run| self.give_covered_zeroed(run));
            if is_final {
                return;
            }
        }
    }

    /// Takes free frames of the kernel that are all of one class.
    fn take_of_class(&self, class: usize, frames: u64) -> Option<FrameRun> {
        let p2m = self.platform().p2m();
        let is_of_class = |pfn| p2m.gfn(pfn).is_some_and(|gfn| class_of(gfn, 1) == class);
        let mut fits = |first: Pfn| {
            let mut run = (0..frames).rev().map(|index| first.add(index));
            match run.find(|pfn| !is_of_class(*pfn)) {
                Some(other) => Candidate::TryFrom(other.add(1)),
                None => Candidate::Fits,
            }
        };
        self.take_first(frames, Pfn::new(0), &mut fits)
    }
}
