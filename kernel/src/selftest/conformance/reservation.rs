//! [C76](xen_contig::conformance#C76) to [C78](xen_contig::conformance#C78): returning memory to Xen
//! and populating it again, which a translated guest does instead of an exchange, and asking what
//! backs a frame.

use alloc::vec;
use alloc::vec::Vec;

use hypercall::Xen;
use hypercall::abi::hvm::{HVMMEM_MMIO_DM, HVMMEM_RAM_RW};
use hypercall::ops::HvmOp;

use super::TestOutcome;
use super::raw::{Specimen, is_pv, limit};
use super::returned::{ReturnedFrames, decrease, populate};
use super::supply::slack;
use crate::layout::READ_WRITE;
use crate::machine::word;
use crate::say;
use crate::selftest::reservation::can_refill;
use crate::selftest::{Check, Test, TestContext, fail, skip};
use crate::vcpu::xen;
use xen_contig::addr::Pfn;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c76-decrease-of-a-mapped-frame", decrease_of_a_mapped_frame));
    tests.push(Test::new("c77-populate-below-any-memory", populate_below_any_memory));
    tests.push(Test::new("c77-populate-above-the-limit", populate_above_the_limit));
    tests.push(Test::new("c77-populate-at-the-maximum", populate_at_the_maximum));
    tests.push(Test::new("c77-populate-an-extent", populate_an_extent));
    tests.push(Test::new("c78-what-backs-a-frame", what_backs_a_frame));
}

fn reservation(context: &TestContext<'_>) -> Result<u64, TestOutcome> {
    match context.machine.current_reservation() {
        Ok(frames) => Ok(frames),
        Err(errno) => fail!("Xen does not report the reservation: {errno}"),
    }
}

fn decrease_of_a_mapped_frame(context: &TestContext<'_>) -> Check {
    can_refill()?;
    let before = reservation(context)?;
    let mut specimen = Specimen::take(context, 1)?;
    let pfn = Pfn::new(specimen.pfns()[0]);
    if is_pv(context) {
        specimen.map_one(0, Some(READ_WRITE))?;
    }
    let mut list = [specimen.gfns()[0]];
    // SAFETY: a specimen contains no Rust objects. The access below happens while a mapping still
    // references the frame.
    let answer = unsafe { decrease(&mut list) };
    let after = reservation(context);
    let mut alive = true;
    if is_pv(context) {
        // Xen keeps a returned frame while something maps it.
        // SAFETY: the frame is mapped, and Xen frees no mapped frame.
        unsafe {
            word(pfn, 5).write_volatile(0xc76);
            alive = word(pfn, 5).read_volatile() == 0xc76;
        }
        specimen.map_one(0, None)?;
    }
    let last = reservation(context);
    let mut list = [pfn.number()];
    let filled = populate(&mut list, 0, |_| ());
    specimen.replace(0, list[0]);
    if filled != Ok(1) {
        fail!("expected Xen to populate the frame, it answered {filled:?}");
    }
    specimen.put_back()?;
    let expected = if is_pv(context) { before } else { before - 1 };
    if (answer, after.ok(), last.ok(), alive) != (Ok(1), Some(expected), Some(before - 1), true) {
        fail!(
            "Xen answered {answer:?}; expected a count of {expected}, and {} after the unmapping; \
             contents kept: {alive}",
            before - 1
        );
    }
    Ok(())
}

fn populate_below_any_memory(context: &TestContext<'_>) -> Check {
    let mut hole = ReturnedFrames::make(context, 2)?;
    let answers = [1, 12].map(|bits| {
        let mut list = hole.pfns();
        (populate(&mut list, 0, |r| r.mem_flags = bits), list == hole.pfns())
    });
    hole.fill()?;
    if answers != [(Ok(0), true); 2] {
        fail!("expected no frame, got {answers:?}");
    }
    Ok(())
}

fn populate_above_the_limit(context: &TestContext<'_>) -> Check {
    let above = limit(context)? + 1;
    let mut hole = ReturnedFrames::make(context, 1)?;
    let mut list = hole.pfns();
    let answer = populate(&mut list, above, |_| ());
    hole.fill()?;
    if answer != Ok(0) {
        fail!("expected no extent of order {above}, got {answer:?}");
    }
    Ok(())
}

fn populate_at_the_maximum(context: &TestContext<'_>) -> Check {
    let slack = slack(context)?;
    // These guest frames lie past the end of the guest's memory, so no code uses them.
    let first = context.machine.p2m.frames() + 0x1000;
    let wanted: Vec<u64> = (first..first + slack + 4).collect();
    let mut list = wanted.clone();
    let answer = populate(&mut list, 0, |_| ());
    let size = reservation(context);
    let got = answer.unwrap_or(0).min(slack + 4) as usize;
    // SAFETY: no code uses the frames, and nothing maps them.
    let given = unsafe { decrease(&mut list[..got]) };
    say!("# c77: asked for {} frames, {got} up to the maximum", slack + 4);
    if (answer, given) != (Ok(slack), Ok(slack)) {
        fail!(
            "expected {slack} frames up to the maximum, got {answer:?} (size {size:?}) and \
             returned {given:?}"
        );
    }
    Ok(())
}

fn populate_an_extent(context: &TestContext<'_>) -> Check {
    const ORDER: u32 = 4;
    let mut hole = ReturnedFrames::make(context, 1 << ORDER)?;
    let mut list = vec![hole.pfns()[0]];
    let answer = populate(&mut list, ORDER, |_| ());
    if answer != Ok(1) {
        hole.fill()?;
        skip!("Xen has no extent of order {ORDER}: {answer:?}");
    }
    let aligned = list[0].is_multiple_of(1 << ORDER);
    for index in 0..1 << ORDER {
        hole.specimen().replace(index, list[0] + index as u64);
    }
    hole.put_back()?;
    if !aligned {
        fail!("an extent of order {ORDER} is not aligned: {:#x}", list[0]);
    }
    Ok(())
}

fn what_backs_a_frame(context: &TestContext<'_>) -> Check {
    if is_pv(context) {
        skip!("PV guest: Xen's M2P says it");
    }
    let ask =
        |specimen: &Specimen<'_>| xen().hvm_op(HvmOp::GetMemType(Pfn::new(specimen.pfns()[0])));
    let populated = Specimen::take(context, 1)?;
    let with_memory = ask(&populated);
    populated.put_back()?;
    let mut hole = ReturnedFrames::make(context, 1)?;
    let without = ask(hole.specimen());
    hole.fill()?;
    if (with_memory, without) != (Ok(HVMMEM_RAM_RW), Ok(HVMMEM_MMIO_DM)) {
        fail!("Xen reports {with_memory:?} for a frame with memory, {without:?} for one without");
    }
    Ok(())
}
