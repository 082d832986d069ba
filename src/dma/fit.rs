//! Whether memory fits as it is, so that Xen need not be asked.

use super::{Constraints, Layout};
use crate::addr::{Gfn, PAGE_SIZE, Pfn};
use crate::exchange::Node;
use crate::frames::Candidate;
use crate::p2m::P2m;

const PAGE: u64 = PAGE_SIZE as u64;

/// Whether what lies from `first` on is in one piece, and the device takes it cut as `layout` says.
///
/// The next candidate skips what can't fit: where a frame is out of line, or the run lies too high
/// or too low, nothing that begins before that frame does better.
pub fn fits(p2m: &P2m<'_>, constraints: &Constraints, layout: &Layout, first: Pfn) -> Candidate {
    // Xen does not say on which node a frame lies, so exactness can't be seen from here.
    if matches!(constraints.node(), Node::Exactly(_)) {
        return Candidate::TryFrom(Pfn::new(u64::MAX >> 1));
    }
    let Some(start) = p2m.gfn(first) else { return Candidate::TryFrom(first.add(1)) };
    let mut address = start.number().saturating_mul(PAGE);
    let admitted = layout.segments().iter().all(|segment| {
        let here = address;
        address = address.saturating_add(segment.bytes);
        constraints.admits(here, segment.bytes)
    });
    if !admitted {
        return Candidate::TryFrom(first.add(1));
    }
    let in_line =
        |index: &u64| p2m.gfn(first.add(*index)) == Some(Gfn::new(start.number() + index));
    match (1..layout.used_frames()).find(|index| !in_line(index)) {
        None => Candidate::Fits,
        Some(index) => Candidate::TryFrom(first.add(index)),
    }
}
