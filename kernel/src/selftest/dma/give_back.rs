//! Does memory go back to Xen when the policy says so, and only then?

use alloc::vec::Vec;

use xen_contig::addr::Mfn;
use xen_contig::dma::{Constraints, GiveBack, GiveBackReport, Stats};

use super::ground::{Confined, PAGE, balanced, calls, is_sound, served};
use super::{Check, Test, TestContext, fail, skip};
use crate::machine::Machine;

pub fn add(tests: &mut Vec<Test>) {
    for (name, policy) in [
        ("dma-give-back-keep", GiveBack::Keep),
        ("dma-give-back-at-once", GiveBack::AtOnce),
        ("dma-give-back-later", GiveBack::Later),
    ] {
        tests.push(
            Test::new(name, move |context| give_back(context, policy)).needs_exchange_order(4),
        );
    }
    tests.push(Test::new("dma-give-back-crowd", crowd).needs_exchange_order(1));
}

/// Frames of the buffer; the size is a byte less, so it takes all of an extent of order 4.
const FRAMES: u64 = 16;

fn give_back(context: &TestContext<'_>, policy: GiveBack) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("nothing is exchanged here, so nothing goes back");
    }
    balanced(context, policy, |allocator| {
        let confined = Confined::to(machine, 64)?;
        let any = Constraints::default();
        let size = FRAMES * PAGE - 1;
        let Some(buffer) =
            served(allocator.alloc_coherent(size, &any), "dma-give-back", "16 frames")?
        else {
            skip!("there is no memory for {size} bytes")
        };
        is_sound(machine, &buffer, size, &any)?;
        let first = buffer.frames().first();
        let was = machine.p2m.mfn(first);
        let (free, before) = ({ machine.frames.lock().free_frames() }, calls());
        drop(buffer);
        let (made, stats) = (calls() - before, allocator.stats());
        let back = { machine.frames.lock().free_frames() } - free;
        let seen = (stats.given_back, stats.waiting, back);
        let expected = match policy {
            GiveBack::Keep => (0, 0, FRAMES),
            GiveBack::AtOnce => (FRAMES, 0, FRAMES),
            GiveBack::Later => (0, FRAMES, 0),
        };
        if seen != expected {
            fail!("{policy:?}: given back, waiting and free are {seen:?}, not {expected:?}");
        }
        if (made > 0) != (policy == GiveBack::AtOnce) {
            fail!("{policy:?}: {made} hypercalls in the drop");
        }
        if policy == GiveBack::Later {
            let report = allocator.give_back_waiting();
            if report != (GiveBackReport { given: FRAMES, ..GiveBackReport::default() }) {
                fail!("{report:?}");
            }
        }
        let Stats { waiting, refusals, below_4g, below_16m, .. } = allocator.stats();
        if waiting + refusals > 0 || (policy != GiveBack::Keep && below_4g + below_16m > 0) {
            fail!("{:?}", allocator.stats());
        }
        let kept = is_in_line(machine, first, was);
        if kept != (policy == GiveBack::Keep) {
            fail!("{policy:?}: pfn {first} and those behind it are in line: {kept}");
        }
        confined.check_whole()
    })
}

/// Whether the frames of the buffer still are what they were.
fn is_in_line(machine: &Machine, first: xen_contig::addr::Pfn, was: Option<Mfn>) -> bool {
    let Some(was) = was else { return false };
    (0..FRAMES).all(|index| machine.p2m.mfn(first.add(index)) == Some(was.add(index)))
}

/// More buffers wait than there is room for: the others become ordinary memory, and none is lost.
fn crowd(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("nothing is exchanged here, so nothing goes back");
    }
    const BUFFERS: u64 = 80;
    balanced(context, GiveBack::Later, |allocator| {
        let confined = Confined::to(machine, 256)?;
        let mut buffers = Vec::new();
        for _ in 0..BUFFERS {
            let result = allocator.alloc_coherent(2 * PAGE, &Constraints::default());
            match served(result, "dma-give-back-crowd", "2 frames")? {
                Some(buffer) => buffers.push(buffer),
                None => break,
            }
        }
        let exchanged = allocator.stats().exchanged;
        let before = calls();
        drop(buffers);
        let (made, Stats { waiting, .. }) = (calls() - before, allocator.stats());
        if made > 0 {
            fail!("{made} hypercalls in drops that were to wait");
        }
        if exchanged == BUFFERS && (waiting == 0 || waiting >= 2 * BUFFERS) {
            fail!("of {BUFFERS} buffers {waiting} frames wait");
        }
        let report = allocator.give_back_waiting();
        if (report.given, report.kept) != (waiting, 0) {
            fail!("{waiting} frames waited: {report:?}");
        }
        confined.check_whole()?;
        if exchanged < BUFFERS {
            skip!("{exchanged} of {BUFFERS} buffers were exchanged");
        }
        Ok(())
    })
}
