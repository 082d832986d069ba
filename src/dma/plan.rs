//! What a request needs: a size and a device's limits, checked against each other.
//!
//! A [`Plan`] answers whether memory serves a request, which extents to ask for, and where in the
//! guest's memory to look next. It is pure: it reads the P2M and changes nothing.

use super::constraints::Constraints;
use super::error::AllocError;
use super::segments::{CutRules, JoinedPieces, Piece, is_aligned, round_down};
use crate::addr::{Gfn, Order, PAGE_SIZE, Pfn};

const PAGE: u64 = PAGE_SIZE as u64;

/// How many starts within one boundary a probe of translated memory tries.
const STARTS_PER_PROBE: u32 = 32;

/// A request that some memory can satisfy, as far as the device's limits tell.
///
/// # Where a buffer begins
/// A buffer begins at a page and at a multiple of the device's alignment. If the device takes one
/// segment only, the buffer also begins at a multiple of the smallest power of two of pages that holds
/// it, as with Linux's `dma_alloc_coherent`. Users can rely on that. With more segments, only the
/// device's alignment holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    size: u64,
    limits: Constraints,
    /// The caller gets zeros.
    zeroed: bool,
}

/// Extents of one order that together serve a request, wherever each of them lies within reach.
///
/// All but the last serve with their first [`frames`](Self::frames) frames. The last serves with its
/// first frames, too: with those that the buffer still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExtentPlan {
    /// The order of each extent, whose first frame is a multiple of its size.
    pub order: Order,
    /// The number of extents, at least two.
    pub count: u64,
    /// The number of frames that each but the last serves with.
    pub frames: u64,
}

impl Plan {
    /// Checks a request of `size` bytes against the device's limits.
    ///
    /// What is refused can be served by no memory at all. A request that passes can still be one that
    /// this machine's memory never serves.
    ///
    /// # Errors
    /// Names the limit that forbids the request, and the size as it was asked for.
    pub fn new(size: u64, limits: &Constraints) -> Result<Self, AllocError> {
        let plan = Self::unchecked(size, limits);
        plan.check()?;
        Ok(plan)
    }

    /// Returns a plan to [check](Self::check). The two steps spare each allocation two copies of the plan.
    #[inline]
    pub const fn unchecked(size: u64, limits: &Constraints) -> Self {
        Self { size, limits: *limits, zeroed: true }
    }

    /// Checks the size against the limits, as [`new`](Self::new).
    pub fn check(&self) -> Result<(), AllocError> {
        match self.size {
            0 => Err(AllocError::ZeroSize),
            size if size > Order::MAX.bytes() => {
                Err(AllocError::TooLarge { size, max: Order::MAX.bytes() })
            }
            _ => self.check_reach(self.check_segments()?),
        }
    }

    /// Returns the number of segments without which nothing serves.
    fn check_segments(&self) -> Result<u64, AllocError> {
        let (size, allowed) = (self.size, self.limits.max_segments());
        let (max_segment, align) = (self.limits.max_segment(), self.limits.align());
        let segment = self.rules().longest();
        match self.fewest_segments() {
            Some(needed) if needed <= allowed as u64 => Ok(needed),
            _ if allowed == 1 && size > max_segment => {
                Err(AllocError::SegmentTooLong { size, max_segment })
            }
            _ if allowed == 1 => Err(AllocError::CrossesBoundary { size, boundary: segment }),
            Some(needed) => Err(AllocError::TooManySegments { needed, allowed, segment }),
            None => Err(AllocError::SegmentBelowAlignment { segment, align, limit: None }),
        }
    }

    /// Checks that the lowest address and the mask leave enough bytes, and enough aligned addresses for
    /// `segments` segments.
    fn check_reach(&self, segments: u64) -> Result<(), AllocError> {
        let (align, lowest, mask) = (self.start_align(), self.limits.lowest(), self.limits.mask());
        let starts = (segments - 1).saturating_mul(self.limits.align());
        let last = lowest
            .checked_add(align - 1)
            .map(|lowest| round_down(lowest, align))
            .and_then(|first| first.checked_add(starts.max(self.size - 1)));
        match last {
            Some(last) if last <= mask => Ok(()),
            _ => Err(AllocError::LargerThanReach { size: self.size, align, lowest, mask }),
        }
    }

    /// Returns the same request for memory whose content stays as it is.
    pub const fn keeping_content(self) -> Self {
        Self { zeroed: false, ..self }
    }

    /// Returns true if the memory is zeroed before the caller gets it.
    pub const fn is_zeroed(&self) -> bool {
        self.zeroed
    }

    /// Returns the number of bytes that were asked for.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the number of frames of the buffer.
    pub const fn frames(&self) -> u64 {
        self.size.div_ceil(PAGE)
    }

    /// Returns the device's limits.
    pub const fn limits(&self) -> &Constraints {
        &self.limits
    }

    const fn rules(&self) -> CutRules {
        CutRules::new(&self.limits)
    }

    const fn allowed(&self) -> u64 {
        self.limits.max_segments() as u64
    }

    /// Returns what the address of each piece is a multiple of.
    fn start_align(&self) -> u64 {
        let align = self.limits.align().max(PAGE);
        match self.limits.max_segments() {
            1 => align.max(self.frames().next_power_of_two() * PAGE),
            _ => align,
        }
    }

    /// Returns the length of the longest segment that another one can follow, in the same piece or in
    /// another one.
    fn longest_before_another(&self) -> u64 {
        // Another piece begins at a page of the buffer, another segment of the piece where the
        // alignment allows it.
        round_down(self.rules().longest(), self.limits.align().min(PAGE))
    }

    /// Returns a number of segments below which no memory serves, or `None` if no number does.
    fn fewest_segments(&self) -> Option<u64> {
        let (longest, inside) = (self.rules().longest(), self.longest_before_another());
        if self.size <= longest {
            return Some(1);
        }
        if self.limits.align() <= PAGE && self.limits.boundary().is_some_and(|it| it <= PAGE) {
            // All pages are alike, wherever they lie.
            return self.rules().count(0, self.size);
        }
        (inside > 0).then(|| 1 + (self.size - longest).div_ceil(inside))
    }

    /// Returns the frames that the number of the first frame of each piece is a multiple of.
    pub fn align_frames(&self) -> u64 {
        self.start_align() / PAGE
    }

    /// Returns the number of segments of `bytes` bytes at `address`, or `None` if the device cannot be
    /// given a piece there.
    fn segments_at(&self, address: u64, bytes: u64) -> Option<u64> {
        let last = address.checked_add(bytes.checked_sub(1)?)?;
        let reached = address >= self.limits.lowest() && last <= self.limits.mask();
        let serves = reached && is_aligned(address, self.start_align());
        serves.then(|| self.rules().count(address, bytes))?
    }

    /// Returns the smallest order of a block that serves the whole request with its first frames.
    ///
    /// The block is aligned to its own size in machine addresses; it may lie anywhere as long as the
    /// frames that serve are within reach. Returns `None` if the device would need more segments than it
    /// takes, or if the alignment is above the size of the largest block.
    pub fn block(&self) -> Option<Order> {
        // Within a block there is a boundary only if the block begins at one.
        self.rules().count(0, self.size).filter(|count| *count <= self.allowed())?;
        let bytes = self.size.max(self.limits.align());
        Order::new(bytes.div_ceil(PAGE).next_power_of_two().ilog2()).ok()
    }

    /// Returns the extents to ask for where no block is available, from order `highest` down.
    ///
    /// The first order can be `highest` itself. There is one entry at most for each order: the one that
    /// uses most of each extent. An order of which half an extent would serve has none. There is none
    /// at all if the device takes one segment only: then [`block`](Self::block) is the only way.
    pub fn extents(&self, highest: Order) -> impl Iterator<Item = ExtentPlan> {
        let plan = *self;
        highest.up_to().rev().filter_map(move |order| plan.extents_of(order))
    }

    fn extents_of(&self, order: Order) -> Option<ExtentPlan> {
        let (align, longest) = (self.limits.align(), self.rules().longest());
        if self.limits.max_segments() == 1 || order.bytes() < align {
            return None;
        }
        let window = order.bytes().min(self.limits.boundary().unwrap_or(u64::MAX));
        let segment = self.rules().longest_inside();
        // The shortest sequence of longest segments that ends at a page.
        let group = PAGE.checked_div(align_of(segment).min(PAGE)).unwrap_or(0);
        let group = segment.saturating_mul(group);
        let multiple_below = |bytes: u64| window.checked_div(bytes).map_or(0, |it| it * bytes);
        // All of the extent; the longest segments that it holds; those of them of which none is shortened
        // at the end of a page; the longest segment alone.
        [order.bytes(), multiple_below(segment), multiple_below(group), longest]
            .into_iter()
            .map(|bytes| bytes.min(order.bytes()) / PAGE)
            .filter(|frames| (1..self.frames()).contains(frames))
            .flat_map(|frames| {
                let count = self.frames().div_ceil(frames);
                // The last one alone may serve with more.
                [count, count - 1].map(|count| ExtentPlan { order, count, frames })
            })
            .find(|extents| self.takes(extents))
    }

    /// Returns true if the device takes the extents, wherever each lies within reach.
    fn takes(&self, extents: &ExtentPlan) -> bool {
        let Some(others) = extents.count.checked_sub(1).filter(|others| *others > 0) else {
            return false;
        };
        let (rules, bytes) = (self.rules(), extents.frames * PAGE);
        let last = self.size - others * bytes;
        let segments = || {
            let others = others.checked_mul(rules.count(0, bytes)?)?;
            others.checked_add(rules.count(0, last)?)
        };
        // If half of each extent served, the next order would have the same entry with less surplus.
        let used = bytes.max(last).max(self.limits.align());
        used.next_power_of_two() == extents.order.bytes()
            && segments().is_some_and(|it| it <= self.allowed())
    }

    /// Returns the frames that the guest frame of a buffer is a multiple of.
    pub const fn guest_align_frames(&self) -> u64 {
        self.limits.frame_align().div_ceil(PAGE)
    }

    /// Returns the first guest frame from `pfn` on that has the alignment that the caller asks of guest
    /// addresses.
    pub fn next_aligned(&self, pfn: Pfn) -> Option<Pfn> {
        // Each candidate comes here. The alignment is a power of two, so no division is necessary.
        let skipped = pfn.number().wrapping_neg() & (self.guest_align_frames() - 1);
        pfn.number().checked_add(skipped).map(Pfn::new)
    }

    /// Returns true if a buffer may begin at a guest frame, whatever backs it.
    pub fn is_aligned(&self, pfn: Pfn) -> bool {
        self.next_aligned(pfn) == Some(pfn)
    }

    /// Returns true if the frames from `pfn` on, which `gfn` backs, serve as a whole buffer.
    pub fn serves_from(&self, pfn: Pfn, gfn: Gfn) -> bool {
        self.is_aligned(pfn) && self.serves_in_one_piece(gfn.number())
    }

    /// Returns the frames of an extent that lie before a buffer of one piece, or `None` if no part of the
    /// extent serves. The extent has `frames` frames from `pfn` on, which `gfn` and the following back.
    ///
    /// The lowest address and the mask may each cut the extent in two. The answer is the first start that
    /// serves, unless there were too many to try.
    pub fn start_within(&self, pfn: Pfn, gfn: Gfn, frames: u64) -> Option<u64> {
        let mut before = 0;
        for _ in 0..STARTS_PER_PROBE {
            before = self.next_in_one_piece(gfn.number() + before)? - gfn.number();
            let start = Pfn::new(pfn.number().checked_add(before)?);
            let skipped = self.next_aligned(start)?.number() - start.number();
            if skipped == 0 {
                break;
            }
            before = before.checked_add(skipped)?;
        }
        let holds = before.checked_add(self.frames()).is_some_and(|end| end <= frames);
        (holds && self.serves_from(pfn.add(before), gfn.add(before))).then_some(before)
    }

    /// Returns true if the device takes a buffer that is made of these pieces, first to last.
    ///
    /// Frames after the last that the buffer needs do not count.
    pub fn accepts(&self, pieces: impl Iterator<Item = Piece>) -> bool {
        let (mut remaining, mut segments) = (self.size, 0_u64);
        for piece in JoinedPieces::new(pieces) {
            let bytes = piece.bytes.min(remaining);
            let Some(more) = self.segments_at(piece.address, bytes) else { return false };
            segments = segments.saturating_add(more);
            remaining -= bytes;
            if remaining == 0 || segments > self.allowed() {
                break;
            }
        }
        remaining == 0 && segments <= self.allowed()
    }

    /// Returns the first address from `address` on where a buffer can begin, as far as the limits alone
    /// tell.
    fn next_start(&self, address: u64) -> Option<u64> {
        let align = self.start_align();
        let start = address.max(self.limits.lowest()).checked_next_multiple_of(align)?;
        match self.limits.boundary() {
            Some(boundary) if self.rules().until_boundary(start) < self.shortest_first() => {
                start.checked_next_multiple_of(boundary)?.checked_next_multiple_of(align)
            }
            _ => Some(start),
        }
    }

    /// Returns what the first segment must hold because the other ones cannot hold more.
    fn shortest_first(&self) -> u64 {
        let others = match self.allowed().checked_sub(2) {
            Some(between) => between
                .saturating_mul(self.longest_before_another())
                .saturating_add(self.rules().longest()),
            None => 0,
        };
        self.size.saturating_sub(others)
    }

    fn serves_in_one_piece(&self, frame: u64) -> bool {
        let segments = frame.checked_mul(PAGE).and_then(|at| self.segments_at(at, self.size));
        segments.is_some_and(|segments| segments <= self.allowed())
    }

    /// Returns a frame from `frame` on before which no single piece can serve. It can itself serve,
    /// unless there were too many to try.
    fn next_in_one_piece(&self, frame: u64) -> Option<u64> {
        let mut start = self.next_start(frame.checked_mul(PAGE)?)?;
        for _ in 0..STARTS_PER_PROBE {
            start.checked_add(self.size - 1).filter(|last| *last <= self.limits.mask())?;
            if self.serves_in_one_piece(start / PAGE) {
                break;
            }
            start = self.next_start(self.next_shorter_head(start)?)?;
        }
        Some(start / PAGE)
    }

    /// Returns the next address with fewer segments before the first boundary than from `start` on, if
    /// there is a boundary in the buffer. Up to there, a later start only adds segments after it.
    fn next_shorter_head(&self, start: u64) -> Option<u64> {
        let head = self.rules().until_boundary(start);
        if self.size <= head {
            return None;
        }
        let shorter = (head - 1).checked_div(self.rules().longest_inside())?;
        start.checked_add(head - shorter * self.rules().longest_inside())
    }
}

/// Returns the largest power of two that divides a value.
const fn align_of(value: u64) -> u64 {
    value & value.wrapping_neg()
}

mod candidate;
#[cfg(test)]
mod tests;
