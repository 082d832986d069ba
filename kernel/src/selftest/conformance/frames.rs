//! [C24](xen_contig::conformance#C24) to [C34](xen_contig::conformance#C34): frames that Xen
//! refuses. Each one follows a frame that Xen has already taken, so that the rollback is tested
//! too.

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
use crate::selftest::owned::OwnedRun;
use crate::selftest::{Check, Test, TestContext, error, fail, skip};
use crate::vcpu::xen;

/// Two frames for an extent of order 1.
const TWO: (u64, u32) = (2, 1);

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c24-in-list-nowhere", in_list_nowhere).needs_order(2));
    tests.push(Test::new("c24-in-list-ends-early", in_list_ends_early).needs_order(2));
    tests.push(Test::new("c24-in-list-among-the-frames", in_list_among_the_frames).needs_order(2));
    tests.push(Test::new("c25-frame-that-is-none", frame_that_is_none).needs_order(2));
    tests.push(Test::new("c26-translated-caller", translated_caller).needs_order(2));
    tests.push(Test::new("c28-frame-of-others", frame_of_others).needs_order(2));
    tests.push(Test::new("c30-mapped-twice", mapped_twice).needs_order(2));
    tests.push(Test::new("c30-mapped-by-idle-tables", mapped_by_idle_tables).needs_order(2));
    tests.push(Test::new("c31-page-table", page_table).needs_order(2));
    descriptors::add(tests);
    tests.push(Test::new("c32-ring-page", ring_page));
    tests.push(Test::new("c33-same-frame-twice", same_frame_twice).needs_order(2));
    tests.push(Test::new("c34-bad-frame-in-an-extent", bad_frame_in_an_extent).needs_order(3));
}

/// Tries to exchange a good frame and then `gfn`. Expects `EINVAL`, with the good frame unchanged.
pub fn bad_frame(context: &TestContext<'_>, what: &str, gfn: u64) -> Check {
    // SAFETY: the second entry of the in-list is the second frame of the specimen. The frame that
    // replaces it contains no Rust objects, by the choice of the callers.
    unsafe {
        refuses(context, TWO, what, XenErrno::EINVAL, |x| {
            x.input.extent_start.add(1).write(gfn);
        })
    }
}

fn in_list_nowhere(context: &TestContext<'_>) -> Check {
    let nowhere = window(NOWHERE).as_mut_ptr::<u64>();
    // SAFETY: nothing is mapped there, so Xen takes no frame.
    unsafe {
        refuses(context, TWO, "all of it", XenErrno::EFAULT, |x| x.input.extent_start = nowhere)
    }
}

fn in_list_ends_early(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // The first entry is the last word of a page. The next page is not mapped.
    let machine = context.machine;
    let pages = OwnedRun::take(machine, 2)?;
    let (first, second) = (pages.first(), pages.first().add(1));
    let Some(mfn) = machine.p2m.mfn(second) else {
        fail!("the frame allocator handed out a frame without memory")
    };
    map(core::iter::once((second, Pte::NOT_PRESENT)))?;
    // SAFETY: `pages` owns the page, which is mapped. Xen cannot read the rest of the list.
    let refused = unsafe {
        let list = word(first, 511);
        refuses(context, TWO, "its second half", XenErrno::EFAULT, |x| {
            list.write_volatile(x.input.extent_start.read());
            x.input.extent_start = list;
        })
    };
    if let Err(outcome) = map(core::iter::once((second, Pte::new(mfn, READ_WRITE)))) {
        // The frame cannot be used again.
        core::mem::forget(pages);
        return Err(outcome);
    }
    refused
}

fn in_list_among_the_frames(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut specimen = Specimen::take(context, 4)?;
    let list = linear(Pfn::new(specimen.pfns()[2])).as_mut_ptr::<u64>();
    specimen.map_one(2, Some(READ_WRITE))?;
    for (index, gfn) in specimen.gfns().iter().enumerate() {
        // SAFETY: the specimen owns the frame, which is mapped again.
        unsafe { list.add(index).write_volatile(*gfn) };
    }
    // While the frame is mapped, Xen refuses it because of the mapping. Without the mapping Xen
    // cannot read the list.
    // SAFETY: the list has the same contents as before.
    let mapped = unsafe { specimen.attempt(0, 2, |x| x.input.extent_start = list) };
    specimen.map_one(2, None)?;
    // SAFETY: Xen cannot read the list.
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
            // SAFETY: the frame does not exist.
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
    // SAFETY: these are ordinary exchanges of frames that belong to the test and contain no Rust
    // objects.
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
        bad_frame(context, &format!("mfn {mfn:#x}, free or owned by Xen"), *mfn)?;
    }
    let (guests, without_owner) = (others.of_guests.len(), others.of_nobody.len());
    say!("# c28: {guests} frames of other guests, {without_owner} free or owned by Xen");
    if without_owner == 0 {
        fail!("the M2P contains no frame that is free or belongs to Xen");
    }
    Ok(())
}

fn mapped_twice(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // The linear mapping alone is one mapping more than Xen permits.
    for (what, index, flags) in
        [("first, mapped", 0, READ_WRITE), ("last, mapped", 3, READ_WRITE), ("read-only", 2, READ)]
    {
        let specimen = Specimen::take(context, 4)?;
        specimen.map_one(index, Some(flags))?;
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(0, 2, |_| ()) };
        specimen.settle(&attempt)?;
        attempt.refused(what, XenErrno::EINVAL, 0)?;
    }
    for (what, flags) in [("writable alias", READ_WRITE), ("read-only alias", READ)] {
        let specimen = Specimen::take(context, 4)?;
        let mfn = Mfn::new(specimen.gfns()[1]);
        if let Err(errno) = guest().set_window(slot::ALIAS, Some((Gfn::new(mfn.number()), flags))) {
            error!("mapping the alias of mfn {mfn}: {errno}");
        }
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(0, 2, |_| ()) };
        if let Err(errno) = guest().set_window(slot::ALIAS, None) {
            error!("removing the alias: {errno}");
        }
        // Without the alias the same call succeeds.
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let again = unsafe { specimen.attempt(0, 2, |_| ()) };
        specimen.settle(&again)?;
        attempt.refused(what, XenErrno::EINVAL, 0)?;
        if again.answer != Err(XenErrno::ENOMEM) {
            again.succeeded(what, 4)?;
        }
    }
    Ok(())
}

/// Checks that a pinned page table references a frame even if no processor uses the table. The
/// tables of a vCPU that is not running are the same case.
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
        // SAFETY: the specimen owns the frame, which is mapped.
        unsafe { word(words, index).write_volatile(entry) };
    }
    table.replace(0, mfn);
    table.map_one(0, Some(READ))?;
    let ext = |op| {
        // SAFETY: no processor uses the table.
        unsafe { xen().mmuext_op(&[op], &mut 0, DomId::SELF) }
    };
    if let Err(errno) = ext(MmuExtOp::pin_l1(Mfn::new(mfn))) {
        error!("pinning a page table: {errno}");
    }
    // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
    let attempt = unsafe { specimen.attempt(0, 2, |_| ()) };
    if let Err(errno) = ext(MmuExtOp::unpin(Mfn::new(mfn))) {
        error!("unpinning a page table: {errno}");
    }
    specimen.settle(&attempt)?;
    table.put_back()?;
    attempt.refused("mapped by a table that no processor uses", XenErrno::EINVAL, 0)
}

fn page_table(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let machine = context.machine;
    let Some(m2p) = machine.m2p else { return Ok(()) };
    // This is the table in use, without its linear mapping. Then only its use as a page table
    // references it.
    let table = m2p::top_table();
    // SAFETY: a page table is RAM.
    let Some(pfn) = (unsafe { m2p.pfn(table) }) else {
        fail!("the M2P has no pfn for the page table {table}")
    };
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
        // SAFETY: the toolstack populated the frame, so it is RAM.
        let Some(pfn) = (unsafe { m2p.pfn(mfn) }) else {
            fail!("the M2P has no pfn for the ring of {name}")
        };
        let specimen = Specimen::take(context, 1)?;
        // Nothing is printed while the console's page is unmapped, so these calls are not traced.
        let set = |pte| {
            let flush = hypercall::ops::UvmFlags::INVLPG;
            // SAFETY: only printing accesses the ring, and nothing is printed meanwhile.
            unsafe { untraced().update_va_mapping(linear(pfn), pte, flush) }
        };
        let (mut input, mut out) = ([mfn.number()], [pfn.number()]);
        let mut argument = hypercall::abi::memory::MemoryExchange {
            input: raw::extents(&mut input, 0),
            output: raw::extents(&mut out, 0),
            nr_exchanged: 0,
        };
        let zapped = set(Pte::NOT_PRESENT);
        // SAFETY: the lists live across the call. If Xen takes the ring, the code below maps the
        // new frame.
        let answer =
            unsafe { untraced().memory_op(hypercall::ops::MemoryOp::Exchange(&mut argument)) };
        let back = if answer.is_ok() { out[0] } else { mfn.number() };
        let restored = set(Pte::new(Mfn::new(back), READ_WRITE));
        specimen.put_back()?;
        if answer.is_ok() {
            info.set_p2m(pfn, back);
            fail!("Xen exchanged the page of {name}, so no backend maps it");
        }
        if let (Err(errno), _) | (_, Err(errno)) = (zapped, restored) {
            error!("changing the mapping of the {name} page: {errno}");
        }
        if answer != Err(XenErrno::EINVAL) || argument.nr_exchanged != 0 {
            fail!("{name}: expected EINVAL, Xen answered {answer:?}");
        }
    }
    Ok(())
}

fn same_frame_twice(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    // SAFETY: all frames belong to the specimen.
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
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let attempt = unsafe { specimen.attempt(3, 0, |_| ()) };
        // The extent becomes single frames again, without the mapping.
        specimen.map_one(bad, None)?;
        // SAFETY: this is an ordinary exchange of frames that contain no Rust objects.
        let again = unsafe { specimen.attempt(3, 0, |_| ()) };
        specimen.settle(&again)?;
        attempt.refused(&format!("frame {bad} of 8"), XenErrno::EINVAL, 0)?;
        again.succeeded("without the mapping", 1)?;
    }
    Ok(())
}
