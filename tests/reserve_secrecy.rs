//! No bytes of another domain or of another driver leave the reserve.
//!
//! The model fills the frames that Xen hands out with poison ([C56](xen_contig::conformance#C56)). The
//! kernel's free memory has the kernel's bytes, and each driver writes to its buffer. The tests check
//! each way out of the reserve: a new buffer is zeroed, the kernel gets no poison, and Xen gets zeroed
//! frames ([C57](xen_contig::conformance#C57)).
//!
//! The kernel gets frames with its drivers' bytes, as from any allocator of a kernel. The kernel zeroes
//! them before another user gets them.

#![forbid(unsafe_code)]

use std::cell::Cell;

use fake_xen::{
    Asked, ExchangeFault, FakeGuest, FakePlatform, Fault, GuestBuilder, Logged, POISON,
};
use hypercall::XenErrno;
use xen_contig::addr::{Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, Backing, CoherentBuffer, Constraints, ConstraintsBuilder, Retain, Sleep,
};
use xen_contig::frames::FrameRun;
use xen_contig::platform::Platform;

type Kernel = &'static FakePlatform;
type Buffer<'a> = CoherentBuffer<'a, Kernel>;

const PAGE: u64 = PAGE_SIZE as u64;
const WORDS: usize = PAGE_SIZE / 8;

/// The word that drivers write to their buffers.
const DRIVER: u64 = 0xd21e_d21e_d21e_d21e;

struct SecrecyScene {
    platform: Kernel,
    allocator: Allocator<Kernel>,
    /// The number of frames that were returned to Xen unchanged.
    probes: Cell<u64>,
}

impl SecrecyScene {
    fn new(guest: FakeGuest) -> Self {
        Self::retaining(guest, Retain::default())
    }

    fn retaining(guest: FakeGuest, retain: Retain) -> Self {
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        Self { platform, allocator: Allocator::new(platform, retain), probes: Cell::new(0) }
    }

    fn guest(&self) -> &'static FakeGuest {
        self.platform.guest()
    }

    /// Allocates, checks that the buffer is zeroed, and writes to it as a driver does.
    fn alloc(&self, pages: u64, limits: &Constraints) -> Result<Buffer<'_>, AllocError> {
        let buffer = self.allocator.alloc_coherent(pages * PAGE, limits)?;
        for pfn in buffer.frames().iter() {
            assert_eq!(self.guest().uniform(pfn), Some(0), "{pfn} of {buffer:?} is not zeroed");
            self.guest().fill(pfn, DRIVER);
        }
        Ok(buffer)
    }

    fn must_alloc(&self, pages: u64, limits: &Constraints) -> Buffer<'_> {
        self.alloc(pages, limits).unwrap_or_else(|error| panic!("{pages} pages: {error}"))
    }

    /// Checks every free frame of the kernel, and the frames that Xen got.
    fn check_secrecy(&self) {
        let free: Vec<FrameRun> = std::iter::from_fn(|| self.platform.take(1, 1)).collect();
        assert!(!free.is_empty());
        for run in &free {
            let pfn = run.first();
            let poisoned = match self.guest().uniform(pfn) {
                Some(word) => word == POISON,
                None => (0..WORDS).any(|word| self.guest().read(0, pfn, word) == POISON),
            };
            assert!(!poisoned, "{pfn} is free memory of the kernel with bytes of another domain");
        }
        free.into_iter().for_each(|run| self.platform.give(run));
        let own = self.probes.get() + self.returned_probes();
        self.probes.set(own);
        assert_eq!(self.guest().given_up_dirty(), own, "Xen got frames with bytes of the guest");
    }

    /// Counts the frames that were returned to Xen unchanged.
    ///
    /// After a refusal, the exchange of one frame shows whether the limit was the cause. A second
    /// exchange undoes it.
    fn returned_probes(&self) -> u64 {
        let log = self.guest().xen().take_log();
        let bits_of_one = |call: &Logged| match call.asked {
            Asked::Exchange { input: (1, 0), output: (1, 0), bits } if call.answer.is_ok() => bits,
            _ => 0,
        };
        let is_probe = |pair: &&[Logged]| {
            (1..64).contains(&bits_of_one(&pair[0])) && bits_of_one(&pair[1]) == 64
        };
        log.windows(2).filter(is_probe).count() as u64
    }

    /// Checks before and after a trim of all idle memory.
    fn check_secrecy_and_trim(&self) {
        self.check_secrecy();
        let report = self.allocator.trim(u64::MAX);
        assert_eq!(self.allocator.stats().idle, 0, "{report:?}");
        self.check_secrecy();
    }

    /// Takes the kernel's free frames, except those that `keep` selects.
    fn take_except(&self, keep: impl Fn(Pfn) -> bool) -> Vec<FrameRun> {
        let all: Vec<FrameRun> = std::iter::from_fn(|| self.platform.take(1, 1)).collect();
        let (kept, held): (Vec<_>, Vec<_>) = all.into_iter().partition(|run| keep(run.first()));
        kept.into_iter().for_each(|run| self.platform.give(run));
        held
    }
}

fn limits(build: impl FnOnce(ConstraintsBuilder) -> ConstraintsBuilder) -> Constraints {
    build(Constraints::builder()).build().expect("the limits do not contradict each other")
}

fn guest() -> FakeGuest {
    FakeGuest::new(2048)
}

/// Returns limits for memory of a low class. It comes from Xen and is returned to Xen.
fn low() -> Constraints {
    limits(|it| it.mask((1 << 23) - 1))
}

#[test]
fn a_buffer_from_an_exchange_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    for pages in [2, 3, 16, 100, 512] {
        let buffer = scene.must_alloc(pages, &Constraints::default());
        assert!(scene.allocator.stats().exchanged > 0);
        drop(buffer);
    }
    scene.check_secrecy_and_trim();
}

#[test]
fn a_buffer_that_another_driver_had_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    let any = Constraints::default();
    drop(scene.must_alloc(16, &any));
    // The next buffers are the same extent, parts of it, and merged blocks.
    drop(scene.must_alloc(16, &any));
    let (_one, _two) = (scene.must_alloc(3, &any), scene.must_alloc(5, &any));
    drop(scene.must_alloc(16, &any));
    assert!(scene.allocator.stats().from_reserve >= 3, "{:?}", scene.allocator.stats());
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    let served = std::iter::from_fn(|| scene.alloc(1, &at_once).ok()).map(std::mem::forget).count();
    assert!(served > 0, "idle memory serves without sleeping");
    scene.check_secrecy_and_trim();
}

#[test]
fn a_buffer_from_a_surplus_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    let any = Constraints::default();
    let first = scene.must_alloc(17, &any);
    let idle = scene.allocator.stats().idle;
    assert!(idle >= 15, "{:?}", scene.allocator.stats());
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    let rest: Vec<_> = std::iter::from_fn(|| scene.alloc(1, &at_once).ok()).collect();
    assert_eq!(rest.len() as u64, idle, "the buffers take all of the surplus");
    drop((first, rest));
    scene.check_secrecy_and_trim();
}

#[test]
fn a_buffer_of_several_pieces_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    let two = limits(|it| it.max_segments(2));
    // The first buffer comes from an exchange of two extents, the second from the reserve.
    for _ in 0..2 {
        drop(scene.must_alloc(1024, &two));
    }
    scene.guest().fragment(Order::new(2).unwrap());
    let many = limits(|it| it.max_segments(64).max_segment(PAGE));
    let mut buffer = scene.must_alloc(33, &many);
    let half = buffer.split_off(16 * PAGE).expect("a page boundary");
    drop(buffer);
    drop(scene.must_alloc(16, &many));
    drop(half);
    scene.check_secrecy_and_trim();
}

#[test]
fn adopted_memory_is_zeroed() {
    for translated in [false, true] {
        let builder = GuestBuilder::new(2048);
        let guest = if translated { builder.translated().build() } else { builder.build() };
        let scene = SecrecyScene::new(guest);
        let single = limits(|it| it.max_segment(PAGE).max_segments(16));
        drop(scene.must_alloc(1, &single));
        drop(scene.must_alloc(16, &single));
        assert!(scene.allocator.stats().adopted > 0);
        scene.check_secrecy_and_trim();
    }
}

#[test]
fn a_refilled_buffer_is_zeroed() {
    let scene = SecrecyScene::new(GuestBuilder::new(2048).translated().build());
    let one = limits(|it| it.backing(Backing::OneExtent));
    for pages in [1, 3, 64] {
        let buffer = scene.must_alloc(pages, &one);
        // The remaining frames of the extent are in the reserve.
        let at_once = limits(|it| it.sleep(Sleep::MustNot));
        let rest: Vec<_> = std::iter::from_fn(|| scene.alloc(1, &at_once).ok()).collect();
        drop((buffer, rest));
    }
    scene.check_secrecy_and_trim();
}

#[test]
fn memory_that_a_trim_frees_or_returns_to_xen_is_zeroed() {
    for limits in [Constraints::default(), low()] {
        for retain in [Retain::default(), Retain::NOTHING] {
            let scene = SecrecyScene::retaining(guest(), retain);
            // 255 frames of the second extent were never in a buffer.
            let one = scene.must_alloc(1, &limits);
            let many = scene.must_alloc(257, &limits);
            drop(many);
            scene.check_secrecy();
            drop(one);
            // This request trims the remaining memory if nothing is retained.
            drop(scene.must_alloc(1, &limits));
            scene.check_secrecy_and_trim();
            let stats = scene.allocator.stats();
            assert!(stats.exchanged > 0, "{stats:?}");
        }
    }
}

#[test]
fn memory_that_xen_exchanged_back_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    drop(scene.must_alloc(100, &low()));
    let report = scene.allocator.trim(u64::MAX);
    assert!(report.returned >= 100, "{report:?}");
    scene.check_secrecy();
}

#[test]
fn reclaimed_memory_is_zeroed() {
    for limits in [Constraints::default(), low()] {
        let scene = SecrecyScene::new(guest());
        drop(scene.must_alloc(17, &limits));
        let _live = scene.must_alloc(257, &limits);
        assert!(scene.allocator.stats().idle > 200, "{:?}", scene.allocator.stats());
        let _held = scene.take_except(|_| false);
        assert!(scene.allocator.reclaim(1) > 0);
        scene.check_secrecy();
        assert!(scene.allocator.reclaim(u64::MAX) > 200);
        scene.check_secrecy();
        // The trim returns the frames lent to the kernel to Xen.
        scene.allocator.trim(u64::MAX);
        scene.check_secrecy();
    }
}

#[test]
fn a_frame_that_was_set_aside_is_zeroed_when_xen_takes_it() {
    let scene = SecrecyScene::new(guest());
    let run = scene.platform.take(64, 64).expect("the kernel has free frames");
    let stuck = run.first().add(5);
    scene.platform.give(run);
    scene.guest().hold(stuck);
    for pages in [64, 64, 128] {
        drop(scene.must_alloc(pages, &low()));
    }
    assert_eq!(scene.allocator.stats().set_aside, 1, "{:?}", scene.allocator.stats());
    scene.check_secrecy();
    scene.guest().unhold(stuck);
    let report = scene.allocator.trim(u64::MAX);
    assert_eq!((scene.allocator.stats().set_aside, report.error), (0, None));
    scene.check_secrecy();
}

#[test]
fn memory_that_a_restore_moved_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    let any = Constraints::default();
    let live = scene.must_alloc(257, &any);
    assert!(scene.allocator.stats().idle > 200, "{:?}", scene.allocator.stats());
    // Other machine frames back every idle frame.
    let free: Vec<FrameRun> = std::iter::from_fn(|| scene.platform.take(1, 1)).collect();
    let free: Vec<Pfn> = free
        .into_iter()
        .map(|run| {
            let pfn = run.first();
            scene.platform.give(run);
            pfn
        })
        .collect();
    let elsewhere = scene.guest().foreign_frame();
    let idle = |pfn: &Pfn| !free.contains(pfn) && !live.frames().iter().any(|own| own == *pfn);
    let moved: Vec<_> = scene.guest().usable().filter(idle).collect();
    let before: Vec<_> =
        moved.iter().map(|pfn| (*pfn, scene.guest().forge(*pfn, elsewhere))).collect();
    assert!(moved.len() > 200);
    // The first request that may sleep finds that idle memory moved, and frees it to the kernel.
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    assert_eq!(scene.alloc(1, &at_once).map(drop), Err(AllocError::MustNotSleep));
    assert!(scene.allocator.stats().idle > 200);
    let held: Vec<FrameRun> = std::iter::from_fn(|| scene.platform.take(1, 1)).collect();
    let _served = scene.must_alloc(1, &any);
    held.into_iter().for_each(|run| scene.platform.give(run));
    before.into_iter().for_each(|(pfn, mfn)| _ = scene.guest().forge(pfn, mfn));
    assert!(scene.allocator.stats().idle < 16, "{:?}", scene.allocator.stats());
    scene.check_secrecy();
}

#[test]
fn idle_memory_of_a_dropped_allocator_is_zeroed() {
    for limits in [Constraints::default(), low()] {
        let scene = SecrecyScene::new(guest());
        drop(scene.must_alloc(130, &limits));
        drop(scene.must_alloc(16, &limits));
        assert!(scene.allocator.stats().idle > 200, "{:?}", scene.allocator.stats());
        let SecrecyScene { platform, allocator, probes } = scene;
        drop(allocator);
        let allocator = Allocator::new(platform, Retain::default());
        SecrecyScene { platform, allocator, probes }.check_secrecy();
    }
}

/// Every hypercall of an allocation and of a trim fails.
///
/// Some fail after some entries are done. Every exchange also fails inside Xen.
#[test]
fn frames_of_a_failed_exchange_are_zeroed() {
    let faults = |call| {
        let refused =
            [0, 1, 2].map(|after| (Some(Fault::refuse(call, XenErrno::ENOMEM).after(after)), None));
        let inside = [
            ExchangeFault::OutUnreadable(1),
            ExchangeFault::OutUnwritable(1),
            ExchangeFault::IommuMap(1, XenErrno::ENOMEM),
            ExchangeFault::IommuUnmap(1, XenErrno::EINVAL),
            ExchangeFault::Dying,
        ];
        refused.into_iter().chain(inside.map(|fault| (None, Some(fault))))
    };
    let (mut met, mut failed, mut torn) = (0, 0, 0);
    for call in 1..=24 {
        for (refusal, inside) in faults(call) {
            for (returning, reclaiming) in [(false, false), (false, true), (true, false)] {
                let scene = SecrecyScene::new(FakeGuest::new(512));
                let pieces = limits(|it| it.mask((1 << 22) - 1).max_segments(16));
                scene.guest().fragment(Order::new(3).unwrap());
                let buffer = returning.then(|| scene.must_alloc(24, &pieces));
                drop(buffer);
                if let Some(fault) = refusal {
                    scene.guest().xen().arm(fault);
                }
                if let Some(fault) = inside.clone() {
                    scene.guest().xen().arm_exchange(fault);
                }
                failed += match returning {
                    true => u64::from(scene.allocator.trim(u64::MAX).error.is_some()),
                    false => u64::from(scene.alloc(24, &pieces).is_err()),
                };
                met += u64::from(scene.guest().xen().disarm() > 0);
                torn += u64::from(Platform::accounts(&scene.platform).quarantined() > 0);
                scene.check_secrecy();
                if reclaiming {
                    scene.allocator.reclaim(u64::MAX);
                    scene.check_secrecy();
                }
                drop(scene.alloc(16, &pieces));
                scene.allocator.trim(u64::MAX);
                scene.check_secrecy();
            }
        }
    }
    let cases = [met, failed, torn];
    println!("{met} faults were met, {failed} operations failed, {torn} quarantined frames");
    assert!(cases.iter().all(|count| *count > 10), "{cases:?}");
}

#[test]
fn new_frames_of_an_exchange_that_failed_later_are_zeroed() {
    let scene = SecrecyScene::new(guest());
    // The request needs four extents of order 2, and Xen has two.
    scene.guest().fragment(Order::new(3).unwrap());
    scene.guest().exhaust_but(14);
    assert_eq!(scene.guest().highest_free_order(), Some(2));
    let before: Vec<_> = scene.guest().usable().map(|pfn| scene.guest().mfn(pfn)).collect();
    let refused = scene.alloc(16, &limits(|it| it.max_segments(4))).map(drop);
    assert!(refused.is_err(), "{refused:?}");
    let after = scene.guest().usable().map(|pfn| scene.guest().mfn(pfn));
    let moved = before.iter().zip(after).filter(|(before, after)| **before != *after).count();
    assert!(moved >= 8, "{moved} frames came from Xen");
    scene.check_secrecy();
    scene.allocator.reclaim(u64::MAX);
    scene.check_secrecy();
}
