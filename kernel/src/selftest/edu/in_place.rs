//! When memory in use moves, does the device read the same bytes at the old address before, and at
//! the new address after?

use xen_contig::addr::{DmaAddr, Order};
use xen_contig::dma::{Allocator, Constraints, RelocationFailure, Retain};
use xen_contig::exchange::{ExchangeError, Lists, OnRefusal, Part, Placement};
use xen_contig::frames::FrameRun;

use super::buffer::{BITS, EduBuffer, device_frame};
use super::{Check, PAGE, TestContext, TestOutcome, error, fail, holds_after, open, pattern, skip};
use crate::edu::MASK;
use crate::layout;
use crate::machine::Machine;
use crate::say;
use crate::selftest::accounts::AccountsSnapshot;
use crate::selftest::dma::contiguous::in_use;
use crate::selftest::dma::helpers::{is_shortage, trim_all};
use crate::selftest::owned::{OwnedRun, refused};

/// The number of frames of the memory in use.
const FRAMES: u64 = 16;

/// The frames that lie below the device's mask already.
const REACHED: [u64; 2] = [0, 9];

pub fn in_place(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("memory in use of a translated guest keeps the addresses that devices see");
    }
    let before = AccountsSnapshot::of(machine);
    let edu = open(machine)?;
    let witness = EduBuffer::new(machine, Order::ZERO)?;
    // Declared last, and so dropped first: the device loses its right to do DMA before the buffer
    // is freed.
    let mut edu = edu;
    let result = (|| {
        let run = reached(machine, in_use(context, FRAMES)?)?;
        let first = run.first();
        for (round, index) in (0..).zip(REACHED) {
            let page = layout::linear(first.add(index)).as_mut_ptr::<u8>();
            for at in 0..PAGE {
                // SAFETY: `run` owns the frame ([M1](xen_contig::rules#M1)), and it is mapped.
                unsafe { page.add(at as usize).write_volatile(pattern(context.seed, round, at)) };
            }
        }
        let old = REACHED.map(|index| address(machine, &run, index));
        for (round, old) in (0..).zip(old) {
            if !holds_after(&mut edu, old, &witness, (context.seed, round))? {
                fail!("the device did not read the memory in use at {old}");
            }
        }
        let constraints = match Constraints::builder().mask(MASK).build() {
            Ok(constraints) => constraints,
            Err(contradiction) => error!("{contradiction}"),
        };
        let allocator = Allocator::new(machine, Retain::default());
        let buffer = match allocator.make_contiguous(run.into_run(), &constraints) {
            Ok(buffer) => buffer,
            Err(RelocationFailure { error, remaining }) => {
                remaining.into_iter().for_each(|run| machine.give(run));
                if is_shortage(&error) {
                    skip!("{error}");
                }
                fail!("memory in use was not made contiguous: {error}")
            }
        };
        for (round, (old, index)) in (0..).zip(old.into_iter().zip(REACHED)) {
            let Some(new) = buffer.dma_addr_at(index * PAGE) else {
                fail!("{buffer:?} has no byte {}", index * PAGE)
            };
            if new == old {
                fail!("the memory at {old} did not move");
            }
            if !holds_after(&mut edu, new, &witness, (context.seed, round))? {
                fail!("the device did not read the memory in use at its new address {new}");
            }
            if holds_after(&mut edu, old, &witness, (context.seed, round))? {
                fail!("the device still reads the memory at its old address {old}");
            }
            say!("# edu-dma-in-place: pfn {} was at {old}, is at {new}", first.add(index));
        }
        drop(buffer);
        trim_all(&allocator)
    })();
    drop(edu);
    witness.release()?;
    result?;
    let now = AccountsSnapshot::of(machine);
    if now != before {
        fail!("before: {before:?}, now: {now:?}");
    }
    Ok(())
}

/// Returns the device's address of a frame of a run.
fn address(machine: &Machine, run: &FrameRun, index: u64) -> DmaAddr {
    let frame = device_frame(machine, run.first().add(index)).unwrap_or(0);
    DmaAddr::new(frame * PAGE)
}

/// Exchanges some frames of a run, each on its own, for frames below the mask.
fn reached<'m>(machine: &'m Machine, run: OwnedRun<'m>) -> Result<OwnedRun<'m>, TestOutcome> {
    let (Some(exchanger), Some(mut lists)) = (machine.exchanger(), machine.lists(2 * FRAMES))
    else {
        skip!("the guest has no free memory for the lists")
    };
    let below = |index| Part::gather(index, 1, Order::ZERO, Placement::below(BITS));
    let (backing, extents) = lists.words().split_at_mut(FRAMES as usize);
    let lists = Lists { backing, extents };
    match exchanger.exchange(run.into_run(), &REACHED.map(below), OnRefusal::Return, lists) {
        Ok(progress) => {
            let run = OwnedRun::of(machine, progress.run);
            match progress.error {
                None => Ok(run),
                Some(
                    error @ (ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. }),
                ) => skip!("{error}"),
                Some(error) => fail!("the exchange failed: {error}"),
            }
        }
        Err(failure) => Err(refused(machine, "the exchange failed", failure)),
    }
}
