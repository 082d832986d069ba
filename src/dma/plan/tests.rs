//! Plans and segments against an oracle that is written from the definitions: it tries every cut, at
//! every place where a segment may begin.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::super::segments::{CutRules, Segments};
use super::super::{ConstraintsBuilder, Segment};
use super::candidate::LOOKAHEAD;
use super::*;
use crate::frames::Candidate;
use crate::p2m::P2m;
use crate::sync::AtomicU64;

struct PlanRandom(u64);

impl PlanRandom {
    const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick(&mut self, values: &[u64]) -> u64 {
        values[self.below(values.len() as u64) as usize]
    }
}

/// A request of each kind of device: which cuts bytes, which cuts parts of a page, which cuts pages.
fn request(random: &mut PlanRandom) -> (u64, ConstraintsBuilder) {
    let (size, align, longest, boundaries) = match random.below(5) {
        0 => (1 + random.below(300), 1 << random.below(4), 1 + random.below(200), 4..13),
        1 | 2 => (
            1 + random.below(7 * PAGE),
            256 << random.below(7),
            255 + random.below(4 * PAGE),
            8..17,
        ),
        3 => {
            let longest = (1 + random.below(20)) * PAGE + random.below(2) * random.below(PAGE);
            (1 + random.below(40 * PAGE), PAGE << random.below(4), longest, 12..19)
        }
        _ => {
            let size = random.pick(&[1, PAGE, 257 * PAGE, 33 * PAGE - 1, 13 * PAGE + 1]);
            (size, PAGE << random.below(3), (1 + random.below(80)) * PAGE, 14..20)
        }
    };
    // Whole pages meet more limits exactly.
    let size = if random.one_in(2) { size } else { size.next_multiple_of(align.min(PAGE)) };
    let (mut it, mut longest_any) = (Constraints::builder().align(align), u64::MAX);
    if random.below(3) > 0 {
        it = it.max_segment(longest);
        longest_any = longest;
    }
    if random.one_in(2) {
        let boundary = 1 << (boundaries.start + random.below(boundaries.end - boundaries.start));
        it = it.boundary(boundary);
        longest_any = longest_any.min(boundary);
    }
    // Often about as many segments as are needed.
    let segments = match random.one_in(3) {
        true => 1 + random.below(16),
        false => (size.div_ceil(longest_any) + random.below(3)).min(16),
    };
    it = it.max_segments(segments as usize);
    (size, it)
}

/// Adds a reach within the first `frames` frames, of any shape.
fn reach(random: &mut PlanRandom, it: ConstraintsBuilder, frames: u64) -> ConstraintsBuilder {
    let mut it = it;
    if random.one_in(2) {
        it =
            it.mask((2 + random.below(frames - 1)) * PAGE - 1 + random.pick(&[0, 0, 1, 300, 4095]));
    }
    if random.one_in(3) {
        it = it.lowest(random.below(frames / 2 * PAGE));
    }
    it
}

/// The least number of segments for each place up to which frames can be cut, by the definitions.
///
/// `gfns` are the frames of the buffer, `size` its bytes. A place is where a segment begins or ends;
/// the last is the end of the buffer.
fn fewest_by_place(gfns: &[u64], size: u64, limits: &Constraints) -> Vec<Option<u64>> {
    let step = limits.align().min(PAGE);
    let place = |index: usize| (index as u64 * step).min(size);
    let last = size.div_ceil(step) as usize;
    let address = |offset: u64| gfns[(offset / PAGE) as usize] * PAGE + offset % PAGE;
    let mut fewest: Vec<Option<u64>> = vec![None; last + 1];
    fewest[0] = Some(0);
    for from in 0..last {
        let Some(before) = fewest[from] else { continue };
        let begin = address(place(from));
        for (to, fewest) in fewest.iter_mut().enumerate().skip(from + 1) {
            let (len, end) = (place(to) - place(from), address(place(to) - 1));
            // A longer one is not taken either.
            if end != begin + len - 1 || len > limits.max_segment() {
                break;
            }
            let taken = begin.is_multiple_of(limits.align())
                && (begin >= limits.lowest() && end <= limits.mask())
                && limits.boundary().is_none_or(|it| begin / it == end / it);
            if taken {
                *fewest = Some(fewest.map_or(before + 1, |it: u64| it.min(before + 1)));
            }
        }
    }
    fewest
}

/// The least number of segments of a buffer in these frames; none if the device cannot take it.
fn fewest(gfns: &[u64], size: u64, limits: &Constraints) -> Option<u64> {
    let natural = (size.div_ceil(PAGE).next_power_of_two()).max(1);
    if limits.max_segments() == 1 && !gfns[0].is_multiple_of(natural) {
        return None;
    }
    let fewest = *fewest_by_place(gfns, size, limits).last().unwrap();
    fewest.filter(|it| *it <= limits.max_segments() as u64)
}

/// Frames in pieces of about `longest` frames below `limit`, each frame once or never.
fn scattered(random: &mut PlanRandom, frames: u64, longest: u64, limit: u64) -> Vec<u64> {
    let mut gfns: Vec<u64> = vec![];
    let mut next = random.below(limit);
    while (gfns.len() as u64) < frames {
        while random.one_in(1 + longest) || next >= limit || gfns.contains(&next) {
            next = random.below(limit);
        }
        gfns.push(next);
        next += 1;
    }
    gfns
}

/// The same frames as pieces, some of them cut where they need not be.
fn pieces(random: &mut PlanRandom, gfns: &[u64]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = vec![];
    for gfn in gfns {
        match pieces.last_mut() {
            Some(last) if last.address + last.bytes == *gfn * PAGE && !random.one_in(4) => {
                last.bytes += PAGE;
            }
            _ => pieces.push(Piece::of_frames(Gfn::new(*gfn), 1)),
        }
    }
    pieces
}

#[test]
fn a_buffer_is_accepted_if_and_only_if_some_cut_exists_and_is_cut_with_the_fewest_segments() {
    let mut random = PlanRandom::new(1);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..8000 {
        let (size, it) = request(&mut random);
        let frames = size.div_ceil(PAGE) + random.below(3);
        let Ok(it) = reach(&mut random, it, 2 * frames + 40).build() else { continue };
        let longest = 1 + random.below(1 + 2 * frames);
        let gfns = scattered(&mut random, frames, longest, 2 * frames + 40);
        let expected = fewest(&gfns, size, &it);
        let pieces = pieces(&mut random, &gfns);
        let case = || std::format!("{size:#x} bytes in {pieces:x?}, {it:x?}: {expected:?}");
        let plan = Plan::new(size, &it);
        match (plan, expected) {
            (Ok(plan), _) => {
                let accepts = plan.accepts(pieces.iter().copied());
                assert_eq!(accepts, expected.is_some(), "{}", case());
            }
            (Err(_), None) => {}
            (Err(error), Some(_)) => panic!("{error}: {}", case()),
        }
        let Some(expected) = expected else {
            refused += 1;
            continue;
        };
        accepted += 1;
        check_segments(&pieces, &gfns, size, &it, expected);
    }
    assert!(accepted > 2000 && refused > 2000, "{accepted} accepted, {refused} refused");
}

/// Checks that the segments cover the buffer, that the device takes each, and their number.
fn check_segments(pieces: &[Piece], gfns: &[u64], size: u64, limits: &Constraints, count: u64) {
    let segments: Vec<Segment> =
        Segments::new(pieces.iter().copied(), size, CutRules::new(limits)).collect();
    let case = || std::format!("{size:#x} bytes in {pieces:x?}, {limits:x?}: {segments:x?}");
    assert_eq!(segments.len() as u64, count, "{}", case());
    let mut offset = 0;
    for segment in &segments {
        assert_eq!(segment.offset, offset, "{}", case());
        assert!(limits.admits(segment.dma.get(), segment.len), "{}", case());
        for at in [0, segment.len / 2, segment.len - 1] {
            let frame = gfns[((offset + at) / PAGE) as usize];
            let address = frame * PAGE + (offset + at) % PAGE;
            assert_eq!(segment.dma.get() + at, address, "{}", case());
        }
        offset += segment.len;
    }
    assert_eq!(offset, size, "{}", case());
}

/// Every number of segments with which a device can be given memory of which enough lies anywhere,
/// free of a reach: pieces of any length, each at its best address.
fn fewest_anywhere(size: u64, limits: &Constraints) -> Option<u64> {
    let frames = size.div_ceil(PAGE);
    if limits.max_segments() == 1 {
        return fewest(&one_piece(0, frames), size, limits);
    }
    let align = limits.align().max(PAGE);
    let period = align.max(limits.boundary().unwrap_or(1));
    let step = limits.align().min(PAGE);
    let starts: Vec<u64> = (0..period).step_by(align as usize).collect();
    // From the page on with which a piece begins, to the end.
    let mut rest: Vec<Option<u64>> = vec![None; frames as usize];
    for page in (0..frames).rev() {
        for start in &starts {
            let gfns = one_piece(start / PAGE, frames - page);
            let by_place = fewest_by_place(&gfns, size - page * PAGE, limits);
            let whole = *by_place.last().unwrap();
            let cuts = (page + 1..frames).filter_map(|next| {
                Some(by_place[((next - page) * PAGE / step) as usize]? + rest[next as usize]?)
            });
            rest[page as usize] = cuts.chain(whole).chain(rest[page as usize]).min();
        }
    }
    rest[0]
}

fn one_piece(first: u64, frames: u64) -> Vec<u64> {
    (first..first + frames).collect()
}

/// The most segments that a device needs for the first frames of an extent, wherever it lies.
fn worst(order: Order, bytes: u64, limits: &Constraints) -> Option<u64> {
    let period = limits.align().max(limits.boundary().unwrap_or(1)).max(order.bytes());
    let wide = limits.to_builder().max_segments(16).build().unwrap();
    (0..period).step_by(order.bytes() as usize).try_fold(0, |worst, at| {
        let gfns = one_piece(at / PAGE, bytes.div_ceil(PAGE));
        let segments = (*fewest_by_place(&gfns, bytes, &wide).last().unwrap())?;
        Some(segments.max(worst))
    })
}

#[test]
fn what_memory_anywhere_can_satisfy_is_planned_and_nothing_else() {
    let mut random = PlanRandom::new(2);
    let (mut planned, mut refused, mut bounds) = (0, 0, 0);
    for _ in 0..3000 {
        let (size, it) = request(&mut random);
        if size > 20 * PAGE {
            continue;
        }
        let it = it.build().unwrap();
        let (align, boundary) = (it.align(), it.boundary().unwrap_or(u64::MAX));
        let expected = fewest_anywhere(size, &it).filter(|it2| *it2 <= it.max_segments() as u64);
        let plan = Plan::new(size, &it);
        let case = || std::format!("{size:#x} bytes, {it:x?}: {expected:?}, {plan:x?}");
        // If no boundary has room for longest segments that end at a page together, only a lower bound of
        // their number is known.
        let segment = round_down(it.max_segment(), align);
        let room = boundary.min(1 << 30);
        let whole = (1..=PAGE).find(|count| segment.saturating_mul(*count).is_multiple_of(PAGE));
        let odd = align < PAGE
            && (it.max_segment() < boundary && boundary > PAGE)
            && whole.is_none_or(|count| segment.saturating_mul(count) > room);
        let Ok(plan) = plan else {
            assert_eq!(expected, None, "{}", case());
            refused += 1;
            continue;
        };
        if expected.is_none() {
            assert!(odd, "{}", case());
            bounds += 1;
            continue;
        }
        planned += 1;
        check_block(&plan, &case);
        let found = plan.block().is_some() || plan.extents(Order::MAX).next().is_some();
        assert!(found || odd, "{}", case());
    }
    assert!(planned > 600 && refused > 400, "{planned} planned, {refused} refused");
    assert!(bounds < 20, "{bounds} of them needlessly");
}

/// Checks the block and the extents of a plan against what each order serves in the worst place.
fn check_block(plan: &Plan, case: &dyn Fn() -> std::string::String) {
    let (size, limits) = (plan.size(), plan.limits());
    let allowed = limits.max_segments() as u64;
    let orders = || (0..9).map(|order| Order::new(order).unwrap());
    let aligned = |order: Order| order.bytes() >= limits.align();
    let serves = |order: &Order| {
        order.bytes() >= size
            && aligned(*order)
            && worst(*order, size, limits).is_some_and(|it| it <= allowed)
    };
    let block = orders().find(serves);
    assert_eq!(plan.block(), block, "{}", case());
    let extents: Vec<ExtentPlan> = plan.extents(Order::new(8).unwrap()).collect();
    assert!(extents.is_sorted_by(|one, next| one.order > next.order), "{}", case());
    let segments = |it: &ExtentPlan| {
        let last = size - (it.count - 1) * it.frames * PAGE;
        assert!(it.frames <= it.order.frames() && it.count >= 2 && aligned(it.order));
        assert!(last > 0 && last <= it.order.bytes());
        let others = worst(it.order, it.frames * PAGE, limits)?;
        Some((it.count - 1) * others + worst(it.order, last, limits)?)
    };
    for it in &extents {
        let takes = segments(it).is_some_and(|it| it <= allowed);
        assert!(takes && allowed > 1, "{it:?}: {}", case());
    }
    // Whole extents are found at least.
    for order in orders().filter(|order| order.bytes() < size && aligned(*order) && allowed > 1) {
        let whole =
            ExtentPlan { order, count: size.div_ceil(order.bytes()), frames: order.frames() };
        if segments(&whole).is_some_and(|it| it <= allowed) {
            assert!(extents.contains(&whole), "{whole:?} of {extents:?}: {}", case());
        }
    }
}

#[test]
fn no_request_is_refused_that_frames_in_any_sequence_satisfy() {
    const FRAMES: u64 = 7;
    let mut random = PlanRandom::new(3);
    let (mut served, mut refused, mut bounds) = (0, 0, 0);
    for _ in 0..2500 {
        let it = Constraints::builder().align(512 << random.below(5));
        let mut it = it.max_segments(1 + random.below(4) as usize);
        it = it.mask((FRAMES - random.below(5)) * PAGE - 1 - random.below(2) * random.below(PAGE));
        it = it.lowest(random.below(2) * random.below(3 * PAGE));
        if random.one_in(2) {
            it = it.max_segment(500 + random.below(3 * PAGE));
        }
        if random.one_in(2) {
            it = it.boundary(1024 << random.below(5));
        }
        let Ok(it) = it.build() else { continue };
        let size = 1 + random.below(4 * PAGE);
        let satisfiable = sequences(FRAMES, size.div_ceil(PAGE), &mut vec![], &mut |gfns| {
            fewest(gfns, size, &it).is_some()
        });
        match Plan::new(size, &it) {
            Ok(_) if satisfiable => served += 1,
            Ok(_) => bounds += 1,
            Err(error) => {
                assert!(!satisfiable, "{error}: {size:#x} bytes, {it:x?}");
                refused += 1;
            }
        }
    }
    assert!(served > 300 && refused > 300, "{served} served, {refused} refused");
    assert!(bounds < refused / 8, "{bounds} that nothing satisfies, {refused} refused");
}

/// Calls `found` with each sequence of `count` different frames until it returns true.
fn sequences(
    frames: u64,
    count: u64,
    sequence: &mut Vec<u64>,
    found: &mut impl FnMut(&[u64]) -> bool,
) -> bool {
    if sequence.len() as u64 == count {
        return found(sequence);
    }
    (0..frames).any(|frame| {
        if sequence.contains(&frame) {
            return false;
        }
        sequence.push(frame);
        let any = sequences(frames, count, sequence, found);
        sequence.pop();
        any
    })
}

/// A table in pieces of some frames, some of them not populated.
fn entries(random: &mut PlanRandom, frames: u64) -> Vec<AtomicU64> {
    let longest = random.pick(&[1, 2, 4, 12, 40, 150]);
    let gfns = scattered(random, frames, longest, 2 * frames);
    let holes = random.pick(&[30, 1000]);
    gfns.into_iter()
        .map(|gfn| AtomicU64::new(if random.one_in(holes) { u64::MAX } else { gfn }))
        .collect()
}

/// Returns true if the run from a frame on fits, by the definitions.
fn fits(p2m: &P2m<'_>, first: u64, size: u64, limits: &Constraints) -> bool {
    let gfn = |index| p2m.gfn(Pfn::new(first + index)).map(Gfn::number);
    let gfns: Option<Vec<u64>> = (0..size.div_ceil(PAGE)).map(gfn).collect();
    gfns.is_some_and(|gfns| fewest(&gfns, size, limits).is_some())
}

/// Returns where a search of memory that is all free ends. Calls `each` with each answer.
fn searched(plan: &Plan, p2m: &P2m<'_>, each: impl Fn(Pfn, Candidate)) -> Option<u64> {
    let mut at = Pfn::new(0);
    while at.number() < p2m.frames() {
        let candidate = plan.candidate(p2m, at);
        each(at, candidate);
        match candidate {
            Candidate::Fits => return Some(at.number()),
            Candidate::TryFrom(next) => {
                assert!(next > at, "{next} after {at}");
                at = next;
            }
        }
    }
    None
}

#[test]
fn every_start_within_a_boundary_is_found() {
    const FRAMES: u64 = 32;
    let table = |gfn: fn(u64) -> u64| -> Vec<AtomicU64> {
        (0..FRAMES).map(|pfn| AtomicU64::new(gfn(pfn))).collect()
    };
    let tables = [
        table(|pfn| pfn),
        table(|pfn| pfn / 3 * 8 + pfn % 3),
        table(|pfn| pfn / 5 * 8 + pfn % 5 + 1),
        table(|pfn| pfn / 7 * 16 + pfn % 7 + 9),
        table(|pfn| pfn / 9 * 32 + pfn % 9 + if pfn % 9 < 6 { 5 } else { 10 }),
    ];
    // SAFETY: a test's tables; nothing is mapped by them ([M4](crate::rules#M4)).
    let mut maps: Vec<P2m<'_>> = tables.iter().map(|it| unsafe { P2m::table(it) }).collect();
    maps.push(P2m::translated(FRAMES));
    let devices = (1..7).flat_map(|segment| [4, 8].map(|boundary| (segment, boundary)));
    let devices = devices.flat_map(|(segment, boundary)| {
        [1, 2].map(|align| {
            let it = Constraints::builder().boundary(boundary * PAGE).align(align * PAGE);
            if segment < 6 { it.max_segment(segment * PAGE) } else { it }
        })
    });
    let mut found = 0;
    for (device, frames) in devices.flat_map(|it| (1..13).map(move |frames| (it, frames))) {
        let needed = (1..13).find(|segments| {
            let it = device.max_segments(*segments).build().unwrap();
            Plan::new(frames * PAGE, &it).is_ok()
        });
        let Some(needed) = needed else { continue };
        for (segments, lowest) in [(needed, 0), (needed, 3), (needed, 5), (needed + 1, 6)] {
            let it = device.max_segments(segments).lowest(lowest * PAGE).build().unwrap();
            let plan = Plan::new(frames * PAGE, &it).unwrap();
            for p2m in &maps {
                let expected = (0..FRAMES).find(|first| fits(p2m, *first, frames * PAGE, &it));
                let reached = searched(&plan, p2m, |_, _| ());
                assert_eq!(reached, expected, "{frames} frames, {it:x?}, {p2m:?}");
                found += u64::from(expected.is_some());
            }
        }
    }
    assert!(found > 1000, "{found} found");
}

#[test]
fn extents_use_what_makes_the_fewest_segments() {
    let plan = |frames: u64, it: ConstraintsBuilder| {
        Plan::new(frames * PAGE, &it.build().unwrap()).unwrap()
    };
    let extents = |plan: Plan, highest| {
        let highest = Order::new(highest).unwrap();
        let extents = plan.extents(highest);
        extents.map(|it| (it.order.get(), it.count, it.frames)).collect::<Vec<_>>()
    };
    let new = Constraints::builder;
    // Any frames serve, and all extents are used up, the last one as far as needed.
    let any = plan(9, new().max_segments(16));
    assert_eq!(any.block(), Order::new(4).ok());
    assert_eq!(extents(any, 3), [(3, 2, 8), (2, 3, 4), (1, 5, 2), (0, 9, 1)]);
    assert_eq!(extents(plan(9, new().max_segments(4)), 9), [(3, 2, 8), (2, 3, 4)]);
    assert_eq!(extents(plan(9, new()), 9), []);
    // Three frames of each four are one segment. A block would need one more.
    let three = plan(9, new().max_segment(3 * PAGE).boundary(4 * PAGE).max_segments(3));
    assert_eq!((three.block(), extents(three, 9)), (None, vec![(2, 3, 3)]));
    // Four segments end at a page, six do not.
    let group = plan(10, new().max_segment(5120).boundary(8 * PAGE).max_segments(8));
    assert_eq!((group.block(), extents(group, 9)), (None, vec![(3, 2, 5)]));
    // Only the begin of an extent is aligned.
    let begin = plan(3, new().max_segment(PAGE).align(4 * PAGE).max_segments(3));
    assert_eq!((begin.block(), extents(begin, 2)), (None, vec![(2, 3, 1)]));
    // The last segment may end within a page.
    let it = new().max_segment(2 * PAGE + 512).align(2 * PAGE).max_segments(2).build().unwrap();
    let last = Plan::new(4 * PAGE + 512, &it).unwrap();
    assert_eq!(extents(last, 2), [(2, 2, 2)]);
    // No extent is aligned to more than its size.
    let far = plan(1, new().align(1 << 40).max_segments(2));
    assert_eq!((far.block(), extents(far, 18)), (None, vec![]));
}

#[test]
fn a_search_skips_nothing_that_fits_and_takes_nothing_else() {
    const FRAMES: u64 = 120;
    let mut random = PlanRandom::new(4);
    let (mut found, mut none) = ([0, 0], [0, 0]);
    for _ in 0..3000 {
        let entries = entries(&mut random, FRAMES);
        let translated = random.one_in(3);
        // SAFETY: a test's table; nothing is mapped by it ([M4](crate::rules#M4)).
        let table = unsafe { P2m::table(&entries) };
        let p2m = if translated { P2m::translated(FRAMES) } else { table };
        let (size, it) = request(&mut random);
        let Ok(it) = reach(&mut random, it, FRAMES).build() else { continue };
        let frames = size.div_ceil(PAGE);
        let Ok(plan) = Plan::new(size, &it) else { continue };
        if frames > 20 {
            continue;
        }
        let expected = (0..FRAMES).find(|first| fits(&p2m, *first, size, &it));
        let reached = searched(&plan, &p2m, |at, candidate| {
            // Nothing was read but the run and the stated number of entries past it.
            let end = (at.number() + frames + LOOKAHEAD).min(FRAMES) as usize;
            // SAFETY: a test's table; nothing is mapped by it ([M4](crate::rules#M4)).
            let short = unsafe { P2m::table(&entries[..end]) };
            let same = translated || candidate == plan.candidate(&short, at);
            assert!(same, "{size:#x} bytes at {at}, {it:x?}");
        });
        assert_eq!(reached, expected, "{size:#x} bytes, {it:x?}, {p2m:?} {entries:?}");
        let counts = if expected.is_some() { &mut found } else { &mut none };
        counts[usize::from(translated)] += 1;
    }
    assert!(found.iter().chain(&none).all(|it| *it > 20), "{found:?} found, {none:?} not");
}

#[test]
fn a_part_of_a_block_serves_if_every_byte_of_it_is_reached() {
    let it = Constraints::builder().lowest(0x1fff).mask(0x5fff).build().unwrap();
    let start = |size, gfn, frames| {
        Plan::new(size, &it).unwrap().start_within(Pfn::new(7), Gfn::new(gfn), frames)
    };
    assert_eq!([start(1, 2, 4), start(1, 5, 1), start(1, 0, 8)], [Some(0), Some(0), Some(2)]);
    assert_eq!([start(1, 1, 1), start(1, 6, 1), start(2 * PAGE, 5, 2)], [None; 3]);
    assert_eq!([start(2 * PAGE, 0, 8), start(2 * PAGE, 3, 3)], [Some(2), Some(1)]);
    assert_eq!([start(1, u64::MAX, 1), start(1, u64::MAX / PAGE, 2)], [None; 2]);
    // The mask ends within a page, of which the buffer uses as much.
    let it = Constraints::builder().mask(0x5200).build().unwrap();
    let serves = |size| Plan::new(size, &it).unwrap().serves_from(Pfn::new(0), Gfn::new(5));
    assert!(serves(0x201) && !serves(0x202));
}

#[test]
fn what_nothing_can_satisfy_is_refused_by_name_with_the_size_asked_for() {
    let error = |size, it: ConstraintsBuilder| Plan::new(size, &it.build().unwrap()).unwrap_err();
    let new = Constraints::builder;
    let max = Order::MAX.bytes();
    assert_eq!(error(0, new()), AllocError::ZeroSize);
    for size in [max + 1, u64::MAX] {
        assert_eq!(error(size, new()), AllocError::TooLarge { size, max });
    }
    assert_eq!(
        error(4097, new().max_segment(4096)),
        AllocError::SegmentTooLong { size: 4097, max_segment: 4096 }
    );
    assert_eq!(
        error(4097, new().boundary(4096).max_segment(8192)),
        AllocError::CrossesBoundary { size: 4097, boundary: 4096 }
    );
    assert_eq!(
        error(10_001, new().max_segment(5000).max_segments(2)),
        AllocError::TooManySegments { needed: 3, allowed: 2, segment: 5000 }
    );
    assert_eq!(
        error(513, new().max_segment(512).align(1024).max_segments(9)),
        AllocError::SegmentBelowAlignment { segment: 512, align: 1024, limit: None }
    );
    // The whole size is compared with the reach, and in one segment its natural alignment.
    let (lowest, mask) = (0x3001, 0x8fff);
    let narrow = new().lowest(lowest).mask(mask);
    assert_eq!(
        error(0x5001, narrow.max_segment(4096).max_segments(9)),
        AllocError::LargerThanReach { size: 0x5001, align: PAGE, lowest, mask }
    );
    assert_eq!(
        error(0x4001, narrow),
        AllocError::LargerThanReach { size: 0x4001, align: 8 * PAGE, lowest, mask }
    );
    assert!(Plan::new(0x5000, &narrow.max_segments(2).build().unwrap()).is_ok());
}

#[test]
fn a_device_of_one_segment_gets_natural_alignment_and_others_get_their_own() {
    let one = Constraints::default();
    let several = Constraints::builder().max_segments(2).build().unwrap();
    for frames in [1, 2, 3, 257, 512] {
        let natural = u64::next_power_of_two(frames);
        let accepts = |limits: &Constraints, gfn| {
            let plan = Plan::new(frames * PAGE, limits).unwrap();
            plan.accepts([Piece::of_frames(Gfn::new(gfn), frames)].into_iter())
        };
        assert!(accepts(&one, 3 * natural) && accepts(&several, 3 * natural + 1));
        assert_eq!(accepts(&one, 3 * natural + natural / 2), natural == 1);
    }
}

#[test]
fn segments_below_a_page_cost_no_more_than_long_ones() {
    // 2^30 segments are counted without making one.
    let it = Constraints::builder().max_segment(64).max_segments(16).build().unwrap();
    let error = Plan::new(1 << 30, &it).unwrap_err();
    let (needed, allowed, segment) = (1 << 24, 16, 64);
    assert_eq!(error, AllocError::TooManySegments { needed, allowed, segment });
    let halves = Constraints::builder().boundary(2048).max_segments(2).build().unwrap();
    let plan = Plan::new(PAGE, &halves).unwrap();
    assert_eq!(plan.block(), Some(Order::ZERO));
    let piece = [Piece::of_frames(Gfn::new(7), 1)];
    let segments: Vec<u64> =
        Segments::new(piece.into_iter(), PAGE, CutRules::new(&halves)).map(|it| it.len).collect();
    assert_eq!(segments, [2048, 2048]);
}

#[test]
fn pieces_that_cannot_be_cut_end_the_segments() {
    let it = Constraints::builder().max_segment(512).align(1024).max_segments(9).build().unwrap();
    let piece = Piece::of_frames(Gfn::new(7), 1);
    assert_eq!(Segments::new([piece].into_iter(), PAGE, CutRules::new(&it)).count(), 0);
    // Too few frames, and frames past the last address.
    let it = Constraints::default();
    let mut segments = Segments::new([piece].into_iter(), 2 * PAGE, CutRules::new(&it));
    assert_eq!(segments.by_ref().map(|it| it.len).sum::<u64>(), PAGE);
    assert_eq!(segments.next(), None);
    let plan = Plan::new(2 * PAGE, &it).unwrap();
    for gfn in [u64::MAX, u64::MAX / PAGE] {
        let piece = Piece::of_frames(Gfn::new(gfn), 2);
        assert!(!plan.accepts([piece].into_iter()));
    }
    assert!(!plan.accepts([piece].into_iter()));
}

#[test]
fn a_buffer_begins_at_the_alignment_of_guest_addresses() {
    let build = |builder: crate::dma::ConstraintsBuilder| builder.build().unwrap();
    let eight = build(Constraints::builder().frame_align(8 * PAGE));
    let start = |pfn, gfn, frames| {
        Plan::new(2 * PAGE, &eight).unwrap().start_within(Pfn::new(pfn), Gfn::new(gfn), frames)
    };
    // Two frames begin at an even machine frame, so the guest frame and the machine frame must agree.
    assert_eq!(start(8, 2, 2), Some(0));
    assert_eq!([start(9, 1, 64), start(15, 3, 64), start(15, 4, 64)], [Some(7), Some(1), None]);
    assert_eq!([start(9, 1, 9), start(9, 1, 8)], [Some(7), None]);
    let plan = Plan::new(PAGE, &eight).unwrap();
    assert!(plan.is_aligned(Pfn::new(16)) && !plan.is_aligned(Pfn::new(12)));
    let high = build(Constraints::builder().frame_align(1 << 63));
    assert_eq!(Plan::new(1, &high).unwrap().next_aligned(Pfn::new(u64::MAX - 1)), None);
}
