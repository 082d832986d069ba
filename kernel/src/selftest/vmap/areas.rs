//! Does an area map its frames with its protection, and no page next to them?

use alloc::vec::Vec;

use hypercall::VirtAddr;
use xen_contig::addr::Pfn;
use xen_contig::vmap::{Area, Flush, Protection, UnmapMode};

use super::test_area::TestArea;
use super::{Check, OwnedRun, Test, TestContext, error, fail, map_frames};
use crate::machine::{Machine, word};
use crate::traps::{try_read, try_write};

/// The number of pages of the area.
const PAGES: u64 = 7;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vmap-shows-its-frames", |context| {
        maps_its_frames(context, UnmapMode::Lazy)
    }));
    tests.push(Test::new("vmap-sync-unmaps-at-once", |context| {
        maps_its_frames(context, UnmapMode::Sync)
    }));
    tests.push(Test::new("vmap-read-only", read_only));
}

fn page(area: &Area, index: u64) -> VirtAddr {
    area.address() + index * 4096
}

/// Compares an area of scattered frames with the linear mapping, and unmaps it.
fn maps_its_frames(context: &TestContext<'_>, mode: UnmapMode) -> Check {
    let machine = context.machine;
    let run = OwnedRun::take(machine, 2 * PAGES)?;
    let scattered = (0..PAGES).rev().map(|index| run.first().add(2 * index));
    // SAFETY: the test owns the frames ([M1](xen_contig::rules#M1)) until it has unmapped the area.
    let area = unsafe { map_frames(machine, scattered.clone(), "self-test")? };
    let checked = check(context.seed, &area, scattered);
    // On each side of an area is a guard page or a free page.
    let beside = [page(&area, PAGES), area.address() - 4096_u64].map(try_read);
    let address = area.address();
    area.unmap(mode)?;
    let left = try_read(address).is_ok();
    if let Err(error) = machine.areas.purge(&run, Flush::Now) {
        fail!("purging: {error}");
    }
    checked?;
    if beside.iter().any(Result::is_ok) {
        fail!("a page beside the area can be read: {beside:x?}");
    }
    if left != (mode == UnmapMode::Lazy) {
        fail!("after vunmap in mode {mode:?} the area is readable: {left}");
    }
    match try_read(address) {
        Err(_) => Ok(()),
        Ok(value) => fail!("after a purge with a flush the area still reads {value:#x}"),
    }
}

fn check(seed: u64, area: &Area, frames: impl Iterator<Item = Pfn>) -> Check {
    for (index, pfn) in (0..).zip(frames) {
        let value = seed ^ ((index + 1) * 0x0101_0101);
        // SAFETY: the test owns the frame ([M1](xen_contig::rules#M1)), and the linear mapping maps
        // it.
        unsafe { word(pfn, 9).write_volatile(value) };
        match try_read(page(area, index) + 72_u64) {
            Ok(found) if found == value => {}
            other => fail!(
                "page {index} of {area:?} reads {other:x?}, but pfn {pfn} contains {value:#x}"
            ),
        }
        // SAFETY: the test owns the frame that the area maps ([M1](xen_contig::rules#M1)).
        let written = unsafe { try_write(page(area, index), !value) };
        // SAFETY: the test owns the frame ([M1](xen_contig::rules#M1)), and the linear mapping maps
        // it.
        let found = unsafe { word(pfn, 0).read_volatile() };
        if written.is_err() || found != !value {
            fail!(
                "writing to page {index} of {area:?}: {written:?}, pfn {pfn} contains {found:#x}"
            );
        }
    }
    Ok(())
}

/// Checks that a read-only area cannot be written.
///
/// A page table is an example: Xen permits no other mapping of it.
fn read_only(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let run = OwnedRun::take(machine, 1)?;
    // SAFETY: `run` owns the frame ([M1](xen_contig::rules#M1)) until the test ends.
    let area = unsafe { machine.areas.vmap(run.iter(), Protection::ReadOnly, "read-only") };
    let area = match area {
        Ok(area) => TestArea::new(machine, area),
        Err(error) => fail!("mapping read-only: {error}"),
    };
    let read = try_read(area.address());
    // SAFETY: the test owns the frame ([M1](xen_contig::rules#M1)).
    let written = unsafe { try_write(area.address(), 1) };
    area.unmap(UnmapMode::Sync)?;
    if read.is_err() || written.is_ok() {
        fail!("expected a readable and read-only area; reading: {read:x?}, writing: {written:?}");
    }
    writable_page_table_is_refused(machine)
}

fn writable_page_table_is_refused(machine: &Machine) -> Check {
    let Some(table) = machine.top_table() else { return Ok(()) };
    let stats = machine.areas.stats().live;
    // SAFETY: the kernel never gives its top-level table to a transaction ([M1](xen_contig::rules#M1)).
    let mapped = unsafe { machine.areas.vmap([table], Protection::ReadWrite, "page table") };
    match mapped {
        Err(xen_contig::vmap::VmapError::Refused { pfn, .. }) if pfn == table => {}
        Err(other) => {
            fail!("expected Xen to refuse a writable mapping of a page table, got: {other}")
        }
        Ok(area) => {
            TestArea::new(machine, area).unmap(UnmapMode::Sync)?;
            error!("Xen mapped the top-level table pfn {table} writable")
        }
    }
    if machine.areas.stats().live != stats {
        fail!("a refused area is registered: {:?}", machine.areas.stats());
    }
    Ok(())
}
