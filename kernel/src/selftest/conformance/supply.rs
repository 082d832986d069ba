//! [C40](xen_contig::conformance#C40) to [C60](xen_contig::conformance#C60): what Xen has to give,
//! and what it gives.

use alloc::vec;
use alloc::vec::Vec;

use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};

use super::TestOutcome;
use super::raw::{Specimen, extents, limit, pv_only, refuses};
use crate::machine::{ANYWHERE, word};
use crate::say;
use crate::selftest::{Check, Test, TestContext, fail, frame_checks, skip};
use crate::vcpu::xen;
use xen_contig::addr::Pfn;

/// Frames that a content is looked for in.
const FRAMES: u64 = 64;

/// More than any toolstack leaves between what a domU has and what it may have.
const MAX_SLACK: u64 = 4096;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c40-no-block-of-that-order", no_block));
    tests.push(Test::new("c41-nothing-below-the-limit", nothing_below).needs_order(1));
    tests.push(Test::new("c42-bits-without-a-limit", bits_without_a_limit).needs_order(1));
    tests.push(Test::new("c48-domain-at-its-maximum", at_maximum).needs_order(3));
    tests.push(Test::new("c55-extents-are-aligned", aligned));
    tests.push(Test::new("c56-new-frames-are-cleared-by-us", content_of_new_frames));
    tests.push(Test::new("c57-old-frames-are-scrubbed", content_of_old_frames));
    tests.push(Test::new("c60-contiguous-already", contiguous_already).needs_order(3));
}

/// The least width of an address below which Xen has a frame to give.
pub fn least_bits(context: &TestContext<'_>) -> Result<u32, TestOutcome> {
    let mut specimen = Specimen::take(context, 1)?;
    for bits in 13..=40 {
        // SAFETY: an ordinary exchange of a frame that holds nothing of Rust's.
        let low = unsafe { specimen.attempt(0, 0, |x| x.output.mem_flags = bits) };
        specimen.renew(&low)?;
        if low.answer.is_ok() {
            let below = specimen.gfns()[0] < 1 << (bits - 12);
            // Low memory is rare: back with it, for whatever is next in line.
            // SAFETY: as above.
            let back = unsafe { specimen.attempt(0, 0, |_| ()) };
            specimen.settle(&back)?;
            if !below {
                fail!("asked for a frame below 2^{bits}, got mfn {:#x}", low.out[0]);
            }
            return Ok(bits);
        }
        if let Err(outcome) = low.refused("a frame below a limit", XenErrno::ENOMEM, 0) {
            specimen.put_back()?;
            return Err(outcome);
        }
    }
    specimen.put_back()?;
    skip!("Xen has no frame below 2^40")
}

fn no_block(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let (bits, limit) = (least_bits(context)?, limit(context)?);
    // An extent of all memory below a limit can't be had: Xen itself has some of that. Single
    // frames can, as was just seen, so it is the order alone that is too much. Where that order is
    // beyond what Xen permits, the memory there may be in pieces all the same.
    for order in (1..=limit.min(bits - 12)).rev() {
        let mut specimen = match Specimen::take(context, 1 << order) {
            Err(TestOutcome::Skip(_)) => continue,
            taken => taken?,
        };
        // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
        let attempt = unsafe { specimen.attempt(0, order, |x| x.output.mem_flags = bits) };
        specimen.renew(&attempt)?;
        if attempt.answer.is_ok() {
            // SAFETY: as above.
            let back = unsafe { specimen.attempt(order, 0, |_| ()) };
            specimen.settle(&back)?;
            back.succeeded("back to single frames", 1)?;
            continue;
        }
        specimen.put_back()?;
        say!("# c40: below 2^{bits} there are single frames, but none of order {order}");
        return attempt.refused("an extent", XenErrno::ENOMEM, 0);
    }
    skip!("Xen has extents of every order that may be asked for, below 2^{bits} even")
}

fn nothing_below(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let least = least_bits(context)?;
    for bits in [1, 11, 12, 13, least - 1] {
        // SAFETY: as above.
        unsafe {
            refuses(context, (1, 0), "a frame", XenErrno::ENOMEM, |x| x.output.mem_flags = bits)?;
            refuses(context, (2, 1), "an extent", XenErrno::ENOMEM, |x| x.output.mem_flags = bits)?;
        }
    }
    Ok(())
}

fn bits_without_a_limit(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    for bits in [0, 52, 53, 64, 65, 255] {
        let specimen = Specimen::take(context, 2)?;
        // SAFETY: as above.
        let attempt = unsafe { specimen.attempt(0, 1, |x| x.output.mem_flags = bits) };
        specimen.settle(&attempt)?;
        attempt.succeeded("bits", 2)?;
    }
    Ok(())
}

/// How many more frames Xen lets the domain have; skips where that is next to no limit.
pub fn slack(context: &TestContext<'_>) -> Result<u64, TestOutcome> {
    // SAFETY: asks for a number.
    let maximum = unsafe { xen().memory_op(MemoryOp::MaximumReservation(DomId::SELF)) };
    let (Ok(maximum), Ok(current)) = (maximum, context.machine.current_reservation()) else {
        fail!("the domain's size is not to be had");
    };
    match maximum.checked_sub(current) {
        Some(slack) if slack <= MAX_SLACK => Ok(slack),
        _ => skip!("the domain has {current} frames and may have {maximum}: out of reach"),
    }
}

fn at_maximum(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let slack = slack(context)?;
    let mut more = vec![0; slack as usize];
    let mut taken = extents(&mut more, 0);
    // SAFETY: Xen writes the numbers of new frames to the list.
    let got = unsafe { xen().memory_op(MemoryOp::IncreaseReservation(&mut taken)) };
    let mut one = [0];
    // SAFETY: as above.
    let above =
        unsafe { xen().memory_op(MemoryOp::IncreaseReservation(&mut extents(&mut one, 0))) };
    let specimen = Specimen::take(context, 8)?;
    // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
    let attempt = unsafe { specimen.attempt(0, 3, |_| ()) };
    let settled = specimen.settle(&attempt);
    let got = got.unwrap_or(0) as usize;
    // SAFETY: nobody uses or maps the frames.
    let given = unsafe {
        xen().memory_op(MemoryOp::DecreaseReservation(&mut extents(&mut more[..got], 0)))
    };
    settled?;
    if (got as u64, given, above) != (slack, Ok(slack), Ok(0)) {
        fail!("{slack} frames up to the maximum: got {got}, then {above:?}, gave back {given:?}");
    }
    say!("# c48: {slack} frames more, and the domain is at its maximum");
    attempt.succeeded("at the maximum", 8)
}

fn aligned(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut tried = 0;
    for order in 1..=limit(context)?.min(9) {
        let Ok(mut specimen) = Specimen::contiguous(context, order) else { continue };
        let first = specimen.gfns()[0];
        // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
        let back = unsafe { specimen.attempt(order, 0, |_| ()) };
        specimen.renew(&back)?;
        specimen.put_back()?;
        back.succeeded("back to single frames", 1)?;
        if !first.is_multiple_of(1 << order) {
            fail!("an extent of order {order} at mfn {first:#x}");
        }
        tried += 1;
    }
    if tried == 0 { skip!("Xen has no extent to give") } else { Ok(()) }
}

/// How many words of the run are not zero.
fn not_zero(run: &xen_contig::frames::FrameRun) -> usize {
    let words = |pfn: Pfn| {
        // SAFETY: the run is ours and mapped.
        (0..512).filter(move |index| unsafe { word(pfn, *index).read_volatile() } != 0)
    };
    run.iter().flat_map(words).count()
}

fn content_of_new_frames(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let machine = context.machine;
    // Xen's word first: whatever it is, it is no promise.
    let mut specimen = Specimen::take(context, FRAMES)?;
    // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
    let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
    specimen.renew(&attempt)?;
    specimen.put_back_and(|run| {
        say!("# c56: {} of {} words of new frames are not zero", not_zero(run), FRAMES * 512);
    })?;
    attempt.succeeded("new frames", FRAMES)?;
    // The component's word is one.
    let Some(exchanger) = machine.exchanger() else { return Ok(()) };
    let (Some(run), Some(mut lists)) = (machine.take(FRAMES), machine.lists(2 * FRAMES)) else {
        skip!("the guest has no {FRAMES} free frames in a row")
    };
    frame_checks::dirty(&run, context.seed);
    let extent = match exchanger.acquire(run, ANYWHERE, lists.words()) {
        Ok(extent) => extent,
        Err(failure) => {
            let told = alloc::format!("{}", failure.error);
            failure.remaining.into_iter().for_each(|run| machine.give(run));
            skip!("{told}")
        }
    };
    let zero = frame_checks::is_zero(extent.run(), "new extent");
    match exchanger.release(extent, lists.words()) {
        Ok(run) => machine.give(run),
        Err(failure) => fail!("giving back: {}", failure.error),
    }
    zero
}

fn content_of_old_frames(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut specimen = Specimen::take(context, FRAMES)?;
    let old: Vec<u64> = specimen.gfns().to_vec();
    // Xen hands out last what it got last, or first: a few rounds bring some of them back.
    for _ in 0..16 {
        // SAFETY: ordinary exchanges of frames that hold nothing of Rust's.
        let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
        specimen.renew(&attempt)?;
        if attempt.answer.is_err() || specimen.gfns().iter().any(|mfn| old.contains(mfn)) {
            break;
        }
    }
    let back: Vec<bool> = specimen.gfns().iter().map(|mfn| old.contains(mfn)).collect();
    let came_back = back.iter().filter(|back| **back).count();
    let mut told = 0;
    specimen.put_back_and(|run| {
        for (pfn, _) in run.iter().zip(&back).filter(|(_, back)| **back) {
            // SAFETY: the frame is ours and mapped.
            told += (0..512).filter(|i| unsafe { word(pfn, *i).read_volatile() } != 0).count();
        }
    })?;
    if came_back == 0 {
        skip!("none of {FRAMES} frames that were given up came back");
    }
    say!("# c57: {came_back} of {FRAMES} frames came back, {told} of their words are not zero");
    if told != 0 {
        fail!("{told} words of frames that were given up and came back are not zero");
    }
    Ok(())
}

fn contiguous_already(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    for order in [0, 3] {
        let mut specimen = match order {
            0 => Specimen::take(context, 1)?,
            _ => Specimen::contiguous(context, order)?,
        };
        let before = specimen.gfns()[0];
        // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
        let attempt = unsafe { specimen.attempt(order, order, |_| ()) };
        specimen.renew(&attempt)?;
        let after = specimen.gfns()[0];
        specimen.put_back()?;
        attempt.succeeded("an extent for an extent", 1)?;
        if before == after {
            fail!("order {order}: mfn {before:#x} was exchanged for itself");
        }
    }
    Ok(())
}
