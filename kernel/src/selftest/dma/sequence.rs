//! Does a trim return all scarce memory after any sequence of requests and releases?
//!
//! `tests/reserve_trim.rs` asks the same of the model. The test says most on a machine with memory on both
//! sides of 4 GiB, on which the bed boots guests of its own (`tests/bed/src/low_memory.rs`).

use alloc::vec::Vec;

use xen_contig::addr::Pfn;
use xen_contig::dma::{Constraints, Retain, Sleep};
use xen_contig::frames::FrameRun;

use super::helpers::{
    Allocator, Buffer, ConfinedGuest, PAGE, balanced, build, is_above_limit, is_shortage, is_sound,
};
use super::{Check, Test, TestContext, TestOutcome, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::selftest::soak::SoakRandom;
use crate::trace;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-release-any-sequence", any_sequence));
}

/// The number of free frames of the guest.
const FRAMES: u64 = 1024;

/// The number of steps of a sequence.
const STEPS: u64 = 300;

/// The retain policies of the allocators, one for each sequence.
const POLICIES: [Retain; 3] =
    [Retain::ByMemory, Retain::NOTHING, Retain::Bytes { low: 8 * PAGE, high: 40 * PAGE }];

/// The number of powers of two up to 2^20 frames, which are 4 GiB.
const POWERS: usize = 21;

/// The number of the guest's machine frames below each power of two.
type LowFrames = [u64; POWERS];

fn low_frames(machine: &Machine) -> LowFrames {
    let mut below = [0; POWERS];
    for mfn in (0..machine.p2m.frames()).filter_map(|pfn| machine.p2m.mfn(Pfn::new(pfn))) {
        // The first power above the number.
        let power = (u64::BITS - mfn.number().leading_zeros()) as usize;
        if let Some(count) = below.get_mut(power) {
            *count += 1;
        }
    }
    for power in 1..POWERS {
        below[power] += below[power - 1];
    }
    below
}

fn any_sequence(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("this domain does not exchange, so nothing returns to Xen");
    }
    let mut random = SoakRandom::new(context.seed);
    for policy in POLICIES {
        one_sequence(context, policy, &mut random)?;
    }
    Ok(())
}

fn one_sequence(context: &TestContext<'_>, policy: Retain, random: &mut SoakRandom) -> Check {
    let machine = context.machine;
    balanced(context, policy, |allocator| {
        let confined = ConfinedGuest::to(machine, FRAMES)?;
        let before = low_frames(machine);
        play(allocator, random)?;
        let held = low_frames(machine);
        let report = allocator.trim(u64::MAX);
        let (after, stats) = (low_frames(machine), allocator.stats());
        say!(
            "# dma-release-any-sequence: {} buffers served, {} frames returned to Xen; frames below 4 GiB: \
             {} at the start, {} before the trim, {} after it; below 16 MiB: {}, {}, {}",
            stats.from_reserve + stats.adopted + stats.exchanged,
            stats.returned,
            before[20],
            held[20],
            after[20],
            before[12],
            held[12],
            after[12]
        );
        if let Some(power) = (0..POWERS).find(|power| after[*power] > before[*power]) {
            fail!(
                "{} frames below 2^{}, {} at the start: {report:?}, {stats:?}",
                after[power],
                power + 12,
                before[power]
            );
        }
        confined.check_whole(allocator)
    })
}

/// Plays the steps and releases everything.
fn play(allocator: &Allocator<'_>, random: &mut SoakRandom) -> Check {
    let machine = *allocator.platform();
    let mut buffers: Vec<Buffer<'_, '_>> = Vec::new();
    let mut kernels: Vec<FrameRun> = Vec::new();
    let mut result = Ok(());
    for _ in 0..STEPS {
        trace::print_if_filling();
        match random.below(16) {
            0..6 => match request(allocator, random) {
                Ok(buffer) => buffers.extend(buffer),
                Err(outcome) => {
                    result = Err(outcome);
                    break;
                }
            },
            6..10 if !buffers.is_empty() => {
                drop(buffers.swap_remove(random.below(buffers.len() as u64) as usize));
            }
            10 => {
                // The kernel needs memory, and calls back where it has none.
                for _ in 0..random.below(200) {
                    let run = { machine.frames.lock().take(1, 1) };
                    match run {
                        Some(run) => kernels.push(run),
                        None => _ = allocator.reclaim(1),
                    }
                }
            }
            11 | 12 => {
                for _ in 0..random.below(1 + kernels.len() as u64) {
                    let index = random.below(kernels.len() as u64) as usize;
                    machine.give(kernels.swap_remove(index));
                }
            }
            13 => _ = allocator.reclaim(random.below(64)),
            14 => _ = allocator.trim(random.below(64) * PAGE),
            _ => allocator.trim_excess(),
        }
    }
    drop(buffers);
    kernels.into_iter().for_each(|run| machine.give(run));
    result
}

/// Allocates a random buffer; `None` if the guest or Xen has no memory for it.
fn request<'a, 'm>(
    allocator: &'a Allocator<'m>,
    random: &mut SoakRandom,
) -> Result<Option<Buffer<'a, 'm>>, TestOutcome> {
    let largest = [4, 16, 130][random.below(3) as usize];
    let size = random.within(1, largest) * PAGE;
    let limits = limits(random)?;
    match allocator.alloc_coherent(size, &limits) {
        Ok(buffer) => {
            is_sound(allocator.platform(), &buffer, size, &limits)?;
            Ok(Some(buffer))
        }
        Err(error)
            if is_shortage(&error)
                || is_above_limit(&error)
                || limits.sleep() == Sleep::MustNot =>
        {
            Ok(None)
        }
        Err(error) => fail!("{size} bytes for {limits:?}: {error}"),
    }
}

fn limits(random: &mut SoakRandom) -> Result<Constraints, TestOutcome> {
    let mask = match random.below(4) {
        0 => u64::MAX,
        1 => (3 << random.within(24, 31)) - 1,
        _ => (1 << random.within(24, 32)) - 1,
    };
    let segments = [1, 1, 4, 16][random.below(4) as usize];
    let sleep = if random.chance(12) { Sleep::MustNot } else { Sleep::May };
    build(|it| it.mask(mask).max_segments(segments).sleep(sleep))
}
