//! Where in the guest's memory to look next for a run that serves a request.

use core::ops::Range;

use super::Plan;
use crate::addr::{Gfn, PAGE_SIZE, Pfn};
use crate::exchange::Node;
use crate::frames::Candidate;
use crate::p2m::P2m;

const PAGE: u64 = PAGE_SIZE as u64;

/// How many P2M entries past the run a failed probe reads, to skip frames that are out of reach.
/// Few, because frames past a free run need not be free.
pub(super) const LOOKAHEAD: u64 = 32;

/// The answer that ends a search: no frame has this number.
const NOWHERE: Candidate = Candidate::TryFrom(Pfn::new(u64::MAX >> 1));

impl Plan {
    /// Probes the run of [`frames`](Self::frames) frames from `first` on, for a search of free memory.
    ///
    /// If the run does not fit, the answer skips nothing that fits. A probe reads two P2M entries per
    /// frame of the run at most and 32 past it. In a translated guest it reads none.
    ///
    /// Where memory lies on a NUMA node cannot be read from the P2M, so nothing fits a request for
    /// exactly one node.
    pub fn candidate(&self, p2m: &P2m<'_>, first: Pfn) -> Candidate {
        if matches!(self.limits.node(), Node::Exactly(_)) {
            return NOWHERE;
        }
        match self.next_aligned(first) {
            Some(aligned) if aligned == first => {}
            aligned => return aligned.map_or(NOWHERE, Candidate::TryFrom),
        }
        match p2m.is_translated() {
            true => self.candidate_translated(p2m, first),
            false => self.candidate_in_table(p2m, first),
        }
    }

    /// Probes a run of a PV guest from its last piece to its first, because what fails late in the run
    /// allows the longest skip.
    fn candidate_in_table(&self, p2m: &P2m<'_>, first: Pfn) -> Candidate {
        let frames = self.frames();
        // The frames before `end` remain, those after it need `after` segments at least.
        let (mut end, mut after) = (frames, 0);
        while end > 0 {
            let last = p2m.gfn(first.add(end - 1));
            if !last.is_some_and(|last| self.reaches_frame(last, end - 1)) {
                return Candidate::TryFrom(match end == frames {
                    true => p2m.first_within(first.add(end), LOOKAHEAD, &self.first_frames()),
                    false => first.add(end),
                });
            }
            let begin = p2m.last_piece(first, end).number() - first.number();
            // Nothing locks the P2M: by now the last frame can be in a transaction.
            let gfn = p2m.gfn(first.add(begin)).filter(|_| begin < end);
            let Some(gfn) = gfn else { return Candidate::TryFrom(first.add(end)) };
            let bytes = self.size.min(end * PAGE) - begin * PAGE;
            // A piece before this one needs a segment, too.
            let allowed = self.allowed() - after;
            match self.segments_at(gfn.number().saturating_mul(PAGE), bytes) {
                Some(segments) if segments + u64::from(begin > 0) <= allowed => {
                    (end, after) = (begin, after + segments);
                }
                _ => {
                    // The run from the first frame was probed just now.
                    let skip = u64::from(begin == 0);
                    let rest = bytes.saturating_sub(skip * PAGE);
                    let start = self.next_start_in(gfn.add(skip), rest, allowed);
                    let next = start.map_or(end, |start| begin + (start - gfn.number()));
                    return Candidate::TryFrom(first.add(next.min(end)));
                }
            }
        }
        Candidate::Fits
    }

    /// Returns the first frame of a piece with which a buffer can begin if the `bytes` bytes from `gfn`
    /// to the end of the piece, less what comes before the start, must be at most `allowed` segments.
    ///
    /// A later start never needs more segments for the rest of the piece, so this halves the distance.
    fn next_start_in(&self, gfn: Gfn, bytes: u64, allowed: u64) -> Option<u64> {
        let from = gfn.number().checked_mul(PAGE)?;
        let align = self.start_align();
        let first = from.checked_next_multiple_of(align)?;
        let end = from + bytes;
        let fits = |step: u64| {
            let start = first + step * align;
            self.segments_at(start, end - start).is_some_and(|segments| segments <= allowed)
        };
        // The starts of steps below `low` do not fit, and those from `high` on do, or are past the end.
        let (mut low, mut high) = (0, end.saturating_sub(first).div_ceil(align));
        while low < high {
            let middle = low + (high - low) / 2;
            if fits(middle) { high = middle } else { low = middle + 1 }
        }
        Some(self.next_start(first.checked_add(low.checked_mul(align)?)?)? / PAGE)
    }

    /// Returns true if the device reaches what the buffer uses of the frame at `index` in it.
    fn reaches_frame(&self, gfn: Gfn, index: u64) -> bool {
        let bytes = (self.size - index * PAGE).min(PAGE);
        let last = gfn.number().checked_mul(PAGE).and_then(|start| start.checked_add(bytes - 1));
        last.is_some_and(|last| {
            gfn.number() * PAGE >= self.limits.lowest() && last <= self.limits.mask()
        })
    }

    /// Returns the frames with which a buffer can begin.
    fn first_frames(&self) -> Range<Gfn> {
        let first = self.limits.lowest().div_ceil(PAGE);
        let end = (self.limits.mask() - (self.size.min(PAGE) - 1)) / PAGE + 1;
        Gfn::new(first)..Gfn::new(end.max(first))
    }

    /// Probes memory of a translated guest, all of which is one piece. The limits alone say which run
    /// is next, however far it is.
    fn candidate_translated(&self, p2m: &P2m<'_>, first: Pfn) -> Candidate {
        self.next_in_one_piece(first.number()).map_or(NOWHERE, |start| match start {
            start if p2m.frames().checked_sub(self.frames()).is_none_or(|last| start > last) => {
                NOWHERE
            }
            start if start == first.number() && self.serves_in_one_piece(start) => Candidate::Fits,
            start => Candidate::TryFrom(Pfn::new(start)),
        })
    }
}
