//! [C70](xen_contig::conformance#C70) to [C73](xen_contig::conformance#C73): exchanges of many
//! chunks.

use alloc::vec::Vec;

use hypercall::XenErrno;

use super::raw::{Specimen, pv_only};
use super::supply::least_bits;
use crate::say;
use crate::selftest::{Check, Test, TestContext, fail, skip};

/// A number of chunks that takes longer than the interval of Xen's timer under emulation.
const MANY: u64 = 2048;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c70-many-chunks", many_chunks));
    tests.push(Test::new("c71-count-in-in-extents", count_in_in_extents).needs_order(4));
    tests.push(Test::new("c73-memory-ends-midway", memory_ends_midway));
}

fn many_chunks(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // The largest available run is used. Each frame is a chunk, after which Xen may stop and
    // continue.
    let sizes = (6..=MANY.ilog2()).rev().map(|order| 1 << order);
    let enough = |frames: &u64| {
        let run = context.machine.take(*frames);
        run.map(|run| context.machine.give(run)).is_some()
    };
    let Some(frames) = sizes.into_iter().find(enough) else {
        skip!("the guest has no run of 64 free frames")
    };
    let mut specimen = Specimen::take(context, frames)?;
    let before = specimen.gfns().to_vec();
    // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
    let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
    specimen.renew(&attempt)?;
    let mut after = specimen.gfns().to_vec();
    specimen.put_back()?;
    attempt.succeeded("chunks of one frame", frames)?;
    // An extent that was exchanged twice would be in the list twice, or be one of the old frames.
    let same = before.iter().zip(&after).filter(|(old, new)| old == new).count();
    after.sort_unstable();
    after.dedup();
    if after.len() as u64 != frames || same != 0 {
        fail!(
            "expected {frames} new extents, got {} different ones, {same} of them old",
            after.len()
        );
    }
    say!("# c70: {frames} chunks in one call");
    Ok(())
}

fn count_in_in_extents(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // The in-extents are larger than the out-extents, smaller, and of the same size.
    for (in_order, out_order, extents) in [(4, 0, 1), (0, 4, 16), (4, 2, 1), (1, 3, 8), (2, 2, 4)] {
        let mut specimen = Specimen::contiguous(context, 4)?;
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(in_order, out_order, |_| ()) };
        specimen.renew(&attempt)?;
        specimen.put_back()?;
        attempt.succeeded("16 frames", extents)?;
    }
    Ok(())
}

fn memory_ends_midway(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // The number of frames is that of all frames below a limit, some of which belong to Xen. It is
    // at most the size of the lists, which may not exhaust the memory.
    let bits = least_bits(context)?;
    let below = 1 << (bits - 12);
    let frames = MANY.min(below);
    let mut specimen = Specimen::take(context, frames)?;
    if specimen.gfns().iter().any(|mfn| *mfn < below) {
        specimen.put_back()?;
        skip!("the run has memory below 2^{bits} already");
    }
    // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
    let attempt = unsafe { specimen.attempt(0, 0, |x| x.output.mem_flags = bits) };
    specimen.renew(&attempt)?;
    let untouched =
        attempt.out[attempt.done as usize..] == specimen.pfns()[attempt.done as usize..];
    let low = specimen.gfns().iter().filter(|mfn| **mfn < below).count() as u64;
    // Low memory is scarce, so it is returned at once.
    // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
    let back = unsafe { specimen.attempt(0, 0, |_| ()) };
    specimen.renew(&back)?;
    specimen.put_back()?;
    back.succeeded("back again", frames)?;
    if attempt.answer.is_ok() && frames < below {
        skip!("Xen has at least {frames} frames below 2^{bits}");
    }
    say!(
        "# c73: {} of {frames} chunks below 2^{bits}, then {:?} (expected: ENOMEM)",
        attempt.done,
        attempt.answer
    );
    let part = (1..frames).contains(&attempt.done) && low == attempt.done && untouched;
    if attempt.answer != Err(XenErrno::ENOMEM) || !part {
        let (answer, done) = (&attempt.answer, attempt.done);
        fail!(
            "expected ENOMEM midway, got {answer:?}, {done} chunks done, {low} low frames, rest \
             of the list unchanged: {untouched}"
        );
    }
    Ok(())
}
