//! Virtual areas: which entries remain, what a purge costs, and which flushes are made.
//!
//! | file | question |
//! |---|---|
//! | [`areas`] | does an area map its frames with its protection, and no page next to them? |
//! | [`leftover`] | does Xen refuse a frame with a leftover? Does the error name it? Does a purge help? |
//! | [`refilled`] | PVH: does a refill purge leftovers, and refuse an area in use? |
//! | [`holders`] | does `holder` name what references a frame? |
//! | [`cost`] | does a purge flush nothing, and does its cost depend only on the aliases of its frames? |
//! | [`other_vcpu`] | does no vCPU reach the old frames after an exchange? |
//! | [`modes`] | what do lazy and sync unmapping cost? |
//! | [`picture`] | draws what a transaction did to a region |
//! | [`test_area`] | an area that ends with its test |

mod areas;
mod cost;
mod holders;
mod leftover;
mod modes;
mod other_vcpu;
mod picture;
mod refilled;
pub mod test_area;

use alloc::vec::Vec;

use hypercall::trace::CallTotals;
use xen_contig::addr::Pfn;
use xen_contig::frames::FrameRun;
use xen_contig::vmap::{Protection, VmapError};

use super::owned::{OwnedExtent, OwnedRun, free_remaining, refused};
use super::{Check, Test, TestContext, TestOutcome, error, fail, frame_checks, skip};
use crate::machine::Machine;
use crate::vcpu::xen;
use test_area::TestArea;

pub fn add(tests: &mut Vec<Test>) {
    areas::add(tests);
    leftover::add(tests);
    holders::add(tests);
    cost::add(tests);
    refilled::add(tests);
    other_vcpu::add(tests);
    modes::add(tests);
}

/// Maps a run of frames as an area of a test.
pub fn map<'m>(
    machine: &'m Machine,
    run: &FrameRun,
    name: &'static str,
) -> Result<TestArea<'m>, TestOutcome> {
    // SAFETY: the test owns the run and keeps it until it has unmapped the area
    // ([M1](xen_contig::rules#M1)).
    unsafe { map_frames(machine, run.iter(), name) }
}

/// Maps frames as an area of a test.
///
/// # Safety
/// The frames belong to the test until it has unmapped the area ([M1](xen_contig::rules#M1)).
pub unsafe fn map_frames<'m>(
    machine: &'m Machine,
    frames: impl Iterator<Item = Pfn> + Clone,
    name: &'static str,
) -> Result<TestArea<'m>, TestOutcome> {
    // SAFETY: by this function's contract the frames belong to the test.
    match unsafe { machine.areas.vmap(frames, Protection::ReadWrite, name) } {
        Ok(area) => Ok(TestArea::new(machine, area)),
        Err(error @ VmapError::NoSpace { .. }) => skip!("mapping \"{name}\": {error}"),
        Err(error) => fail!("mapping \"{name}\": {error}"),
    }
}

/// Returns the result of `act`, and the hypercalls of this vCPU meanwhile, without their time.
///
/// Another vCPU may send its event at the end of an earlier job only now.
pub fn cost_of<R>(act: impl FnOnce() -> R) -> (R, CallTotals) {
    let before = xen().summary();
    let result = act();
    (result, CallTotals { ticks: 0, ..xen().summary().since(&before).total() })
}
