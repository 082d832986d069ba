//! [C40](xen_contig::conformance#C40) to [C60](xen_contig::conformance#C60): the memory that Xen
//! has, and what it hands out.

use alloc::vec;
use alloc::vec::Vec;

use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};

use super::TestOutcome;
use super::raw::{Specimen, extents, limit, pv_only, refuses};
use super::returned::ReturnedFrames;
use crate::machine::{ANYWHERE, word};
use crate::say;
use crate::selftest::owned::{OwnedExtent, OwnedRun, refused};
use crate::selftest::reservation::can_refill;
use crate::selftest::{Check, Test, TestContext, fail, frame_checks, skip};
use crate::vcpu::xen;
use xen_contig::addr::Pfn;

/// The number of frames whose contents are checked.
const FRAMES: u64 = 64;

/// The maximum difference that a toolstack leaves between a domU's frames and its limit.
const MAX_SLACK: u64 = 4096;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c40-no-block-of-that-order", no_block));
    tests.push(Test::new("c41-nothing-below-the-limit", nothing_below).needs_order(1));
    tests.push(Test::new("c42-bits-without-a-limit", bits_without_a_limit).needs_order(1));
    tests.push(Test::new("c48-domain-at-its-maximum", at_maximum).needs_order(3));
    tests.push(Test::new("c55-extents-are-aligned", aligned));
    let new_frames = Test::new("c56-new-frames-are-cleared-by-us", content_of_new_frames);
    tests.push(new_frames.needs_order(FRAMES.ilog2()));
    tests.push(Test::new("c57-old-frames-are-scrubbed", content_of_old_frames));
    tests.push(Test::new("c60-contiguous-already", contiguous_already).needs_order(3));
}

/// Returns the least address width below which Xen has a free frame.
pub fn least_bits(context: &TestContext<'_>) -> Result<u32, TestOutcome> {
    least_bits_of(context, 0)
}

/// Returns the least address width below which Xen has a free extent of this order.
pub fn least_bits_of(context: &TestContext<'_>, order: u32) -> Result<u32, TestOutcome> {
    let mut specimen = Specimen::take(context, 1 << order)?;
    for bits in order + 13..=40 {
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let low = unsafe { specimen.attempt(0, order, |x| x.output.mem_flags = bits) };
        specimen.renew(&low)?;
        if low.answer.is_ok() {
            let below = specimen.gfns()[0] < 1 << (bits - 12);
            // Low memory is scarce, so it is returned for the tests that follow.
            // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
            let back = unsafe { specimen.attempt(order, 0, |_| ()) };
            specimen.settle(&back)?;
            if !below {
                fail!("expected memory below 2^{bits}, got mfn {:#x}", low.out[0]);
            }
            return Ok(bits);
        }
        if let Err(outcome) = low.refused("memory below a limit", XenErrno::ENOMEM, 0) {
            specimen.put_back()?;
            return Err(outcome);
        }
    }
    specimen.put_back()?;
    skip!("Xen has no extent of order {order} below 2^40")
}

fn no_block(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let (bits, limit) = (least_bits(context)?, limit(context)?);
    // Xen has no extent of all memory below a limit, because it uses some of this memory. It has
    // single frames, as `least_bits` has found. So the order alone is too high. If Xen does not
    // permit that order, the memory may still be fragmented at a lower one.
    for order in (1..=limit.min(bits - 12)).rev() {
        let mut specimen = match Specimen::take(context, 1 << order) {
            Err(TestOutcome::Skip(_)) => continue,
            taken => taken?,
        };
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(0, order, |x| x.output.mem_flags = bits) };
        specimen.renew(&attempt)?;
        if attempt.answer.is_ok() {
            // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
            let back = unsafe { specimen.attempt(order, 0, |_| ()) };
            specimen.settle(&back)?;
            back.succeeded("back to single frames", 1)?;
            continue;
        }
        specimen.put_back()?;
        say!("# c40: below 2^{bits} Xen has single frames, but no extent of order {order}");
        return attempt.refused("an extent", XenErrno::ENOMEM, 0);
    }
    skip!("Xen has extents of every permitted order below 2^{bits}")
}

fn nothing_below(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let least = least_bits(context)?;
    for bits in [1, 11, 12, 13, least - 1] {
        // SAFETY: Xen refuses the argument before it takes a frame.
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
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(0, 1, |x| x.output.mem_flags = bits) };
        specimen.settle(&attempt)?;
        attempt.succeeded("bits", 2)?;
    }
    Ok(())
}

/// Returns how many more frames Xen permits the domain. Skips the test if the number is too high.
pub fn slack(context: &TestContext<'_>) -> Result<u64, TestOutcome> {
    // SAFETY: the call only returns a number.
    let maximum = unsafe { xen().memory_op(MemoryOp::MaximumReservation(DomId::SELF)) };
    let (Ok(maximum), Ok(current)) = (maximum, context.machine.current_reservation()) else {
        fail!("Xen does not report the domain's reservation");
    };
    match maximum.checked_sub(current) {
        Some(slack) if slack <= MAX_SLACK => Ok(slack),
        _ => skip!(
            "the domain has {current} frames and may have {maximum}, which is too many to fill"
        ),
    }
}

fn at_maximum(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let slack = slack(context)?;
    let specimen = Specimen::take(context, 8)?;
    let mut more = vec![0; slack as usize];
    let mut taken = extents(&mut more, 0);
    // SAFETY: Xen writes the numbers of new frames to the list.
    let got = unsafe { xen().memory_op(MemoryOp::IncreaseReservation(&mut taken)) };
    let mut one = [0];
    // SAFETY: Xen writes the number of the new frame to the list.
    let above =
        unsafe { xen().memory_op(MemoryOp::IncreaseReservation(&mut extents(&mut one, 0))) };
    // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
    let attempt = unsafe { specimen.attempt(0, 3, |_| ()) };
    let settled = specimen.settle(&attempt);
    let got = got.unwrap_or(0);
    let returned = got.min(slack) as usize;
    // SAFETY: no code uses or maps the frames.
    let given = unsafe {
        xen().memory_op(MemoryOp::DecreaseReservation(&mut extents(&mut more[..returned], 0)))
    };
    settled?;
    if (got, given, above) != (slack, Ok(slack), Ok(0)) {
        fail!(
            "expected {slack} frames up to the maximum, got {got}, then {above:?}, and returned \
             {given:?}"
        );
    }
    say!("# c48: {slack} more frames bring the domain to its maximum");
    attempt.succeeded("at the maximum", 8)
}

fn aligned(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut tried = 0;
    for order in 1..=limit(context)?.min(9) {
        let Ok(mut specimen) = Specimen::contiguous(context, order) else { continue };
        let first = specimen.gfns()[0];
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let back = unsafe { specimen.attempt(order, 0, |_| ()) };
        specimen.renew(&back)?;
        specimen.put_back()?;
        back.succeeded("back to single frames", 1)?;
        if !first.is_multiple_of(1 << order) {
            fail!("an extent of order {order} is not aligned: mfn {first:#x}");
        }
        tried += 1;
    }
    if tried == 0 { skip!("Xen has no extent of any order") } else { Ok(()) }
}

/// Returns the number of words of the run that are not zero.
fn not_zero(run: &xen_contig::frames::FrameRun) -> usize {
    let words = |pfn: Pfn| {
        // SAFETY: the run owns the frames, and they are mapped.
        (0..512).filter(move |index| unsafe { word(pfn, *index).read_volatile() } != 0)
    };
    run.iter().flat_map(words).count()
}

fn content_of_new_frames(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // First the test prints what Xen hands out: the contents that the domain left in its frames.
    let mut specimen = Specimen::take(context, FRAMES)?;
    let returned = can_refill().and_then(|()| ReturnedFrames::make(context, FRAMES));
    // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
    let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
    specimen.renew(&attempt)?;
    specimen.put_back_and(|run| {
        say!(
            "# c56: Xen handed out frames of which {} of {} words are not zero; any number is right",
            not_zero(run),
            FRAMES * 512
        );
    })?;
    attempt.succeeded("new frames", FRAMES)?;
    drop(returned);
    // The kernel's exchange guarantees zeros, also where Xen hands out old contents.
    let limit = limit(context)?;
    let orders = [0, 3, FRAMES.ilog2()].into_iter().filter(|order| *order <= limit);
    orders.into_iter().try_for_each(|order| extent_is_zero(context, order))
}

fn extent_is_zero(context: &TestContext<'_>, order: u32) -> Check {
    let machine = context.machine;
    let Some(exchanger) = machine.exchanger() else { return Ok(()) };
    let _dirty = ReturnedFrames::extent(context, order)?;
    let run = OwnedRun::take(machine, 1 << order)?;
    let Some(mut lists) = machine.lists(2 << order) else {
        skip!("the guest has no free memory for lists")
    };
    frame_checks::dirty(&run, context.seed);
    let extent = match exchanger.acquire(run.into_run(), ANYWHERE, lists.words()) {
        Ok(extent) => OwnedExtent::of(machine, extent),
        Err(failure) => return Err(refused(machine, "the exchange failed", failure)),
    };
    frame_checks::is_zero(extent.run(), "the new extent")?;
    extent.release().map(drop)
}

/// Returns true if Xen scrubs frames with this word.
///
/// A release build of Xen scrubs with zeros, a debug build with `SCRUB_PATTERN`
/// (`xen/include/xen/scrub.h`).
fn is_scrubbed(word: u64) -> bool {
    word == 0 || word == u64::from_ne_bytes([0xc2; 8])
}

fn content_of_old_frames(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut specimen = Specimen::take(context, FRAMES)?;
    let old: Vec<u64> = specimen.gfns().to_vec();
    // Xen hands out frames in the order in which it got them, or in the reverse order. A few rounds
    // return some of the old frames.
    for _ in 0..16 {
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
        specimen.renew(&attempt)?;
        if attempt.answer.is_err() || specimen.gfns().iter().any(|mfn| old.contains(mfn)) {
            break;
        }
    }
    let back: Vec<bool> = specimen.gfns().iter().map(|mfn| old.contains(mfn)).collect();
    let came_back = back.iter().filter(|back| **back).count();
    let (mut kept, mut fill) = (0, None);
    specimen.put_back_and(|run| {
        for (pfn, _) in run.iter().zip(&back).filter(|(_, back)| **back) {
            for index in 0..512 {
                // SAFETY: the run owns the frame, which is mapped.
                let found = unsafe { word(pfn, index).read_volatile() };
                // Xen fills all frames alike.
                if !is_scrubbed(found) || *fill.get_or_insert(found) != found {
                    kept += 1;
                }
            }
        }
    })?;
    if came_back == 0 {
        skip!("Xen handed out none of the {FRAMES} old frames again");
    }
    if kept != 0 {
        fail!(
            "{kept} words of {came_back} old frames that Xen handed out again were not scrubbed: \
             expected zeros, or the byte 0xc2 of a debug build of Xen, in all of them"
        );
    }
    say!(
        "# c57: Xen handed out {came_back} of {FRAMES} old frames again, filled with the byte \
         {:#04x}",
        fill.unwrap_or(0) as u8
    );
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
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(order, order, |_| ()) };
        specimen.renew(&attempt)?;
        let after = specimen.gfns()[0];
        specimen.put_back()?;
        attempt.succeeded("an extent for an extent", 1)?;
        if before == after {
            fail!("order {order}: Xen exchanged mfn {before:#x} for itself");
        }
    }
    Ok(())
}
