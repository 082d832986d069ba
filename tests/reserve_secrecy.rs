//! Nothing that Xen or another driver left in memory leaves the reserve.
//!
//! The model poisons what Xen hands out ([C56](xen_contig::conformance#C56)). The kernel's free memory
//! holds the kernel's bytes, and each driver writes its own into its buffer. For each way out of the
//! reserve: a buffer holds zeros, the kernel receives no byte of Xen's, and Xen none of the guest's
//! ([C57](xen_contig::conformance#C57)).
//!
//! The kernel receives what its drivers wrote, as from any allocator of a kernel: zeroing that is up to
//! whoever hands the memory to another user.

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

/// What drivers write into their buffers.
const DRIVER: u64 = 0xd21e_d21e_d21e_d21e;

struct SecrecyScene {
    platform: Kernel,
    allocator: Allocator<Kernel>,
    /// Frames that were returned to Xen as it had handed them out.
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

    /// Allocates, checks that the buffer holds zeros, and lets the driver write to it.
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

    /// Checks every free frame of the kernel, and what Xen received.
    fn is_secret(&self) {
        let free: Vec<FrameRun> = std::iter::from_fn(|| self.platform.take(1, 1)).collect();
        assert!(!free.is_empty());
        for run in &free {
            let pfn = run.first();
            let poisoned = match self.guest().uniform(pfn) {
                Some(word) => word == POISON,
                None => (0..WORDS).any(|word| self.guest().read(0, pfn, word) == POISON),
            };
            assert!(!poisoned, "{pfn} holds Xen's bytes and is free memory of the kernel");
        }
        free.into_iter().for_each(|run| self.platform.give(run));
        let own = self.probes.get() + self.returned_probes();
        self.probes.set(own);
        assert_eq!(self.guest().given_up_dirty(), own, "frames went to Xen with the guest's bytes");
    }

    /// Counts the frames that were returned to Xen as Xen had handed them out: after a refusal, the
    /// exchange of one frame tells whether the limit was the cause, and a second one undoes it.
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

    /// Checks all, gives the idle memory up, and checks again.
    fn is_secret_until_trimmed(&self) {
        self.is_secret();
        let report = self.allocator.trim(u64::MAX);
        assert_eq!(self.allocator.stats().idle, 0, "{report:?}");
        self.is_secret();
    }

    /// Takes the kernel's free frames, but for those that `keep` selects.
    fn leave(&self, keep: impl Fn(Pfn) -> bool) -> Vec<FrameRun> {
        let all: Vec<FrameRun> = std::iter::from_fn(|| self.platform.take(1, 1)).collect();
        let (kept, held): (Vec<_>, Vec<_>) = all.into_iter().partition(|run| keep(run.first()));
        kept.into_iter().for_each(|run| self.platform.give(run));
        held
    }
}

fn limits(build: impl FnOnce(ConstraintsBuilder) -> ConstraintsBuilder) -> Constraints {
    build(Constraints::builder()).build().expect("limits without a contradiction")
}

fn guest() -> FakeGuest {
    FakeGuest::new(2048)
}

/// Memory of a low class, which comes from Xen and is returned to it.
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
    scene.is_secret_until_trimmed();
}

#[test]
fn a_buffer_that_another_driver_had_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    let any = Constraints::default();
    drop(scene.must_alloc(16, &any));
    // The extent that was released last, a part of it, and merged blocks.
    drop(scene.must_alloc(16, &any));
    let (_one, _two) = (scene.must_alloc(3, &any), scene.must_alloc(5, &any));
    drop(scene.must_alloc(16, &any));
    assert!(scene.allocator.stats().from_reserve >= 3, "{:?}", scene.allocator.stats());
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    let served = std::iter::from_fn(|| scene.alloc(1, &at_once).ok()).map(std::mem::forget).count();
    assert!(served > 0, "idle memory");
    scene.is_secret_until_trimmed();
}

#[test]
fn a_surplus_is_zeroed_when_it_is_handed_out() {
    let scene = SecrecyScene::new(guest());
    let any = Constraints::default();
    let first = scene.must_alloc(17, &any);
    let idle = scene.allocator.stats().idle;
    assert!(idle >= 15, "{:?}", scene.allocator.stats());
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    let rest: Vec<_> = std::iter::from_fn(|| scene.alloc(1, &at_once).ok()).collect();
    assert_eq!(rest.len() as u64, idle, "all of the surplus");
    drop((first, rest));
    scene.is_secret_until_trimmed();
}

#[test]
fn a_buffer_of_several_pieces_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    let two = limits(|it| it.max_segments(2));
    // From an exchange of two extents, then from the reserve.
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
    scene.is_secret_until_trimmed();
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
        scene.is_secret_until_trimmed();
    }
}

#[test]
fn a_refilled_buffer_is_zeroed() {
    let scene = SecrecyScene::new(GuestBuilder::new(2048).translated().build());
    let one = limits(|it| it.backing(Backing::OneExtent));
    for pages in [1, 3, 64] {
        let buffer = scene.must_alloc(pages, &one);
        // The rest of the extent is the reserve's.
        let at_once = limits(|it| it.sleep(Sleep::MustNot));
        let rest: Vec<_> = std::iter::from_fn(|| scene.alloc(1, &at_once).ok()).collect();
        drop((buffer, rest));
    }
    scene.is_secret_until_trimmed();
}

#[test]
fn memory_that_is_trimmed_to_the_kernel_or_to_xen_is_zeroed() {
    for limits in [Constraints::default(), low()] {
        for retain in [Retain::default(), Retain::NOTHING] {
            let scene = SecrecyScene::retaining(guest(), retain);
            // 255 frames of the second one were never a buffer's.
            let one = scene.must_alloc(1, &limits);
            let many = scene.must_alloc(257, &limits);
            drop(many);
            scene.is_secret();
            drop(one);
            // Trims the rest, if nothing is retained.
            drop(scene.must_alloc(1, &limits));
            scene.is_secret_until_trimmed();
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
    scene.is_secret();
}

#[test]
fn reclaimed_memory_is_zeroed() {
    for limits in [Constraints::default(), low()] {
        let scene = SecrecyScene::new(guest());
        drop(scene.must_alloc(17, &limits));
        let _live = scene.must_alloc(257, &limits);
        assert!(scene.allocator.stats().idle > 200, "{:?}", scene.allocator.stats());
        let _held = scene.leave(|_| false);
        assert!(scene.allocator.reclaim(1) > 0);
        scene.is_secret();
        assert!(scene.allocator.reclaim(u64::MAX) > 200);
        scene.is_secret();
        // What was lent to the kernel goes to Xen.
        scene.allocator.trim(u64::MAX);
        scene.is_secret();
    }
}

#[test]
fn a_frame_that_was_set_aside_is_zeroed_when_xen_takes_it() {
    let scene = SecrecyScene::new(guest());
    let run = scene.platform.take(64, 64).expect("memory");
    let stuck = run.first().add(5);
    scene.platform.give(run);
    scene.guest().hold(stuck);
    for pages in [64, 64, 128] {
        drop(scene.must_alloc(pages, &low()));
    }
    assert_eq!(scene.allocator.stats().set_aside, 1, "{:?}", scene.allocator.stats());
    scene.is_secret();
    scene.guest().unhold(stuck);
    let report = scene.allocator.trim(u64::MAX);
    assert_eq!((scene.allocator.stats().set_aside, report.error), (0, None));
    scene.is_secret();
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
    // The first request that may sleep finds that idle memory moved, and dissolves it.
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    assert_eq!(scene.alloc(1, &at_once).map(drop), Err(AllocError::MustNotSleep));
    assert!(scene.allocator.stats().idle > 200);
    let held: Vec<FrameRun> = std::iter::from_fn(|| scene.platform.take(1, 1)).collect();
    let _served = scene.must_alloc(1, &any);
    held.into_iter().for_each(|run| scene.platform.give(run));
    before.into_iter().for_each(|(pfn, mfn)| _ = scene.guest().forge(pfn, mfn));
    assert!(scene.allocator.stats().idle < 16, "{:?}", scene.allocator.stats());
    scene.is_secret();
}

#[test]
fn what_a_dropped_allocator_had_is_zeroed() {
    for limits in [Constraints::default(), low()] {
        let scene = SecrecyScene::new(guest());
        drop(scene.must_alloc(130, &limits));
        drop(scene.must_alloc(16, &limits));
        assert!(scene.allocator.stats().idle > 200, "{:?}", scene.allocator.stats());
        let SecrecyScene { platform, allocator, probes } = scene;
        drop(allocator);
        let allocator = Allocator::new(platform, Retain::default());
        SecrecyScene { platform, allocator, probes }.is_secret();
    }
}

/// Every hypercall of an allocation and of a trim fails, before it does anything and on the way, and
/// each exchange goes wrong inside.
#[test]
fn what_a_failed_exchange_leaves_is_zeroed() {
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
                scene.is_secret();
                if reclaiming {
                    scene.allocator.reclaim(u64::MAX);
                    scene.is_secret();
                }
                drop(scene.alloc(16, &pieces));
                scene.allocator.trim(u64::MAX);
                scene.is_secret();
            }
        }
    }
    let cases = [met, failed, torn];
    println!("{met} faults were met, {failed} operations failed, {torn} lost frames");
    assert!(cases.iter().all(|count| *count > 10), "{cases:?}");
}

#[test]
fn what_an_exchange_brought_before_it_failed_is_zeroed() {
    let scene = SecrecyScene::new(guest());
    // Two extents of order 2 remain, of four.
    scene.guest().fragment(Order::new(3).unwrap());
    scene.guest().exhaust_but(14);
    assert_eq!(scene.guest().highest_free_order(), Some(2));
    let before: Vec<_> = scene.guest().usable().map(|pfn| scene.guest().mfn(pfn)).collect();
    let refused = scene.alloc(16, &limits(|it| it.max_segments(4))).map(drop);
    assert!(refused.is_err(), "{refused:?}");
    let after = scene.guest().usable().map(|pfn| scene.guest().mfn(pfn));
    let moved = before.iter().zip(after).filter(|(before, after)| **before != *after).count();
    assert!(moved >= 8, "{moved} frames came from Xen");
    scene.is_secret();
    scene.allocator.reclaim(u64::MAX);
    scene.is_secret();
}
