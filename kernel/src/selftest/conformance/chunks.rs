//! [C70](xen_contig::conformance#C70) to [C73](xen_contig::conformance#C73): exchanges of many
//! chunks.

use alloc::vec::Vec;

use hypercall::XenErrno;

use super::raw::{Specimen, pv_only};
use super::supply::least_bits;
use crate::say;
use crate::selftest::{Check, Test, TestContext, fail, skip};

/// Chunks that take longer than the time between two of Xen's timers under emulation.
const MANY: u64 = 2048;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c70-many-chunks", many_chunks));
    tests.push(Test::new("c71-count-in-in-extents", count_in_in_extents).needs_order(4));
    tests.push(Test::new("c73-memory-ends-midway", memory_ends_midway));
}

fn many_chunks(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // As many as the guest has; each is a chunk, behind which Xen may stop and start again.
    let sizes = (6..=MANY.ilog2()).rev().map(|order| 1 << order);
    let enough = |frames: &u64| {
        let run = context.machine.take(*frames);
        run.map(|run| context.machine.give(run)).is_some()
    };
    let Some(frames) = sizes.into_iter().find(enough) else {
        skip!("the guest has no 64 free frames in a row")
    };
    let mut specimen = Specimen::take(context, frames)?;
    let before = specimen.gfns().to_vec();
    // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
    let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
    specimen.renew(&attempt)?;
    let mut after = specimen.gfns().to_vec();
    specimen.put_back()?;
    attempt.succeeded("chunks of one frame", frames)?;
    // An extent that was done twice would be in the list twice, or be one of the old frames.
    let same = before.iter().zip(&after).filter(|(old, new)| old == new).count();
    after.sort_unstable();
    after.dedup();
    if after.len() as u64 != frames || same != 0 {
        fail!("{frames} extents, {} different ones, {same} as before", after.len());
    }
    say!("# c70: {frames} chunks in one call");
    Ok(())
}

fn count_in_in_extents(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // In-extents larger than out-extents, smaller, and both of several frames.
    for (in_order, out_order, extents) in [(4, 0, 1), (0, 4, 16), (4, 2, 1), (1, 3, 8), (2, 2, 4)] {
        let mut specimen = Specimen::contiguous(context, 4)?;
        // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
        let attempt = unsafe { specimen.attempt(in_order, out_order, |_| ()) };
        specimen.renew(&attempt)?;
        specimen.put_back()?;
        attempt.succeeded("16 frames", extents)?;
    }
    Ok(())
}

fn memory_ends_midway(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // As many single frames as there can be below a limit, some of which Xen itself has; or as many
    // as there is room for in the lists, which may be enough, too.
    let bits = least_bits(context)?;
    let below = 1 << (bits - 12);
    let frames = MANY.min(below);
    let mut specimen = Specimen::take(context, frames)?;
    if specimen.gfns().iter().any(|mfn| *mfn < below) {
        specimen.put_back()?;
        skip!("the run has memory below 2^{bits} already");
    }
    // SAFETY: ordinary exchanges of frames that hold nothing of Rust's.
    let attempt = unsafe { specimen.attempt(0, 0, |x| x.output.mem_flags = bits) };
    specimen.renew(&attempt)?;
    let untouched =
        attempt.out[attempt.done as usize..] == specimen.pfns()[attempt.done as usize..];
    let low = specimen.gfns().iter().filter(|mfn| **mfn < below).count() as u64;
    // Low memory is rare: back with it.
    // SAFETY: as above.
    let back = unsafe { specimen.attempt(0, 0, |_| ()) };
    specimen.renew(&back)?;
    specimen.put_back()?;
    back.succeeded("back again", frames)?;
    if attempt.answer.is_ok() && frames < below {
        skip!("Xen has {frames} frames below 2^{bits}, and more");
    }
    say!("# c73: {} of {frames} chunks below 2^{bits}, then {:?}", attempt.done, attempt.answer);
    let part = (1..frames).contains(&attempt.done) && low == attempt.done && untouched;
    if attempt.answer != Err(XenErrno::ENOMEM) || !part {
        let (answer, done) = (&attempt.answer, attempt.done);
        fail!("{answer:?}, {done} done, {low} low frames, rest of the list as it was: {untouched}");
    }
    Ok(())
}
