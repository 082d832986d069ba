//! Whether memory fits as it is, so that Xen need not be asked.

use core::ops::Range;

use super::constraints::Sleep;
use super::{Constraints, Layout};
use crate::addr::{Gfn, PAGE_SIZE, Pfn};
use crate::exchange::Node;
use crate::frames::Candidate;
use crate::p2m::P2m;

const PAGE: u64 = PAGE_SIZE as u64;

/// Further on than any frame: what comes before it need not be looked at.
const NOWHERE: Candidate = Candidate::TryFrom(Pfn::new(u64::MAX >> 1));

/// How far a look goes, at least, where frames are out of reach. Not far: of what comes behind the
/// run, nothing may be free.
const REACH_OF_A_LOOK: u64 = 32;

/// How many runs are looked at where Xen can't be asked instead, ...
const LOOKS: u64 = 4096;

/// ... and where it can: for one frame, and for each more. To ask Xen for a frame takes as long as
/// some hundred looks.
const LOOKS_BEFORE_XEN: u64 = 128;
const LOOKS_PER_FRAME: u64 = 8;

/// Looks for memory that is in one piece, and that the device takes cut as the layout says.
pub struct Search<'s> {
    p2m: &'s P2m<'s>,
    constraints: &'s Constraints,
    layout: &'s Layout,
    frames: u64,
    /// Frames that the device reaches at least a byte of.
    reach: Range<Gfn>,
}

impl<'s> Search<'s> {
    /// A search under constraints for what a layout needs.
    pub fn new(p2m: &'s P2m<'s>, constraints: &'s Constraints, layout: &'s Layout) -> Self {
        let frame = |address| Gfn::new(address / PAGE);
        let reach = frame(constraints.lowest())..frame(constraints.mask()).add(1);
        Self { p2m, constraints, layout, frames: layout.used_frames(), reach }
    }

    /// How many runs are worth a look.
    pub fn budget(&self) -> u32 {
        let looks = match self.constraints.sleep() {
            Sleep::May if !self.p2m.is_translated() => {
                LOOKS_BEFORE_XEN + LOOKS_PER_FRAME * self.frames
            }
            _ => LOOKS,
        };
        looks.min(LOOKS) as u32
    }

    /// Whether the run from `first` on fits. If not, the next candidate skips what can't: a run is
    /// looked at from its end, and where a frame there can't serve, none of the runs does that it is
    /// in.
    pub fn fits(&self, first: Pfn) -> Candidate {
        // Xen does not say on which node a frame lies, so exactness can't be seen from here.
        if matches!(self.constraints.node(), Node::Exactly(_)) {
            return NOWHERE;
        }
        if self.p2m.is_translated() {
            return self.fits_translated(first);
        }
        let behind = first.add(self.frames);
        let last = self.p2m.gfn(first.add(self.frames - 1));
        let Some(last) = last.filter(|gfn| self.reach.contains(gfn)) else {
            let further = REACH_OF_A_LOOK.saturating_sub(self.frames);
            return Candidate::TryFrom(self.p2m.first_within(behind, further, &self.reach));
        };
        let piece = self.p2m.last_piece(first, self.frames);
        if piece != first {
            return Candidate::TryFrom(piece);
        }
        // In one piece, so an address further on is a frame further on.
        let start = (last.number() - (self.frames - 1)).saturating_mul(PAGE);
        let Some(segment) = self.layout.segments().first() else { return NOWHERE };
        match self.constraints.next_admitted(start, segment.bytes) {
            None => Candidate::TryFrom(behind),
            Some(next) if next > start => {
                Candidate::TryFrom(first.add(((next - start) / PAGE).min(self.frames)))
            }
            Some(_) if self.admits_all(start) => Candidate::Fits,
            Some(_) => Candidate::TryFrom(first.add(1)),
        }
    }

    /// The same in a translated guest, all of whose memory is one piece: the constraints alone say
    /// which run is next, however far it is.
    fn fits_translated(&self, first: Pfn) -> Candidate {
        let (Some(segment), Some(start), Some(_)) = (
            self.layout.segments().first(),
            first.number().checked_mul(PAGE),
            self.p2m.gfn(first.add(self.frames - 1)),
        ) else {
            return NOWHERE;
        };
        match self.constraints.next_admitted(start, segment.bytes) {
            None => NOWHERE,
            Some(next) if next > start => Candidate::TryFrom(Pfn::new(next / PAGE)),
            Some(_) if self.admits_all(start) => Candidate::Fits,
            Some(_) => Candidate::TryFrom(first.add(1)),
        }
    }

    fn admits_all(&self, start: u64) -> bool {
        let mut address = start;
        self.layout.segments().iter().all(|segment| {
            let here = address;
            address = address.saturating_add(segment.bytes);
            self.constraints.admits(here, segment.bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::addr::Order;
    use crate::sync::AtomicU64;

    const FRAMES: u64 = 200;

    struct FitRandom(u64);

    impl FitRandom {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// Pieces of a few frames, some of them not populated.
    fn entries(random: &mut FitRandom) -> Vec<AtomicU64> {
        let (mut entries, mut next) = (Vec::new(), 0);
        let longest = 1 + random.below(40);
        while (entries.len() as u64) < FRAMES {
            if random.below(longest) == 0 {
                next = random.below(512);
            }
            let hole = random.below(50) == 0;
            entries.push(AtomicU64::new(if hole { u64::MAX } else { next }));
            next += 1;
        }
        entries
    }

    fn constraints(random: &mut FitRandom) -> Constraints {
        let mut it = Constraints::builder().mask((PAGE << (4 + random.below(6))) - random.below(2));
        if random.below(2) == 0 {
            it = it.align(PAGE << random.below(4));
        }
        if random.below(2) == 0 {
            it = it.boundary(PAGE << random.below(5)).max_segments(8);
        }
        if random.below(2) == 0 {
            it = it.lowest(random.below(8 * PAGE));
        }
        it.build().unwrap_or_default()
    }

    /// By the letter: every frame follows the one before it, and every segment is admitted.
    fn is_fit(p2m: &P2m<'_>, constraints: &Constraints, layout: &Layout, first: u64) -> bool {
        let gfn = |index| p2m.gfn(Pfn::new(first + index)).map(Gfn::number);
        let Some(start) = gfn(0) else { return false };
        let mut offset = 0;
        (0..layout.used_frames()).all(|index| gfn(index) == Some(start + index))
            && layout.segments().iter().all(|segment| {
                let address = start * PAGE + offset;
                offset += segment.bytes;
                constraints.admits(address, segment.bytes)
            })
    }

    #[test]
    fn nothing_that_fits_is_skipped_and_nothing_else_is_taken() {
        let mut random = FitRandom(0x1234_5678_9abc_def1);
        let (mut found, mut none) = (0, 0);
        for _ in 0..4000 {
            let (entries, constraints) = (entries(&mut random), constraints(&mut random));
            let translated = random.below(4) == 0;
            // SAFETY: a test's table; nothing is mapped by it ([M4](crate::rules#M4)).
            let table = unsafe { P2m::table(&entries) };
            let p2m = if translated { P2m::translated(FRAMES) } else { table };
            let size = 1 + random.below(12 * PAGE);
            let Ok(layout) = Layout::new(size, &constraints, Order::MAX) else { continue };
            let search = Search::new(&p2m, &constraints, &layout);
            let mut at = Pfn::new(0);
            let reached = loop {
                match search.fits(at) {
                    _ if at.number() >= FRAMES => break None,
                    Candidate::Fits => break Some(at.number()),
                    Candidate::TryFrom(next) => {
                        assert!(next > at, "{next} behind {at}");
                        at = next;
                    }
                }
            };
            let first = (0..FRAMES).find(|first| is_fit(&p2m, &constraints, &layout, *first));
            assert_eq!(reached, first, "{size} bytes, {constraints:?}, {layout:?}");
            *if first.is_some() { &mut found } else { &mut none } += 1;
        }
        assert!(found > 400 && none > 400, "{found} found, {none} not: a test of little");
    }
}
