//! Requests for which the guest has too few free frames in a row for whole extents.

#![forbid(unsafe_code)]

mod random;

use fake_xen::{FakePlatform, GuestBuilder};
use xen_contig::addr::{Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints, Retain};
use xen_contig::frames::FrameRun;
use xen_contig::platform::Platform;

use random::Random;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// A guest and its free frames. The kernel uses all others.
struct ScatteredScene {
    platform: Kernel,
    allocator: Allocator<Kernel>,
    used: Vec<FrameRun>,
    free: u64,
}

impl ScatteredScene {
    /// Frees `in_a_row` frames from 1024 on, and every other frame from 2400 on, `single` in all.
    fn new(in_a_row: u64, single: u64) -> Self {
        Self::with_rows(in_a_row, single, 0)
    }

    /// Frees `second` frames from 200 on, too.
    fn with_rows(in_a_row: u64, single: u64, second: u64) -> Self {
        let guest = GuestBuilder::new(4096).machine_frames(16_384).build();
        guest.set_max_order(10);
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let free = platform.free_frames();
        let allocator = Allocator::new(platform, Retain::default());
        let taken = std::iter::from_fn(|| platform.take(1, 1));
        let is_free = |pfn: u64| {
            (1024..1024 + in_a_row).contains(&pfn)
                || (200..200 + second).contains(&pfn)
                || ((2400..2400 + 2 * single).contains(&pfn) && pfn.is_multiple_of(2))
        };
        let (given, used): (Vec<_>, Vec<_>) = taken.partition(|run| is_free(run.first().number()));
        given.into_iter().for_each(|run| platform.give(run));
        Self { platform, allocator, used, free }
    }

    fn finish(self) {
        self.used.into_iter().for_each(|run| self.platform.give(run));
        self.allocator.trim(u64::MAX);
        let stats = self.allocator.stats();
        assert_eq!((stats.idle, stats.lent), (0, 0), "{stats:?}");
        assert_eq!(self.platform.free_frames(), self.free, "{stats:?}");
        self.platform.guest().check_whole();
    }
}

fn check(platform: Kernel, buffer: &CoherentBuffer<'_, Kernel>, limits: &Constraints) {
    let mut pages = 0;
    for segment in buffer.segments() {
        assert!(limits.admits(segment.dma.get(), segment.len), "{segment:?}");
        for page in 0..segment.len / PAGE {
            let pfn = buffer.frames().first().add(segment.offset / PAGE + page);
            let mfn = platform.guest().mfn(pfn).unwrap();
            assert_eq!(mfn.number() * PAGE, segment.dma.get() + page * PAGE);
            pages += 1;
        }
    }
    assert_eq!(pages * PAGE, buffer.len());
    for pfn in buffer.frames().iter() {
        assert_eq!(platform.guest().uniform(pfn), Some(0));
    }
    platform.guest().check_whole();
}

#[test]
fn a_surplus_may_lie_anywhere() {
    let scene = ScatteredScene::new(600, 460);
    let low = Constraints::builder().mask((1 << 26) - 1).build().unwrap();
    for _ in 0..2 {
        let buffer = scene.allocator.alloc_coherent(589 * PAGE, &low).expect("1,060 free frames");
        check(scene.platform, &buffer, &low);
        drop(buffer);
        scene.allocator.trim(u64::MAX);
    }
    scene.finish();
}

#[test]
fn too_few_frames_for_the_surplus_are_an_error() {
    let scene = ScatteredScene::new(600, 300);
    let low = Constraints::builder().mask((1 << 26) - 1).build().unwrap();
    let error = scene.allocator.alloc_coherent(589 * PAGE, &low).unwrap_err();
    assert!(matches!(error, AllocError::NoGuestMemory { .. }), "{error}");
    assert_eq!(scene.platform.free_frames(), 900);
    scene.finish();
}

/// Frames that a peer holds, in the run and elsewhere, are set aside. Others serve.
#[test]
fn frames_that_xen_refuses_are_set_aside() {
    let scene = ScatteredScene::with_rows(620, 480, 640);
    let held = [210, 1030, 2404, 2800].map(Pfn::new);
    held.into_iter().for_each(|pfn| scene.platform.guest().hold(pfn));
    let low = Constraints::builder().mask((1 << 26) - 1).build().unwrap();
    let buffer = scene.allocator.alloc_coherent(589 * PAGE, &low).expect("other frames");
    check(scene.platform, &buffer, &low);
    let set_aside = scene.allocator.stats().set_aside;
    assert!((1..=4).contains(&set_aside), "{set_aside}");
    held.into_iter().for_each(|pfn| scene.platform.guest().unhold(pfn));
    drop(buffer);
    scene.finish();
}

/// Three pages of each extent of four are one segment.
#[test]
fn a_part_of_each_extent_serves() {
    let scene = ScatteredScene::new(100, 300);
    let device = Constraints::builder().max_segment(3 * PAGE).boundary(4 * PAGE);
    let device = device.mask((1 << 26) - 1).max_segments(32).build().unwrap();
    let buffer = scene.allocator.alloc_coherent(95 * PAGE, &device).expect("32 extents");
    check(scene.platform, &buffer, &device);
    assert_eq!(buffer.segments().count(), 32);
    drop(buffer);
    scene.finish();
}

/// A tenth of the guest is free. A request is served if that is enough for its extent and the records, and
/// if as many frames lie in a row as the buffer has.
#[test]
fn a_guest_that_is_almost_full_is_served() {
    let (mut served, mut almost_full) = (0, 0);
    for seed in 1..=20 {
        let mut random = Random(seed);
        let guest = GuestBuilder::new(2048).machine_frames(16_384).seed(seed).build();
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        let all = platform.free_frames();
        let allocator = Allocator::new(platform, Retain::NOTHING);
        let mut kernel: Vec<FrameRun> = Vec::new();
        let mut buffers = Vec::new();
        for step in 0..150 {
            // The kernel uses and frees runs until about a tenth is free.
            while platform.free_frames() > all / 10 {
                kernel
                    .extend(platform.take(1 + random.below(12), 1).or_else(|| platform.take(1, 1)));
            }
            for _ in 0..random.below(30) {
                let run = kernel.swap_remove(random.below(kernel.len() as u64) as usize);
                platform.give(run);
            }
            let bits = random.pick(&[24, 25, 26]);
            let limits = Constraints::builder().mask((1 << bits) - 1).build().unwrap();
            let free: Vec<u64> = {
                let taken: Vec<_> = std::iter::from_fn(|| platform.take(1, 1)).collect();
                let free = taken.iter().map(|run| run.first().number()).collect();
                taken.into_iter().for_each(|run| platform.give(run));
                free
            };
            let longest = longest_run(free);
            let pages = if random.one_in(2) { longest.max(1) } else { 1 + random.below(40) };
            let order = Order::new(pages.next_power_of_two().ilog2()).unwrap();
            let has_room = platform.free_frames() >= order.frames() + 24 && longest >= pages;
            match allocator.alloc_coherent(pages * PAGE, &limits) {
                Ok(buffer) => {
                    served += 1;
                    buffers.push(buffer);
                }
                Err(error) => {
                    let free = platform.free_frames();
                    assert!(!has_room, "seed {seed}, step {step}: {pages} of {free}: {error}");
                }
            }
            almost_full += u64::from(has_room && longest < order.frames());
            while buffers.len() > 4 || (!buffers.is_empty() && random.one_in(3)) {
                drop(buffers.swap_remove(random.below(buffers.len() as u64) as usize));
            }
        }
        drop(buffers);
        kernel.into_iter().for_each(|run| platform.give(run));
        allocator.trim(u64::MAX);
        assert_eq!(platform.free_frames(), all, "{:?}", allocator.stats());
        platform.guest().check_whole();
    }
    println!("{served} served, {almost_full} with too few frames in a row");
    assert!(served > 1000 && almost_full > 20, "{served} {almost_full}");
}

fn longest_run(mut free: Vec<u64>) -> u64 {
    free.sort_unstable();
    let runs = free.chunk_by(|one, next| one + 1 == *next);
    runs.map(|run| run.len() as u64).max().unwrap_or(0)
}
