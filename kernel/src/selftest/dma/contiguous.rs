//! Does memory in use become contiguous in place, with its bytes, and is what references it named?

use alloc::vec::Vec;

use xen_contig::addr::Mfn;
use xen_contig::dma::{AllocError, Constraints, RelocationFailure, Retain};
use xen_contig::exchange::ExchangeError;
use xen_contig::frames::FrameRun;
use xen_contig::paging::Holder;
use xen_contig::vmap::Protection;

use super::ground::{Allocator, Buffer, Confined, balanced, build, is_shortage, is_sound, scatter};
use super::{Check, Test, TestContext, TestOutcome, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::selftest::books;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-contiguous-in-place", in_place).needs_exchange_order(9));
    tests.push(Test::new("dma-contiguous-aliases", aliases).needs_exchange_order(4));
    tests.push(Test::new("dma-contiguous-refused", refused));
}

/// Frames of the memory in use. More than 256, so that Xen's M2P is written by two hypercalls.
const FRAMES: u64 = 300;

/// What the device reaches: 30 bits.
const MASK: u64 = (1 << 30) - 1;

/// Takes memory of which no two frames are neighbours in the machine, and puts it to use.
pub(in crate::selftest) fn in_use(
    context: &TestContext<'_>,
    frames: u64,
) -> Result<FrameRun, TestOutcome> {
    let machine = context.machine;
    let Some(run) = machine.take(frames) else {
        skip!("the guest has no {frames} free frames in a row")
    };
    let run = scatter(machine, run)?;
    books::dirty(&run, context.seed);
    Ok(run)
}

/// Returns the run of a refusal, and frees it.
fn back(machine: &Machine, failure: RelocationFailure<'_>) -> AllocError {
    let RelocationFailure { error, remaining } = failure;
    remaining.into_iter().for_each(|run| machine.give(run));
    error
}

/// Makes a run contiguous, or says why not.
fn moved<'a, 'm>(
    allocator: &'a Allocator<'m>,
    run: FrameRun,
    limits: &Constraints,
) -> Result<Buffer<'a, 'm>, TestOutcome> {
    match allocator.make_contiguous(run, limits) {
        Ok(buffer) => Ok(buffer),
        Err(failure) => match back(allocator.platform(), failure) {
            error if is_shortage(&error) => skip!("{error}"),
            error => fail!("memory in use was not made contiguous: {error}"),
        },
    }
}

fn pv(machine: &Machine) -> Check {
    if machine.linear.first_table().is_none() {
        skip!("memory in use of a translated guest keeps the addresses that devices see");
    }
    Ok(())
}

fn in_place(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    pv(machine)?;
    let limits = build(|it| it.mask(MASK))?;
    balanced(context, Retain::default(), |allocator| {
        let run = in_use(context, FRAMES)?;
        let (first, old): (_, Vec<Mfn>) =
            (run.first(), run.iter().filter_map(|pfn| machine.p2m.mfn(pfn)).collect());
        let buffer = moved(allocator, run, &limits)?;
        is_sound(machine, &buffer, FRAMES * super::ground::PAGE, &limits)?;
        books::holds_pattern(buffer.frames(), context.seed, "the memory in use")?;
        if buffer.frames().first() != first || buffer.segments().count() != 1 {
            fail!("{buffer:?} begins at pfn {}, not {first}", buffer.frames().first());
        }
        let at = |index: usize| machine.p2m.mfn(first.add(index as u64));
        if let Some(index) = (0..old.len()).find(|index| at(*index) == Some(old[*index])) {
            fail!("pfn {} still has mfn {}", first.add(index as u64), old[index]);
        }
        // The old machine frames are other guest frames now, zeroed, by all records.
        let Some(m2p) = machine.m2p else { fail!("a PV guest reads Xen's M2P") };
        for mfn in &old {
            // SAFETY: the frame was the guest's when it was listed, so it is RAM.
            let Some(pfn) = (unsafe { m2p.pfn(*mfn) }) else { fail!("mfn {mfn} has no record") };
            if machine.p2m.mfn(pfn) != Some(*mfn) {
                fail!("the M2P has pfn {pfn} for mfn {mfn}, the P2M has not");
            }
            // SAFETY: the frame is free and mapped, and this test alone runs.
            let word = unsafe { crate::machine::word(pfn, 0).read_volatile() };
            if word != 0 {
                fail!("pfn {pfn} with the old machine frame {mfn} holds {word:#x}");
            }
        }
        say!(
            "# dma-contiguous-in-place: {FRAMES} scattered frames from pfn {first} at {}",
            buffer.dma_addr()
        );
        // A second time nothing moves.
        let before = super::ground::calls();
        let address = buffer.dma_addr();
        drop(buffer);
        match allocator.alloc_coherent(FRAMES * super::ground::PAGE, &limits) {
            Ok(again) if again.dma_addr() == address => {}
            other => fail!("the reserve has not got the memory: {other:?}"),
        }
        if super::ground::calls() != before {
            fail!("the reserve made {} hypercalls", super::ground::calls() - before);
        }
        Ok(())
    })
}

/// A leftover of an area is dropped; an area in use is named.
fn aliases(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    pv(machine)?;
    let limits = build(|it| it.mask(MASK))?;
    balanced(context, Retain::default(), |allocator| {
        let run = in_use(context, 16)?;
        let busy = run.first().add(7);
        // SAFETY: the frame is this test's, and nothing accesses it through the area.
        let area = unsafe { machine.areas.vmap([busy], Protection::ReadWrite, "in use") };
        let area = match area {
            Ok(area) => area,
            Err(error) => fail!("an area: {error}"),
        };
        let run = match allocator.make_contiguous(run, &limits) {
            Ok(buffer) => fail!("{buffer:?} is mapped by an area in use"),
            Err(RelocationFailure {
                error: AllocError::Exchange(ExchangeError::FrameBusy { pfn, holder, .. }),
                remaining,
            }) if pfn == busy && matches!(holder, Holder::Area { name: "in use", .. }) => {
                match remaining.whole() {
                    Ok(run) => run,
                    Err(remaining) => fail!("{remaining:?}"),
                }
            }
            Err(failure) => fail!("an area maps pfn {busy}: {failure}"),
        };
        if let Err(error) = machine.areas.vunmap(area) {
            fail!("unmapping: {error}");
        }
        let buffer = moved(allocator, run, &limits)?;
        books::holds_pattern(buffer.frames(), context.seed, "the memory in use")?;
        let mut left = 0;
        machine.areas.aliases(busy, |_| left += 1);
        if left > 0 {
            fail!("{left} aliases of pfn {busy} remain");
        }
        Ok(())
    })
}

/// What the kernel knows to reference a frame is named, and nothing moves.
fn refused(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    pv(machine)?;
    let limits = build(|it| it.mask(MASK))?;
    balanced(context, Retain::default(), |allocator| {
        let mut run = in_use(context, 16)?;
        let busy = run.first().add(7);
        let backing: Vec<_> = run.iter().map(|pfn| machine.p2m.mfn(pfn)).collect();
        for holder in [
            Holder::Granted { reference: 9 },
            Holder::Shared { name: "a ring" },
            Holder::DescriptorTable { vcpu: 0 },
            Holder::Device { name: "edu" },
        ] {
            machine.linear.note_use(busy, holder);
            let result = allocator.make_contiguous(run, &limits);
            machine.linear.forget_use(busy);
            let (error, remaining) = match result {
                Ok(buffer) => fail!("{buffer:?}: pfn {busy} {holder}"),
                Err(RelocationFailure { error, remaining }) => (error, remaining),
            };
            run = match remaining.whole() {
                Ok(run) => run,
                Err(remaining) => fail!("{error}: {remaining:?}"),
            };
            match error {
                AllocError::Exchange(ExchangeError::FrameBusy { pfn, holder: named, .. })
                    if (pfn, named) == (busy, holder) => {}
                error => fail!("pfn {busy} {holder}, and the error is: {error}"),
            }
            if !run.iter().map(|pfn| machine.p2m.mfn(pfn)).eq(backing.iter().copied()) {
                fail!("frames moved although pfn {busy} {holder}");
            }
            books::holds_pattern(&run, context.seed, "the memory in use")?;
        }
        machine.give(run);
        Confined::to(machine, 16)?.check_whole(allocator)
    })
}
