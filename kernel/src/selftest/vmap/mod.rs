//! Virtual areas: what they leave behind, what a purge of it costs, and who flushes.
//!
//! | file | question |
//! |---|---|
//! | [`areas`] | does an area show its frames, with its protection and nothing beside them? |
//! | [`leftover`] | does Xen refuse a leftover, is it named, purged, and then out of the way? |
//! | [`refilled`] | PVH: does a refill drop leftovers, and spare an area in use? |
//! | [`holders`] | is whoever holds a frame called by its right name? |
//! | [`cost`] | does a purge flush nothing, and cost what the aliases of its frames cost? |
//! | [`other_vcpu`] | does no vCPU reach the old frames once an exchange is through? |
//! | [`modes`] | what do lazy and sync cost, side by side? |
//! | [`picture`] | what did a transaction do to a region, drawn |
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

use hypercall::trace::{CallTotals, Summary};
use xen_contig::addr::Pfn;
use xen_contig::frames::FrameRun;
use xen_contig::vmap::Protection;

use super::owned::{Owned, give_left};
use super::{Check, Test, TestContext, TestOutcome, books, error, fail, skip};
use crate::machine::Machine;
use crate::vcpu;
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
    // SAFETY: the test that owns the run keeps it until it has unmapped the area.
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
    // SAFETY: the frames belong to the test, as this function requires.
    match unsafe { machine.areas.vmap(frames, Protection::ReadWrite, name) } {
        Ok(area) => Ok(TestArea::new(machine, area)),
        Err(error) => fail!("mapping \"{name}\": {error}"),
    }
}

/// What `act` cost in hypercalls, of all vCPUs together.
pub fn cost_of<R>(act: impl FnOnce() -> R) -> (R, CallTotals) {
    let total = || {
        let mut all = Summary::new();
        vcpu::online().for_each(|vcpu| all.add(&vcpu.xen.summary()));
        all.total()
    };
    let before = total();
    let result = act();
    let after = total();
    let row = CallTotals {
        calls: after.calls - before.calls,
        sub_operations: after.sub_operations - before.sub_operations,
        flushes: after.flushes - before.flushes,
        errors: after.errors - before.errors,
    };
    (result, row)
}
