//! Does memory in use become contiguous in place, with its bytes, and does a refusal name the
//! holder?

use alloc::vec::Vec;

use xen_contig::addr::Mfn;
use xen_contig::dma::{AllocError, Constraints, RelocationFailure, Retain};
use xen_contig::exchange::{ExchangeError, Remaining};
use xen_contig::paging::Holder;
use xen_contig::vmap::Protection;

use super::helpers::{
    Allocator, Buffer, ConfinedGuest, balanced, build, extent_limit, is_shortage, is_sound, scatter,
};
use super::{Check, Test, TestContext, TestOutcome, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::selftest::frame_checks;
use crate::selftest::owned::OwnedRun;
use crate::selftest::vmap::test_area::TestArea;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-contiguous-in-place", in_place).needs_exchange_order(1));
    tests.push(Test::new("dma-contiguous-aliases", aliases).needs_exchange_order(4));
    tests.push(Test::new("dma-contiguous-refused", refused));
}

/// The number of frames of the memory in use. It is above 256, so that Xen's M2P is written by two
/// hypercalls.
const FRAMES: u64 = 300;

/// The mask of the device: 30 bits.
const MASK: u64 = (1 << 30) - 1;

/// Takes memory of which no two frames are neighbours in the machine, and fills it with a pattern.
pub(in crate::selftest) fn in_use<'m>(
    context: &TestContext<'m>,
    frames: u64,
) -> Result<OwnedRun<'m>, TestOutcome> {
    let machine = context.machine;
    let run = OwnedRun::take(machine, frames)?;
    let run = OwnedRun::of(machine, scatter(machine, run.into_run())?);
    frame_checks::dirty(&run, context.seed);
    Ok(run)
}

/// Frees the runs that remain after a refusal, and returns the error.
fn free_after_refusal(machine: &Machine, failure: RelocationFailure<'_>) -> AllocError {
    let RelocationFailure { error, remaining } = failure;
    remaining.into_iter().for_each(|run| machine.give(run));
    error
}

/// Returns the run that remains after a refusal, or fails if a frame of it is lost.
fn whole<'m>(machine: &'m Machine, remaining: Remaining<'_>) -> Result<OwnedRun<'m>, TestOutcome> {
    match remaining.whole() {
        Ok(run) => Ok(OwnedRun::of(machine, run)),
        Err(remaining) => {
            let lost = remaining.lost();
            remaining.into_iter().for_each(|run| machine.give(run));
            fail!("{lost} frames of the run were lost")
        }
    }
}

/// Makes a run contiguous. If that fails, the test is skipped or fails.
fn moved<'a, 'm>(
    allocator: &'a Allocator<'m>,
    run: OwnedRun<'_>,
    limits: &Constraints,
) -> Result<Buffer<'a, 'm>, TestOutcome> {
    match allocator.make_contiguous(run.into_run(), limits) {
        Ok(buffer) => Ok(buffer),
        Err(failure) => match free_after_refusal(allocator.platform(), failure) {
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
    // One segment, and more where Xen permits only short extents.
    let segments = FRAMES.div_ceil(extent_limit(machine).frames()) as usize;
    let limits = build(|it| it.mask(MASK).max_segments(segments))?;
    balanced(context, Retain::default(), |allocator| {
        let run = in_use(context, FRAMES)?;
        let (first, old): (_, Vec<Mfn>) =
            (run.first(), run.iter().filter_map(|pfn| machine.p2m.mfn(pfn)).collect());
        let buffer = moved(allocator, run, &limits)?;
        is_sound(machine, &buffer, FRAMES * super::helpers::PAGE, &limits)?;
        frame_checks::holds_pattern(buffer.frames(), context.seed, "the memory in use")?;
        if buffer.frames().first() != first {
            fail!("{buffer:?} begins at pfn {}, not {first}", buffer.frames().first());
        }
        let at = |index: usize| machine.p2m.mfn(first.add(index as u64));
        if let Some(index) = (0..old.len()).find(|index| at(*index) == Some(old[*index])) {
            fail!("pfn {} still has mfn {}", first.add(index as u64), old[index]);
        }
        // The old machine frames must back other guest frames now, in all tables, and be zeroed.
        let Some(m2p) = machine.m2p else {
            fail!("the machine has no M2P, although it is a PV guest")
        };
        for mfn in &old {
            // SAFETY: the frame belonged to the guest when it was listed, so it is RAM.
            let Some(pfn) = (unsafe { m2p.pfn(*mfn) }) else {
                fail!("Xen's M2P has no entry for mfn {mfn}")
            };
            if machine.p2m.mfn(pfn) != Some(*mfn) {
                fail!("the M2P has pfn {pfn} for mfn {mfn}, but the P2M has another mfn for it");
            }
            // SAFETY: the frame is free and mapped, and no other code runs.
            let word = unsafe { crate::machine::word(pfn, 0).read_volatile() };
            if word != 0 {
                fail!(
                    "pfn {pfn}, which the old mfn {mfn} backs now, contains {word:#x}, expected 0"
                );
            }
        }
        say!(
            "# dma-contiguous-in-place: {FRAMES} scattered frames from pfn {first} at {}",
            buffer.dma_addr()
        );
        if segments > 1 {
            // The reserve looks for pieces side by side in a bounded number of places.
            return Ok(());
        }
        // The memory is in the reserve now, so a second allocation moves nothing.
        let before = super::helpers::calls();
        let address = buffer.dma_addr();
        drop(buffer);
        match allocator.alloc_coherent(FRAMES * super::helpers::PAGE, &limits) {
            Ok(again) if again.dma_addr() == address => {}
            other => fail!("expected the memory at {address} from the reserve, got {other:?}"),
        }
        if super::helpers::calls() != before {
            fail!("the reserve made {} hypercalls", super::helpers::calls() - before);
        }
        Ok(())
    })
}

/// Checks that a leftover of an area is removed, and that an area in use is named.
fn aliases(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    pv(machine)?;
    let limits = build(|it| it.mask(MASK))?;
    balanced(context, Retain::default(), |allocator| {
        let run = in_use(context, 16)?;
        let busy = run.first().add(7);
        // SAFETY: the frame belongs to this test, and no code accesses it through the area.
        let area = unsafe { machine.areas.vmap([busy], Protection::ReadWrite, "in use") };
        let area = match area {
            Ok(area) => TestArea::new(machine, area),
            Err(error) => fail!("mapping an area: {error}"),
        };
        let run = match allocator.make_contiguous(run.into_run(), &limits) {
            Ok(buffer) => {
                fail!("expected a refusal, because an area in use maps pfn {busy}; got {buffer:?}")
            }
            Err(RelocationFailure {
                error: AllocError::Exchange(ExchangeError::FrameBusy { pfn, holder, .. }),
                remaining,
            }) if pfn == busy && matches!(holder, Holder::Area { name: "in use", .. }) => {
                whole(machine, remaining)?
            }
            Err(failure) => fail!(
                "expected the error to name the area that maps pfn {busy}: {}",
                free_after_refusal(machine, failure)
            ),
        };
        area.vunmap()?;
        let buffer = moved(allocator, run, &limits)?;
        frame_checks::holds_pattern(buffer.frames(), context.seed, "the memory in use")?;
        let mut left = 0;
        machine.areas.aliases(busy, |_| left += 1);
        if left > 0 {
            fail!("{left} aliases of pfn {busy} remain");
        }
        Ok(())
    })
}

/// Checks that a holder that the kernel recorded is named, and that no frame moves.
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
            let result = allocator.make_contiguous(run.into_run(), &limits);
            machine.linear.forget_use(busy);
            let (error, remaining) = match result {
                Ok(buffer) => {
                    fail!("expected a refusal, because pfn {busy} {holder}; got {buffer:?}")
                }
                Err(RelocationFailure { error, remaining }) => (error, remaining),
            };
            run = whole(machine, remaining)?;
            match error {
                AllocError::Exchange(ExchangeError::FrameBusy { pfn, holder: named, .. })
                    if (pfn, named) == (busy, holder) => {}
                error => {
                    fail!("expected an error that says that pfn {busy} {holder}, got: {error}")
                }
            }
            if !run.iter().map(|pfn| machine.p2m.mfn(pfn)).eq(backing.iter().copied()) {
                fail!("frames moved although pfn {busy} {holder}");
            }
            frame_checks::holds_pattern(&run, context.seed, "the memory in use")?;
        }
        drop(run);
        ConfinedGuest::to(machine, 16)?.check_whole(allocator)
    })
}
