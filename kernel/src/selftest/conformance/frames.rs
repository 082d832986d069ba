//! [C24](xen_contig::conformance#C24) to [C34](xen_contig::conformance#C34): frames that Xen does
//! not take, each found behind one that it had taken already, so that the way back is tried as
//! well.

use alloc::format;
use alloc::vec::Vec;

use hypercall::ops::{MmuExtOp, Pte};
use hypercall::{DomId, Xen, XenErrno};
use xen_contig::addr::{Gfn, Mfn, Pfn};

use super::raw::{self, NOWHERE, Specimen, is_pv, map, pv_only, refuses};
use super::start_info::StartInfo;
use super::{descriptors, m2p};
use crate::guest::guest;
use crate::hypervisor::untraced;
use crate::layout::{READ, READ_WRITE, linear, slot, window};
use crate::machine::word;
use crate::say;
use crate::selftest::{Check, Test, TestContext, error, fail, skip};
use crate::vcpu::xen;

/// `GNTTABOP_setup_table` (`public/grant_table.h`).
const SETUP_TABLE: u64 = 2;

/// Two frames for an extent of order 1.
const TWO: (u64, u32) = (2, 1);

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c24-in-list-nowhere", in_list_nowhere).needs_order(2));
    tests.push(Test::new("c24-in-list-ends-early", in_list_ends_early).needs_order(2));
    tests.push(Test::new("c24-in-list-among-the-frames", in_list_among_the_frames).needs_order(2));
    tests.push(Test::new("c25-frame-that-is-none", frame_that_is_none).needs_order(2));
    tests.push(Test::new("c26-translated-caller", translated_caller).needs_order(2));
    tests.push(Test::new("c28-frame-of-others", frame_of_others).needs_order(2));
    tests.push(Test::new("c29-shared-info", shared_info).needs_order(2));
    tests.push(Test::new("c29-grant-table", grant_table).needs_order(2));
    tests.push(Test::new("c30-mapped-twice", mapped_twice).needs_order(2));
    tests.push(Test::new("c30-mapped-by-idle-tables", mapped_by_idle_tables).needs_order(2));
    tests.push(Test::new("c31-page-table", page_table).needs_order(2));
    descriptors::add(tests);
    tests.push(Test::new("c32-ring-page", ring_page));
    tests.push(Test::new("c33-same-frame-twice", same_frame_twice).needs_order(2));
    tests.push(Test::new("c34-bad-frame-in-an-extent", bad_frame_in_an_extent).needs_order(3));
}

/// Tries to exchange a good frame and then `gfn`, and wants EINVAL and the good frame back.
fn bad_frame(context: &TestContext<'_>, what: &str, gfn: u64) -> Check {
    // SAFETY: the second entry of the in-list is the specimen's, of which it has two. The frame
    // that goes there instead holds nothing of Rust's, or the callers would not try.
    unsafe {
        refuses(context, TWO, what, XenErrno::EINVAL, |x| {
            x.input.extent_start.add(1).write(gfn);
        })
    }
}

fn in_list_nowhere(context: &TestContext<'_>) -> Check {
    let nowhere = window(NOWHERE).as_mut_ptr::<u64>();
    // SAFETY: nothing can be read there, and so no frame is taken.
    unsafe {
        refuses(context, TWO, "all of it", XenErrno::EFAULT, |x| x.input.extent_start = nowhere)
    }
}

fn in_list_ends_early(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // The first entry is the last word of a page, and the next page is not mapped.
    let machine = context.machine;
    let Some(pages) = machine.take(2) else { skip!("the guest has no two free frames in a row") };
    let (first, second) = (pages.first(), pages.first().add(1));
    let Some(mfn) = machine.p2m.mfn(second) else { fail!("the allocator gave out a hole") };
    map(core::iter::once((second, Pte::NOT_PRESENT)))?;
    // SAFETY: the page is ours and mapped; the list goes on where Xen can't read.
    let refused = unsafe {
        let list = word(first, 511);
        refuses(context, TWO, "its second half", XenErrno::EFAULT, |x| {
            list.write_volatile(x.input.extent_start.read());
            x.input.extent_start = list;
        })
    };
    map(core::iter::once((second, Pte::new(mfn, READ_WRITE))))?;
    machine.give(pages);
    refused
}

fn in_list_among_the_frames(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut specimen = Specimen::take(context, 4)?;
    let list = linear(Pfn::new(specimen.pfns()[2])).as_mut_ptr::<u64>();
    specimen.map_one(2, Some(READ_WRITE))?;
    for (index, gfn) in specimen.gfns().iter().enumerate() {
        // SAFETY: the frame is ours and mapped again.
        unsafe { list.add(index).write_volatile(*gfn) };
    }
    // Still mapped, it is a frame that something maps; unmapped, it is a list that can't be read.
    // SAFETY: the list holds what it did.
    let mapped = unsafe { specimen.attempt(0, 2, |x| x.input.extent_start = list) };
    specimen.map_one(2, None)?;
    // SAFETY: the list can't be read.
    let unmapped = unsafe { specimen.attempt(0, 2, |x| x.input.extent_start = list) };
    let mfn = specimen.gfns()[2];
    specimen.replace(2, mfn);
    specimen.put_back()?;
    mapped.refused("mapped", XenErrno::EINVAL, 0)?;
    unmapped.refused("unmapped", XenErrno::EFAULT, 0)
}

fn frame_that_is_none(context: &TestContext<'_>) -> Check {
    if !is_pv(context) {
        for gfn in [1 << 30, 1 << 40] {
            // SAFETY: there is no such frame.
            unsafe {
                refuses(context, (1, 0), "beyond memory", XenErrno::EINVAL, |x| {
                    x.input.extent_start.write(gfn);
                })?;
            }
        }
        return Ok(());
    }
    let end = match m2p::end_of_ram() {
        Ok(end) => end,
        Err(errno) => error!("XENMEM_maximum_ram_page: {errno}"),
    };
    bad_frame(context, "the first beyond RAM", end)?;
    bad_frame(context, "far beyond RAM", 1 << 40)?;
    bad_frame(context, "beyond any address", u64::MAX)?;
    bad_frame(context, "video memory", 0xa0)?;
    bad_frame(context, "the local APIC", 0xf_ee00)
}

fn translated_caller(context: &TestContext<'_>) -> Check {
    if is_pv(context) {
        skip!("PV guest: Xen exchanges its memory");
    }
    // SAFETY: ordinary exchanges of frames of ours that hold nothing.
    unsafe {
        refuses(context, (1, 0), "one frame", XenErrno::EOPNOTSUPP, |_| ())?;
        refuses(context, (4, 2), "four for an extent", XenErrno::EOPNOTSUPP, |_| ())
    }
}

fn frame_of_others(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let others = m2p::frames_of_others(context.machine, 8);
    for mfn in &others.of_guests {
        bad_frame(context, &format!("mfn {mfn:#x} of another guest"), *mfn)?;
    }
    for mfn in &others.of_nobody {
        bad_frame(context, &format!("mfn {mfn:#x}, free or Xen's"), *mfn)?;
    }
    let (guests, nobody) = (others.of_guests.len(), others.of_nobody.len());
    say!("# c28: {guests} frames of other guests, {nobody} free ones or Xen's");
    if nobody == 0 {
        fail!("the M2P shows no frame that is free or Xen's");
    }
    Ok(())
}

fn shared_info(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let Some(info) = StartInfo::find(context.machine) else { error!("no start info") };
    // Nothing maps it, so it is for being Xen's that it is refused.
    bad_frame(context, "shared_info", info.shared_info >> 12)
}

fn grant_table(context: &TestContext<'_>) -> Check {
    /// `struct gnttab_setup_table` (`public/grant_table.h`).
    #[repr(C)]
    struct SetupTable {
        domid: DomId,
        nr_frames: u32,
        status: i16,
        frame_list: *mut u64,
    }
    pv_only(context)?;
    let mut frame = 0_u64;
    let mut setup =
        SetupTable { domid: DomId::SELF, nr_frames: 1, status: -1, frame_list: &raw mut frame };
    let args = [SETUP_TABLE, &raw mut setup as u64, 1, 0, 0, 0];
    // SAFETY: Xen writes one frame number and the status.
    let answer = unsafe { raw::call(xen_sys::__HYPERVISOR_grant_table_op, args) };
    // SAFETY: both live; Xen has written to them behind the compiler's back.
    let (status, frame) =
        unsafe { ((&raw const setup.status).read_volatile(), (&raw const frame).read_volatile()) };
    if answer.is_err() || status != 0 || frame == 0 {
        skip!("no grant table to be had: {answer:?}, status {status}");
    }
    bad_frame(context, "grant table", frame)
}

fn mapped_twice(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // By the linear mapping alone, which is one mapping more than there may be.
    for (what, index, flags) in
        [("first, mapped", 0, READ_WRITE), ("last, mapped", 3, READ_WRITE), ("read-only", 2, READ)]
    {
        let specimen = Specimen::take(context, 4)?;
        specimen.map_one(index, Some(flags))?;
        // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
        let attempt = unsafe { specimen.attempt(0, 2, |_| ()) };
        specimen.settle(&attempt)?;
        attempt.refused(what, XenErrno::EINVAL, 0)?;
    }
    for (what, flags) in [("writable alias", READ_WRITE), ("read-only alias", READ)] {
        let specimen = Specimen::take(context, 4)?;
        let mfn = Mfn::new(specimen.gfns()[1]);
        if let Err(errno) = guest().set_window(slot::ALIAS, Some((Gfn::new(mfn.number()), flags))) {
            error!("mapping mfn {mfn} a second time: {errno}");
        }
        // SAFETY: as above.
        let attempt = unsafe { specimen.attempt(0, 2, |_| ()) };
        if let Err(errno) = guest().set_window(slot::ALIAS, None) {
            error!("dropping the alias: {errno}");
        }
        // The alias gone, the same call succeeds.
        // SAFETY: as above.
        let again = unsafe { specimen.attempt(0, 2, |_| ()) };
        specimen.settle(&again)?;
        attempt.refused(what, XenErrno::EINVAL, 0)?;
        if again.answer != Err(XenErrno::ENOMEM) {
            again.succeeded(what, 4)?;
        }
    }
    Ok(())
}

/// A page table that Xen knows, but that no processor uses, holds on to a frame all the same: so
/// do those of a vCPU that is elsewhere.
fn mapped_by_idle_tables(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let specimen = Specimen::take(context, 4)?;
    let mut table = Specimen::take(context, 1)?;
    let mfn = table.gfns()[0];
    table.map_one(0, Some(READ_WRITE))?;
    let words = Pfn::new(table.pfns()[0]);
    let pte = Pte::new(Mfn::new(specimen.gfns()[2]), READ_WRITE);
    for index in 0..512 {
        let entry = if index == 7 { pte.raw() } else { 0 };
        // SAFETY: the frame is ours and mapped.
        unsafe { word(words, index).write_volatile(entry) };
    }
    table.replace(0, mfn);
    table.map_one(0, Some(READ))?;
    let ext = |op| {
        // SAFETY: nothing is reached through the table.
        unsafe { xen().mmuext_op(&[op], &mut 0, DomId::SELF) }
    };
    if let Err(errno) = ext(MmuExtOp::pin_l1(Mfn::new(mfn))) {
        error!("pinning a page table: {errno}");
    }
    // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
    let attempt = unsafe { specimen.attempt(0, 2, |_| ()) };
    if let Err(errno) = ext(MmuExtOp::unpin(Mfn::new(mfn))) {
        error!("unpinning a page table: {errno}");
    }
    specimen.settle(&attempt)?;
    table.put_back()?;
    attempt.refused("mapped by a table of nobody's", XenErrno::EINVAL, 0)
}

fn page_table(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let machine = context.machine;
    let Some(m2p) = machine.m2p else { return Ok(()) };
    // The one in force, taken out of the linear mapping: then being a table is all that holds on
    // to it.
    let table = m2p::top_table();
    // SAFETY: a page table is RAM.
    let Some(pfn) = (unsafe { m2p.pfn(table) }) else { fail!("no pfn for table {table}") };
    bad_frame(context, "a page table, mapped read-only", table.number())?;
    map(core::iter::once((pfn, Pte::NOT_PRESENT)))?;
    let refused = bad_frame(context, "a page table that nothing maps", table.number());
    map(core::iter::once((pfn, Pte::new(table, READ))))?;
    refused
}

fn ring_page(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let machine = context.machine;
    let Some(info) = StartInfo::find(machine) else { error!("no start info") };
    let Some(m2p) = machine.m2p else { return Ok(()) };
    let rings: Vec<_> = info.rings().collect();
    if rings.is_empty() {
        skip!("dom0 has no rings");
    }
    for (name, mfn) in rings {
        // SAFETY: a frame that the toolstack populated is RAM.
        let Some(pfn) = (unsafe { m2p.pfn(mfn) }) else { fail!("no pfn for the ring of {name}") };
        let specimen = Specimen::take(context, 1)?;
        // Nothing may be printed while the console's page is away: so no trace either.
        let set = |pte| {
            let flush = hypercall::ops::UvmFlags::INVLPG;
            // SAFETY: the ring is reached by printing alone, and nothing is printed meanwhile.
            unsafe { untraced().update_va_mapping(linear(pfn), pte, flush) }
        };
        let (mut input, mut out) = ([mfn.number()], [pfn.number()]);
        let mut argument = hypercall::abi::memory::MemoryExchange {
            input: raw::extents(&mut input, 0),
            output: raw::extents(&mut out, 0),
            nr_exchanged: 0,
        };
        let zapped = set(Pte::NOT_PRESENT);
        // SAFETY: the lists live across the call; a ring that Xen took would be replaced below.
        let answer =
            unsafe { untraced().memory_op(hypercall::ops::MemoryOp::Exchange(&mut argument)) };
        let back = if answer.is_ok() { out[0] } else { mfn.number() };
        let restored = set(Pte::new(Mfn::new(back), READ_WRITE));
        specimen.put_back()?;
        if answer.is_ok() {
            info.set_p2m(pfn, back);
            fail!("Xen took the page of {name}, which no backend maps");
        }
        if let (Err(errno), _) | (_, Err(errno)) = (zapped, restored) {
            error!("mapping of the {name} page: {errno}");
        }
        if answer != Err(XenErrno::EINVAL) || argument.nr_exchanged != 0 {
            fail!("{name}: expected EINVAL, heard {answer:?}");
        }
    }
    Ok(())
}

fn same_frame_twice(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // SAFETY: frames of the specimen alone.
    unsafe {
        refuses(context, TWO, "in one chunk", XenErrno::EINVAL, |x| {
            x.input.extent_start.add(1).write(x.input.extent_start.read());
        })
    }
}

fn bad_frame_in_an_extent(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    for bad in [0, 3, 7] {
        let specimen = Specimen::contiguous(context, 3)?;
        specimen.map_one(bad, Some(READ))?;
        // SAFETY: an ordinary exchange of frames that hold nothing of Rust's.
        let attempt = unsafe { specimen.attempt(3, 0, |_| ()) };
        // Back to single frames, without the mapping.
        specimen.map_one(bad, None)?;
        // SAFETY: as above.
        let again = unsafe { specimen.attempt(3, 0, |_| ()) };
        specimen.settle(&again)?;
        attempt.refused(&format!("frame {bad} of 8"), XenErrno::EINVAL, 0)?;
        again.succeeded("without the mapping", 1)?;
    }
    Ok(())
}
