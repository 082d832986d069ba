//! Does memory back every free frame?
//!
//! Xen populates some guests on demand. It crashes a guest that accesses more frames than Xen has
//! memory for, and a crash ends all tests.

use alloc::vec::Vec;

use super::owned::OwnedRun;
use super::{Check, Test, TestContext, fail};
use crate::machine::word;
use crate::say;

/// The number of frames that are taken at once, if such a run is free.
const RUN: u64 = 512;

/// The maximum number of runs in the list, which is that of a guest with 64 GiB.
const MAX_RUNS: usize = 1 << 15;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("memory-is-backed", touch_all));
}

/// Takes all frames before it frees one, so that it touches each of them.
fn touch_all(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let mut rows = Vec::new();
    for frames in [RUN, 1] {
        while rows.len() < MAX_RUNS
            && let Some(run) = machine.take(frames)
        {
            rows.push(OwnedRun::of(machine, run));
        }
    }
    let frames = || rows.iter().flat_map(|row| row.iter());
    for pfn in frames() {
        // SAFETY: the frame belongs to this test, and the linear mapping maps it.
        unsafe { word(pfn, 0).write_volatile(pfn.number() ^ context.seed) };
    }
    for pfn in frames() {
        // SAFETY: the frame belongs to this test, and the linear mapping maps it.
        let found = unsafe { word(pfn, 0).read_volatile() };
        if found != pfn.number() ^ context.seed {
            fail!("pfn {pfn} contains {found:#x}, expected {:#x}", pfn.number() ^ context.seed);
        }
    }
    say!("# memory-is-backed: memory backs all {} free frames", frames().count());
    Ok(())
}
