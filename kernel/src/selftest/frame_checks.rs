//! Checks that several tests share: patterns in frames, and agreement of the guest's tables with
//! Xen's.

use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::frames::FrameRun;

use super::{Check, fail};
use crate::machine::{Machine, word};

const WORDS: usize = PAGE_SIZE / 8;

/// Returns the indices of the words that a test checks: all words in short runs, otherwise the
/// first and the last.
fn words(frames: u64) -> impl Iterator<Item = usize> + Clone {
    let step = if frames <= 512 { 1 } else { WORDS - 1 };
    (0..WORDS).step_by(step)
}

/// Returns the pattern of a word, which is never 0.
fn pattern(seed: u64, pfn: Pfn, index: usize) -> u64 {
    (seed ^ (pfn.number() << 16 | index as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Fills a run with a pattern that contains no zero.
pub fn dirty(run: &FrameRun, seed: u64) {
    for pfn in run.iter() {
        for index in words(run.frames()) {
            // SAFETY: the run owns the frames ([M1](xen_contig::rules#M1)), and they are mapped.
            unsafe { word(pfn, index).write_volatile(pattern(seed, pfn, index)) };
        }
    }
}

/// Checks that a run contains the pattern.
pub fn holds_pattern(run: &FrameRun, seed: u64, whose: &str) -> Check {
    holds(run, whose, |pfn, index| pattern(seed, pfn, index))
}

/// Checks that a run contains only zeros.
pub fn is_zero(run: &FrameRun, whose: &str) -> Check {
    holds(run, whose, |_, _| 0)
}

fn holds(run: &FrameRun, whose: &str, expected: impl Fn(Pfn, usize) -> u64) -> Check {
    for pfn in run.iter() {
        for index in words(run.frames()) {
            // SAFETY: the run owns the frames ([M1](xen_contig::rules#M1)), and they are mapped.
            let found = unsafe { word(pfn, index).read_volatile() };
            let expected = expected(pfn, index);
            if found != expected {
                fail!(
                    "{whose}: pfn {pfn} contains {found:#x} at byte {}, expected {expected:#x}",
                    index * 8
                );
            }
        }
    }
    Ok(())
}

/// Checks that P2M, page table and Xen's M2P agree on each frame of a run
/// ([M4](xen_contig::rules#M4)).
///
/// The machine frame must be `expected(i)` where that is known.
pub fn agree(machine: &Machine, run: &FrameRun, expected: impl Fn(u64) -> Option<Mfn>) -> Check {
    let Some(m2p) = machine.m2p else { return Ok(()) };
    for (index, pfn) in run.iter().enumerate() {
        let Some(mfn) = machine.p2m.mfn(pfn) else { fail!("the P2M has no entry for pfn {pfn}") };
        if let Some(expected) = expected(index as u64)
            && mfn != expected
        {
            fail!("the P2M has mfn {mfn} for pfn {pfn}, expected {expected}");
        }
        match machine.linear.read(pfn) {
            Some(pte) if pte.is_present() && pte.is_writable() && pte.mfn() == mfn => {}
            other => fail!("pfn {pfn} is mapped by {other:?}, but the P2M has mfn {mfn}"),
        }
        // SAFETY: the page table maps the frame, so it is RAM.
        match unsafe { m2p.pfn(mfn) } {
            Some(recorded) if recorded == pfn => {}
            other => {
                fail!("Xen's M2P has {other:?} for mfn {mfn}, but the P2M has it for pfn {pfn}")
            }
        }
    }
    Ok(())
}
