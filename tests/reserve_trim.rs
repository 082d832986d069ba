//! A trim of all idle memory after random sequences of requests and releases.
//!
//! When all buffers and the kernel's frames are free, the trim leaves the guest no more low memory
//! than at its start. Every frame is usable.
//!
//! The machine has memory below and above every limit of the tests. All address classes of the model's
//! machine are scarce, as the classes below 4 GiB are on a real one.

#![forbid(unsafe_code)]

mod random;

use std::env;

use fake_xen::{FakeGuest, FakePlatform, GuestBuilder};
use xen_contig::addr::{Order, PAGE_SIZE};
use xen_contig::dma::{Allocator, CoherentBuffer, Constraints, Retain, Sleep};
use xen_contig::frames::FrameRun;
use xen_contig::platform::Platform;

use random::Random;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The number of sequences for each machine. `TRIM_SEEDS` sets another number.
const SEEDS: u64 = 40;
/// The number of steps of each sequence.
const STEPS: usize = 120;

/// Returns how many machine frames of the guest lie below each power of two, up to 4 GiB.
fn low_frames(guest: &FakeGuest) -> [u64; 21] {
    let mut below = [0; 21];
    for pfn in guest.usable() {
        let mfn = guest.mfn(pfn).expect("a populated frame").number();
        (0..21).filter(|bits| mfn < 1 << bits).for_each(|bits| below[bits] += 1);
    }
    below
}

/// A guest and its machine at the start.
#[derive(Clone, Copy, Debug)]
struct Machine {
    /// The number of frames of the guest.
    guest: u64,
    /// The number of frames of the machine.
    frames: u64,
    /// If above 0, Xen has no extent of this order.
    fragmented: u32,
}

fn limits(random: &mut Random) -> Constraints {
    let mut builder = Constraints::builder();
    if !random.one_in(3) {
        builder = builder.mask((1 << random.pick(&[21, 22, 23, 24, 25])) - 1);
    }
    if random.one_in(6) {
        // This mask is not one less than a power of two, so it splits a class.
        builder = builder.mask((3 << random.pick(&[21, 22, 23])) - 1);
    }
    if random.one_in(3) {
        builder = builder.max_segments(random.pick(&[2, 4, 16, 64]));
    }
    if random.one_in(8) {
        builder = builder.max_segment(PAGE).max_segments(64);
    }
    if random.one_in(8) {
        builder = builder.sleep(Sleep::MustNot);
    }
    builder.build().expect("the limits do not contradict each other")
}

/// Runs one sequence. Returns how many buffers were allocated, and how many frames returned to Xen.
fn run_sequence(machine: Machine, seed: u64) -> (u64, u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let guest = GuestBuilder::new(machine.guest).machine_frames(machine.frames).seed(seed).build();
    if machine.fragmented > 0 {
        guest.fragment(Order::new(machine.fragmented).expect("the order is valid"));
    }
    let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
    let retain = random.pick(&[
        Retain::default(),
        Retain::NOTHING,
        Retain::Bytes { low: 8 * PAGE, high: 40 * PAGE },
    ]);
    let (free, low) = (platform.free_frames(), low_frames(platform.guest()));
    let allocator = Allocator::new(platform, retain);
    let mut buffers: Vec<CoherentBuffer<'_, Kernel>> = Vec::new();
    let mut kernels: Vec<FrameRun> = Vec::new();
    for _ in 0..STEPS {
        match random.below(16) {
            0..=5 => {
                let pages = random.pick(&[1, 1, 1, 2, 3, 4, 7, 8, 16, 17, 33, 64, 65, 129]);
                if let Ok(buffer) = allocator.alloc_coherent(pages * PAGE, &limits(&mut random)) {
                    buffers.push(buffer);
                }
            }
            6..=9 if !buffers.is_empty() => {
                drop(buffers.swap_remove(random.below(buffers.len() as u64) as usize));
            }
            10 => {
                // The kernel takes frames, and reclaims idle memory when it has none.
                for _ in 0..random.below(200) {
                    let frames = random.pick(&[1, 1, 1, 2, 8]);
                    match platform.take(frames, 1) {
                        Some(run) => kernels.push(run),
                        None => _ = allocator.reclaim(frames),
                    }
                }
            }
            11 | 12 => {
                for _ in 0..random.below(1 + kernels.len() as u64) {
                    let index = random.below(kernels.len() as u64) as usize;
                    platform.give(kernels.swap_remove(index));
                }
            }
            13 => _ = allocator.reclaim(random.below(64)),
            14 => _ = allocator.trim(random.below(64) * PAGE),
            15 if random.one_in(4) => _ = allocator.trim(u64::MAX),
            _ => allocator.trim_excess(),
        }
    }
    drop(buffers);
    kernels.into_iter().for_each(|run| platform.give(run));
    let report = allocator.trim(u64::MAX);
    let stats = allocator.stats();
    let context = || format!("seed {seed}, {machine:?}: {report:?}, {stats:?}");
    assert_eq!(platform.free_frames(), free, "{}", context());
    assert_eq!((stats.idle, stats.set_aside, stats.records), (0, 0, 0), "{}", context());
    platform.guest().check_whole();
    let after = low_frames(platform.guest());
    for (bits, (after, before)) in after.into_iter().zip(low).enumerate() {
        assert!(
            after <= before,
            "{after} frames below 2^{bits}, {before} at the start: {}",
            context()
        );
    }
    check_usable(platform, free);
    (stats.adopted + stats.exchanged + stats.from_reserve, stats.returned)
}

/// Checks that the kernel can take each free frame, write to it and read it.
fn check_usable(platform: Kernel, free: u64) {
    let guest = platform.guest();
    let taken: Vec<FrameRun> = std::iter::from_fn(|| platform.take(1, 1)).collect();
    assert_eq!(taken.len() as u64, free);
    taken.iter().for_each(|run| guest.fill(run.first(), FakeGuest::colour(run.first())));
    for run in &taken {
        assert_eq!(guest.uniform(run.first()), Some(FakeGuest::colour(run.first())));
    }
    taken.into_iter().for_each(|run| platform.give(run));
}

fn run_all(machine: Machine) {
    let seeds = env::var("TRIM_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"));
    let (mut served, mut returned) = (0, 0);
    for seed in 1..=seeds {
        let (more_served, more_returned) = run_sequence(machine, seed);
        served += more_served;
        returned += more_returned;
    }
    println!("{machine:?}: {served} buffers, {returned} frames returned");
    assert!(served > 10 * seeds && returned > 10 * seeds, "{served} buffers, {returned} returned");
}

#[test]
fn a_guest_in_high_memory_keeps_no_low_memory() {
    run_all(Machine { guest: 1500, frames: 8192, fragmented: 0 });
}

#[test]
fn a_guest_with_low_memory_keeps_no_more_of_it() {
    run_all(Machine { guest: 3000, frames: 5000, fragmented: 0 });
}

#[test]
fn a_guest_keeps_no_low_memory_if_xen_has_no_large_extents() {
    run_all(Machine { guest: 1500, frames: 8192, fragmented: 4 });
}

#[test]
fn a_guest_keeps_no_low_memory_if_xen_has_single_frames() {
    run_all(Machine { guest: 1500, frames: 8192, fragmented: 1 });
}

/// Xen has no higher memory for a while, so it takes low memory for other low memory.
#[test]
fn low_memory_returns_once_xen_has_higher_memory() {
    let guest = GuestBuilder::new(1500).machine_frames(8192).build();
    let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
    let (guest, low) = (platform.guest(), low_frames(platform.guest()));
    let allocator = Allocator::new(platform, Retain::default());
    let limits = Constraints::builder().mask((1 << 24) - 1).build().expect("a mask");
    // Xen takes the first block back, and the kernel has the others.
    let buffers = [16, 1, 5, 64].map(|pages| allocator.alloc_coherent(pages * PAGE, &limits));
    drop(buffers.map(|buffer| buffer.expect("low memory")));
    guest.fragment_from(1 << 12, Order::ZERO);
    allocator.trim(u64::MAX);
    assert_ne!(low_frames(guest), low);
    guest.relieve();
    allocator.trim(u64::MAX);
    assert_eq!((low_frames(guest), allocator.stats().lent), (low, 0));
    guest.check_whole();
}
