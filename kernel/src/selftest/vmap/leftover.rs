//! Does Xen refuse a frame that a leftover maps, does the error name the leftover, and does a purge
//! remove it? Does the error name an area in use, and does the area stay?

use alloc::format;
use alloc::vec::Vec;

use hypercall::PageTableFlags;
use hypercall::trace::Hypercall;
use xen_contig::addr::{MachineAddr, Order, Pfn};
use xen_contig::exchange::{ExchangeError, ExchangeFailure};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{FlushClock, FrameInUse, GuestMemory, Holder, LinearMapping};
use xen_contig::vmap::{Area, UnmapMode};

use super::picture::{self, Picture};
use super::{
    Check, OwnedExtent, OwnedRun, Test, TestContext, TestOutcome, fail, frame_checks,
    free_remaining, map, map_frames, skip,
};
use crate::extent::{ExtentRun, WholeRunExchanger};
use crate::machine::{ANYWHERE, Machine};
use crate::paging::Linear;
use crate::selftest::dma::helpers::scatter;
use crate::traps::try_read;
use crate::vcpu::xen;

/// The number of frames of the run.
const FRAMES: u64 = 16;

/// The index of the frame that an area maps too.
const ALIASED: u64 = 5;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vmap-leftover-purged", leftover).needs_order(4));
    tests.push(Test::new("vmap-in-use-named", in_use).needs_order(4));
}

/// The linear mapping of a kernel that purges nothing.
struct NeverPurging<'m>(&'m Linear);

// SAFETY: every method passes its arguments on to `Linear`, which fulfils the contract.
unsafe impl GuestMemory for NeverPurging<'_> {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: by the contract of `GuestMemory::zero` the frames are populated and mapped, and
        // no other code uses them. `Linear::zero` has the same contract.
        unsafe { self.0.zero(first, frames) }
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.0.pointer(pfn)
    }

    fn purge(&self, _: &FrameRun) -> Result<(), FrameInUse> {
        Ok(())
    }

    fn holder(&self, pfn: Pfn, mfn: Option<xen_contig::addr::Mfn>) -> Holder {
        self.0.holder(pfn, mfn)
    }
}

// SAFETY: every method passes its arguments on to `Linear`, which fulfils the contract. `purge`
// leaves mappings, and Xen refuses the frames that have one.
unsafe impl LinearMapping for NeverPurging<'_> {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        self.0.entry(pfn)
    }

    fn flags(&self) -> PageTableFlags {
        self.0.flags()
    }

    fn flushes(&self) -> &FlushClock {
        self.0.flushes()
    }
}

fn limit(machine: &Machine) -> Result<Order, TestOutcome> {
    match machine.exchanger() {
        Some(exchanger) => Ok(exchanger.limit()),
        None => skip!("Xen does not check the mappings of a translated guest's frames"),
    }
}

fn leftover(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let limit = limit(machine)?;
    let run = OwnedRun::take(machine, FRAMES)?.into_run();
    let run = OwnedRun::of(machine, scatter(machine, run)?);
    let Some(mut lists) = machine.lists(2 * FRAMES) else {
        skip!("the guest has no free memory for lists")
    };
    let aliased = run.first().add(ALIASED);
    let Some(mfn) = machine.p2m.mfn(aliased) else { fail!("pfn {aliased} has no machine frame") };
    let three = run.iter().skip(ALIASED as usize).take(3);
    // SAFETY: the test owns the frames ([M1](xen_contig::rules#M1)) until it has unmapped the area.
    let area = unsafe { map_frames(machine, three, "leftover")? };
    let address = area.address();
    area.unmap(UnmapMode::Lazy)?;
    let mut picture = Picture::of(machine, &run);

    // First without a purge, so that Xen refuses.
    let memory = NeverPurging(machine.linear);
    let xen = xen();
    // SAFETY: there is one machine, and `memory` passes all calls on to its linear mapping.
    let exchanger =
        unsafe { WholeRunExchanger::new(xen, *machine.p2m, &memory, &machine.accounts, limit) };
    let refusal = exchanger.acquire(run.into_run(), ANYWHERE, lists.words());
    let run = is_refused(machine, refusal, |error| match error {
        ExchangeError::FrameBusy { pfn, mfn: Some(busy), holder } => {
            (pfn, busy, holder) == (aliased, mfn, Holder::Leftover { address, name: "leftover" })
        }
        _ => false,
    })?;
    frame_checks::agree(machine, &run, |_| None)?;

    // Then with a purge, as in every allocation.
    let Some(exchanger) = machine.exchanger() else {
        fail!("the machine has no exchanger any more")
    };
    let (run, shown) = match exchanger.acquire(run.into_run(), ANYWHERE, lists.words()) {
        Ok(extent) => {
            picture.after(machine, extent.run());
            let shown = try_read(address);
            (exchanger.release(extent, lists.words()), shown)
        }
        Err(failure) => match free_remaining(machine, failure) {
            error @ ExchangeError::NoMemory { .. } => skip!("{error}"),
            error => fail!("the exchange failed after a purge: {error}"),
        },
    };
    picture::draw(&picture);
    let agreed = match run {
        Ok(run) => frame_checks::agree(machine, &OwnedRun::of(machine, run), |_| None),
        Err(failure) => fail!("releasing the extent: {}", free_remaining(machine, failure)),
    };
    match shown {
        Ok(value) => fail!("after the exchange a read through the leftover returns {value:#x}"),
        Err(_) => agreed,
    }
}

/// Fails unless the result is the expected refusal. Returns the run.
fn is_refused<'m>(
    machine: &'m Machine,
    result: Result<ExtentRun, ExchangeFailure<'_>>,
    is_expected: impl Fn(ExchangeError) -> bool,
) -> Result<OwnedRun<'m>, TestOutcome> {
    match result {
        Ok(extent) => {
            let extent = OwnedExtent::of(machine, extent);
            fail!("Xen took the run although something maps it: {:?}", *extent)
        }
        Err(failure) if is_expected(failure.error) && failure.remaining.lost() == 0 => {
            match failure.remaining.whole() {
                Ok(run) => Ok(OwnedRun::of(machine, run)),
                Err(_) => unreachable!("nothing is lost"),
            }
        }
        Err(failure) => {
            let heard = format!("the exchange failed with the wrong error: {failure}");
            free_remaining(machine, failure);
            Err(TestOutcome::Fail(heard))
        }
    }
}

fn in_use(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    limit(machine)?;
    let run = OwnedRun::take(machine, FRAMES)?;
    let Some(mut lists) = machine.lists(2 * FRAMES) else {
        skip!("the guest has no free memory for lists")
    };
    let aliased = run.first().add(ALIASED);
    // The same frames also have a leftover, in addition to the area in use.
    let dead = map(machine, &run, "dead")?;
    // SAFETY: the test owns the frame ([M1](xen_contig::rules#M1)). It offers the frame to an
    // exchange while the area exists, and expects a refusal.
    let area = unsafe { map_frames(machine, [aliased].into_iter(), "net-rx")? };
    dead.unmap(UnmapMode::Lazy)?;
    let Some(exchanger) = machine.exchanger() else {
        fail!("the machine has no exchanger any more")
    };
    let asked = || xen().summary().row(Hypercall::MemoryOp).calls;
    let before = asked();
    let refusal = exchanger.acquire(run.into_run(), ANYWHERE, lists.words());
    let made = asked() - before;
    let expected = Holder::Area { address: area.address(), name: "net-rx" };
    let run = is_refused(machine, refusal, |error| {
        matches!(error, ExchangeError::FrameBusy { pfn, holder, .. }
            if pfn == aliased && holder == expected)
    })?;
    let untouched = is_still_mapped(&area);
    area.unmap(UnmapMode::Lazy)?;
    let then = exchanger
        .acquire(run.into_run(), ANYWHERE, lists.words())
        .and_then(|extent| exchanger.release(extent, lists.words()));
    match then {
        Ok(run) => machine.give(run),
        Err(failure) => {
            fail!(
                "the exchange failed after the area was unmapped: {}",
                free_remaining(machine, failure)
            )
        }
    }
    untouched?;
    if made > 0 {
        fail!("{made} hypercalls offered Xen a run with an area in use, expected none");
    }
    Ok(())
}

fn is_still_mapped(area: &Area) -> Check {
    match try_read(area.address()) {
        Ok(_) => Ok(()),
        Err(fault) => {
            Err(TestOutcome::Fail(format!("the exchange removed an area in use: {fault}")))
        }
    }
}
