//! The reserve of the allocator, on the model.

#![forbid(unsafe_code)]

use fake_xen::{ExchangeFault, FakeGuest, FakePlatform, GuestBuilder};
use hypercall::XenErrno;
use xen_contig::addr::{Mfn, Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, Backing, CoherentBuffer, Constraints, ConstraintsBuilder, Retain, Sleep,
};
use xen_contig::exchange::Node;
use xen_contig::frames::FrameRun;
use xen_contig::platform::Platform;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// A guest, its kernel, and an allocator.
struct ReserveScene {
    platform: Kernel,
    allocator: Allocator<Kernel>,
    free: u64,
}

impl ReserveScene {
    fn new(guest: FakeGuest) -> Self {
        Self::retaining(guest, Retain::default())
    }

    fn retaining(guest: FakeGuest, retain: Retain) -> Self {
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let free = platform.free_frames();
        let allocator = Allocator::new(platform, retain);
        platform.guest().xen().take_log();
        Self { platform, allocator, free }
    }

    fn alloc(&self, pages: u64, limits: &Constraints) -> CoherentBuffer<'_, Kernel> {
        match self.allocator.alloc_coherent(pages * PAGE, limits) {
            Ok(buffer) => buffer,
            Err(error) => panic!("{pages} pages: {error}"),
        }
    }

    /// Returns how many hypercalls were made since the last call of this method.
    fn take_calls(&self) -> usize {
        self.platform.guest().xen().take_log().len()
    }

    /// Takes the kernel's free frames, except those whose numbers `keep` selects.
    fn take_except(&self, keep: impl Fn(u64) -> bool) -> Vec<FrameRun> {
        let taken: Vec<FrameRun> = std::iter::from_fn(|| self.platform.take(1, 1)).collect();
        let (kept, held): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|run| keep(run.first().number()));
        kept.into_iter().for_each(|run| self.platform.give(run));
        held
    }

    /// Trims all idle memory, and checks that every frame is free again.
    fn check_balance(&self) {
        self.allocator.trim(u64::MAX);
        let stats = self.allocator.stats();
        assert_eq!(self.platform.free_frames(), self.free, "{stats:?}");
        assert_eq!((stats.idle, stats.lent, stats.set_aside), (0, 0, 0), "{stats:?}");
        self.platform.guest().check_whole();
    }
}

fn limits(build: impl FnOnce(ConstraintsBuilder) -> ConstraintsBuilder) -> Constraints {
    build(Constraints::builder()).build().expect("the limits do not contradict each other")
}

fn order(order: u32) -> Order {
    Order::new(order).expect("the order is valid")
}

#[test]
fn freed_rings_are_allocated_again_without_a_hypercall() {
    let scene = ReserveScene::new(FakeGuest::new(8192));
    let any = Constraints::default();
    for round in 0..3 {
        let rings: Vec<_> = (0..64).map(|_| scene.alloc(2, &any)).collect();
        let calls = scene.take_calls();
        assert!(round == 0 || calls == 0, "{calls} hypercalls for rings that were just freed");
        drop(rings);
    }
    scene.check_balance();
}

#[test]
fn freed_halves_serve_a_request_for_the_whole() {
    let scene = ReserveScene::new(FakeGuest::new(8192));
    let any = Constraints::default();
    let mut left = scene.alloc(4, &any);
    let right = left.split_off(2 * PAGE).expect("a page boundary");
    drop(left);
    drop(right);
    scene.take_calls();
    let _whole = scene.alloc(4, &any);
    assert_eq!(scene.take_calls(), 0);
}

#[test]
fn a_freed_buffer_of_several_segments_is_allocated_again() {
    let scene = ReserveScene::new(FakeGuest::new(8192));
    let two = limits(|it| it.max_segments(2));
    drop(scene.alloc(1024, &two));
    scene.take_calls();
    drop(scene.alloc(1024, &two));
    assert_eq!(scene.take_calls(), 0);
    scene.check_balance();
}

#[test]
fn a_surplus_is_returned_to_xen() {
    let scene = ReserveScene::retaining(
        GuestBuilder::new(30_000).machine_frames(80_000).build(),
        Retain::NOTHING,
    );
    let low = limits(|it| it.mask((1 << 25) - 1));
    for cycle in 0..40 {
        let buffer = scene.allocator.alloc_coherent(257 * PAGE, &low);
        drop(buffer.unwrap_or_else(|error| panic!("cycle {cycle}: {error}")));
        // The kernel uses free frames meanwhile.
        let held: Vec<_> = (0..255).map_while(|_| scene.platform.take(1, 1)).collect();
        held.into_iter().for_each(|run| scene.platform.give(run));
    }
    scene.check_balance();
    assert_eq!(scene.allocator.stats().below_16m, 0);
}

/// Xen has no long extents above the mask. It is asked for them seldom, and then for the next shorter ones.
#[test]
fn memory_is_returned_in_the_longest_extents_that_xen_has() {
    const ROUNDS: usize = 40;
    let guest = GuestBuilder::new(2000).machine_frames(8192).build();
    guest.fragment_from(4096, order(5));
    let scene = ReserveScene::retaining(guest, Retain::NOTHING);
    let low = limits(|it| it.mask((1 << 24) - 1));
    let mfn = |pfn| scene.platform.p2m().mfn(Pfn::new(pfn)).map(Mfn::number);
    let is_break = |pfn: &u64| mfn(*pfn + 1) != mfn(*pfn).map(|mfn| mfn + 1);
    let breaks = || (0..scene.platform.p2m().frames() - 1).filter(is_break).count();
    let (breaks_before, mut exchanges) = (breaks(), 0);
    for _ in 0..ROUNDS {
        let buffer = scene.alloc(32, &low);
        let one_exchange = scene.take_calls();
        drop(buffer);
        scene.allocator.trim_excess();
        exchanges += scene.take_calls() / one_exchange;
    }
    assert!((ROUNDS..ROUNDS + 10).contains(&exchanges), "{exchanges} exchanges to return memory");
    // The last buffer's frames are two extents of 16 in place of 32 single frames.
    let joined = breaks_before - breaks();
    assert!(joined >= 28, "{joined} breaks fewer between the guest's machine frames");
    scene.check_balance();
}

#[test]
fn a_run_need_not_be_aligned_in_the_guest() {
    let scene = ReserveScene::new(FakeGuest::new(4096));
    let _held = scene.take_except(|number| (1025..2025).contains(&number));
    scene.alloc(512, &Constraints::default());
}

#[test]
fn an_aligned_frame_is_found_in_fragmented_translated_memory() {
    let scene = ReserveScene::new(GuestBuilder::new(16_384).translated().build());
    let _held = scene.take_except(|number| number >= 10_000 || number % 2 == 1);
    scene.alloc(1, &limits(|it| it.align(8192)));
}

#[test]
fn idle_memory_serves_when_the_kernel_has_none() {
    let scene = ReserveScene::new(FakeGuest::new(2048));
    drop(scene.alloc(512, &Constraints::default()));
    let _held = scene.take_except(|_| false);
    scene.platform.deny_lists(true);
    let one = scene.alloc(1, &Constraints::default());
    drop(one);
    // The kernel can reclaim it too.
    assert_eq!(scene.platform.free_frames(), 0);
    assert!(scene.allocator.reclaim(100) >= 100);
    assert!(scene.platform.free_frames() >= 100);
}

#[test]
fn a_frame_that_xen_refuses_is_set_aside() {
    let scene = ReserveScene::new(FakeGuest::new(4096));
    let run = scene.platform.take(64, 64).expect("the kernel has free frames");
    let stuck = run.first().add(5);
    scene.platform.give(run);
    scene.platform.guest().hold(stuck);
    let any = Constraints::default();
    for _ in 0..10 {
        scene.alloc(64, &any);
    }
    assert_eq!(scene.allocator.stats().set_aside, 1);
    let report = scene.allocator.trim(u64::MAX);
    assert!(report.error.is_some(), "the refusal is reported");
    scene.platform.guest().unhold(stuck);
    scene.check_balance();
}

#[test]
fn segments_of_any_length_are_served() {
    let scene = ReserveScene::new(FakeGuest::new(4096));
    scene
        .allocator
        .alloc_coherent(9000, &limits(|it| it.max_segment(5000).max_segments(2)))
        .expect("two segments");
    scene
        .allocator
        .alloc_coherent(1024, &limits(|it| it.max_segment(512).max_segments(2)))
        .expect("two halves of a kilobyte");
    scene
        .allocator
        .alloc_coherent(4096, &limits(|it| it.boundary(2048).max_segments(2)))
        .expect("two halves of a page");
    let pages = limits(|it| it.max_segment(4096).max_segments(512));
    assert_eq!(scene.alloc(512, &pages).segments().count(), 512);
    scene.check_balance();
}

#[test]
fn one_extent_backs_several_segments() {
    let scene = ReserveScene::new(GuestBuilder::new(4096).translated().build());
    let sixteen = limits(|it| it.backing(Backing::OneExtent).max_segment(1 << 16).max_segments(16));
    let buffer = scene.alloc(256, &sixteen);
    assert_eq!(buffer.segments().count(), 16);
    drop(buffer);
    scene.check_balance();
}

#[test]
fn memory_out_of_reach_is_named() {
    let scene = ReserveScene::new(FakeGuest::new(2048));
    let beyond = limits(|it| it.lowest(1 << 40));
    let error = scene.allocator.alloc_coherent(512 * PAGE, &beyond).unwrap_err();
    assert!(matches!(error, AllocError::OutOfReach { .. }), "{error}");
    scene.check_balance();
}

#[test]
fn a_request_without_limits_leaves_low_memory_alone() {
    let scene = ReserveScene::new(GuestBuilder::new(16_384).machine_frames(100_000).build());
    let (low, any) = (limits(|it| it.mask((1 << 25) - 1)), Constraints::default());
    drop(scene.alloc(8, &low));
    let _page = scene.alloc(1, &any);
    scene.take_calls();
    let _again = scene.alloc(8, &low);
    assert_eq!(scene.take_calls(), 0);
}

#[test]
fn shorter_extents_serve_if_xen_has_no_long_ones() {
    let scene = ReserveScene::new(FakeGuest::new(8192));
    scene.platform.guest().fragment(order(5));
    let buffer = scene.alloc(128, &limits(|it| it.max_segments(16)));
    assert_eq!(buffer.len(), 512 << 10);
}

#[test]
fn single_pages_need_no_memory_of_xen() {
    let scene = ReserveScene::new(FakeGuest::new(4096));
    scene.platform.guest().exhaust_but(0);
    scene.alloc(16, &limits(|it| it.max_segment(PAGE).max_segments(16)));
}

#[test]
fn a_request_that_must_not_sleep_is_served_without_a_hypercall() {
    let scene = ReserveScene::new(FakeGuest::new(4096));
    let any = Constraints::default();
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    let refused = scene.allocator.alloc_coherent(PAGE, &at_once).unwrap_err();
    assert_eq!(refused, AllocError::MustNotSleep);
    drop(scene.alloc(4, &any));
    scene.take_calls();
    drop(scene.alloc(3, &at_once));
    assert_eq!(scene.take_calls(), 0);
    scene.check_balance();
}

#[test]
fn an_impossible_member_of_a_set_is_refused_before_anything_moves() {
    let scene = ReserveScene::new(FakeGuest::new(4096));
    let request = |size, limits| xen_contig::dma::Request::new(size).within(&limits);
    let any = Constraints::default();
    let requests = [request(PAGE, any), request(PAGE, any), request(0, any)];
    let (index, error) = scene.allocator.alloc_many(&requests).unwrap_err();
    assert_eq!((index, error, scene.take_calls()), (2, AllocError::ZeroSize, 0));
}

#[test]
fn a_buffer_that_spans_classes_is_trimmed() {
    let scene = ReserveScene::new(GuestBuilder::new(8192).translated().build());
    let _held = scene.take_except(|number| (3900..4500).contains(&number));
    let free = scene.platform.free_frames();
    drop(scene.alloc(300, &limits(|it| it.max_segments(2))));
    scene.allocator.trim(u64::MAX);
    assert_eq!(scene.platform.free_frames(), free, "{:?}", scene.allocator.stats());
}

/// The guest has little memory, and the buffers are dropped one after the other.
#[test]
fn buffers_of_any_size_lose_no_frame() {
    let two = limits(|it| it.max_segments(2));
    for translated in [false, true] {
        for retain in [Retain::NOTHING, Retain::default()] {
            let builder = GuestBuilder::new(8192);
            let guest = if translated { builder.translated().build() } else { builder.build() };
            let scene = ReserveScene::retaining(guest, retain);
            let _held = scene.take_except(|number| (3584..5632).contains(&number));
            let free = scene.platform.free_frames();
            for size in
                [1, 7, 4095, 4096, 4097, 12_288, 20_481, 511 * PAGE, 512 * PAGE, 512 * PAGE + 1]
            {
                let buffer = scene.allocator.alloc_coherent(size, &two);
                drop(buffer.unwrap_or_else(|error| panic!("{size}: {error}")));
            }
            scene.allocator.trim(u64::MAX);
            assert_eq!(scene.platform.free_frames(), free, "{:?}", scene.allocator.stats());
        }
    }
}

/// Memory of a node and single extents come from Xen each time. The freed memory must be trimmed.
#[test]
fn requests_that_only_xen_can_serve_use_up_no_memory() {
    let node = limits(|it| it.node(Node::Exactly(0)));
    let one_extent = limits(|it| it.backing(Backing::OneExtent));
    for (guest, limits) in [
        (GuestBuilder::new(4096).privileged(), node),
        (GuestBuilder::new(4096).translated(), one_extent),
    ] {
        for retain in [Retain::default(), Retain::Bytes { low: u64::MAX, high: u64::MAX }] {
            let scene = ReserveScene::retaining(guest.clone().build(), retain);
            for _ in 0..600 {
                scene.alloc(16, &limits);
            }
            scene.allocator.trim(u64::MAX);
            assert_eq!(scene.platform.free_frames(), scene.free, "{:?}", scene.allocator.stats());
            scene.platform.guest().check_whole();
        }
    }
}

/// After a restore another machine frame backs one frame of the idle memory.
#[test]
fn idle_memory_that_moved_in_part_is_not_allocated() {
    for (moved, any) in [(0, 1), (3, 1), (7, 1), (3, 16)] {
        let scene = ReserveScene::new(FakeGuest::new(8192));
        let any = limits(|it| it.max_segments(any));
        let buffer = scene.alloc(8, &any);
        let pfn = buffer.frames().first().add(moved);
        drop(buffer);
        let before = scene.platform.guest().forge(pfn, Mfn::new(7));
        let at_once = any.to_builder().sleep(Sleep::MustNot).build().unwrap();
        let refused = scene.allocator.alloc_coherent(8 * PAGE, &at_once).unwrap_err();
        assert_eq!(refused, AllocError::MustNotSleep, "frame {moved}");
        scene.platform.guest().forge(pfn, before);
        scene.check_balance();
    }
}

#[test]
fn idle_pieces_that_moved_are_not_allocated() {
    let scene = ReserveScene::new(FakeGuest::new(8192));
    scene.platform.guest().fragment(order(5));
    let many = limits(|it| it.max_segments(16));
    let buffer = scene.alloc(128, &many);
    assert!(buffer.segments().count() > 1);
    let first = buffer.frames().first();
    drop(buffer);
    let guest = scene.platform.guest();
    let mfns: Vec<Mfn> = (0..128).map(|index| guest.mfn(first.add(index)).unwrap()).collect();
    let back = |order: &mut dyn Iterator<Item = &Mfn>| {
        for (mfn, index) in order.zip(0..) {
            guest.forge(first.add(index), *mfn);
        }
    };
    back(&mut mfns.iter().rev());
    let at_once = limits(|it| it.max_segments(16).sleep(Sleep::MustNot));
    let refused = scene.allocator.alloc_coherent(128 * PAGE, &at_once).unwrap_err();
    assert_eq!(refused, AllocError::MustNotSleep);
    back(&mut mfns.iter());
    scene.check_balance();
}

/// An interrupt handler may make such a request, and must not call the frame allocator.
#[test]
fn a_request_that_must_not_sleep_frees_no_frame() {
    let scene = ReserveScene::new(FakeGuest::new(4096));
    let buffer = scene.alloc(8, &Constraints::default());
    let first = buffer.frames().first();
    drop(buffer);
    let before = scene.platform.guest().forge(first, Mfn::new(7));
    let free = scene.platform.free_frames();
    let at_once = limits(|it| it.sleep(Sleep::MustNot));
    scene.allocator.alloc_coherent(8 * PAGE, &at_once).unwrap_err();
    assert_eq!(scene.platform.free_frames(), free);
    scene.platform.guest().forge(first, before);
    scene.check_balance();
}

/// Returns a guest without memory below 32 MiB, and limits that need such memory.
fn scarce() -> (ReserveScene, Constraints) {
    let guest = GuestBuilder::new(8192).machine_frames(100_000).build();
    (ReserveScene::new(guest), limits(|it| it.mask((1 << 25) - 1)))
}

#[test]
fn refused_frames_do_not_keep_idle_memory_from_xen() {
    let (scene, low) = scarce();
    let buffers: Vec<_> = (0..64).map(|index| scene.alloc(1 + index % 7, &low)).collect();
    let stuck = [buffers[5].frames().first(), buffers[30].frames().first()];
    drop(buffers);
    stuck.into_iter().for_each(|pfn| scene.platform.guest().hold(pfn));
    scene.allocator.trim(u64::MAX);
    let stats = scene.allocator.stats();
    assert_eq!((stats.idle, stats.lent, stats.set_aside), (0, 0, 2), "{stats:?}");
    stuck.into_iter().for_each(|pfn| scene.platform.guest().unhold(pfn));
    scene.check_balance();
}

#[test]
fn a_refused_frame_does_not_keep_lent_memory_from_xen() {
    let (scene, low) = scarce();
    let buffer = scene.alloc(512, &low);
    let stuck = buffer.frames().first().add(300);
    drop(buffer);
    scene.allocator.reclaim(u64::MAX);
    assert_eq!(scene.allocator.stats().lent, 512);
    scene.platform.guest().hold(stuck);
    scene.allocator.trim(u64::MAX);
    let stats = scene.allocator.stats();
    assert_eq!((stats.lent, stats.set_aside), (0, 1), "{stats:?}");
    scene.platform.guest().unhold(stuck);
    scene.check_balance();
}

#[test]
fn each_frame_that_is_set_aside_is_tried_again() {
    for stays in 0..4 {
        let (scene, low) = scarce();
        let buffer = scene.alloc(64, &low);
        let stuck = [3, 4, 9, 63].map(|index| buffer.frames().first().add(index));
        drop(buffer);
        stuck.into_iter().for_each(|pfn| scene.platform.guest().hold(pfn));
        scene.allocator.trim(u64::MAX);
        assert_eq!(scene.allocator.stats().set_aside, 4);
        for pfn in stuck.into_iter().filter(|pfn| *pfn != stuck[stays]) {
            scene.platform.guest().unhold(pfn);
        }
        scene.allocator.trim(u64::MAX);
        assert_eq!(scene.allocator.stats().set_aside, 1, "{stays}");
        scene.platform.guest().unhold(stuck[stays]);
        scene.check_balance();
    }
}

/// If Xen refuses every frame, neither a trim nor a request sets all memory aside.
#[test]
fn the_number_of_frames_set_aside_is_bounded() {
    let (scene, low) = scarce();
    drop(scene.alloc(512, &low));
    scene.platform.guest().deny_exchange(Some(XenErrno::EINVAL));
    scene.allocator.trim(u64::MAX);
    assert!(scene.allocator.stats().set_aside <= 64, "{:?}", scene.allocator.stats());
    let eighth = scene.platform.free_frames() / 8;
    scene.allocator.alloc_coherent(PAGE, &limits(|it| it.mask((1 << 24) - 1))).unwrap_err();
    let stats = scene.allocator.stats();
    assert!(stats.set_aside <= 64 + eighth, "{stats:?}");
    scene.platform.guest().deny_exchange(None);
    scene.check_balance();
}

/// Low frames of a torn exchange are lent to the kernel, and a trim returns them to Xen.
#[test]
fn a_torn_growth_leaves_the_kernel_no_low_memory() {
    for fault in [
        ExchangeFault::OutUnwritable(0),
        ExchangeFault::OutUnreadable(3),
        ExchangeFault::IommuMap(2, XenErrno::ENOMEM),
    ] {
        let (scene, low) = scarce();
        let guest = scene.platform.guest();
        guest.fragment(order(6));
        guest.xen().arm_exchange(fault.clone());
        let several = low.to_builder().max_segments(16).build().unwrap();
        scene.allocator.alloc_coherent(512 * PAGE, &several).unwrap_err();
        scene.allocator.trim(u64::MAX);
        let is_low = |pfn: &_| guest.mfn(*pfn).is_some_and(|mfn| mfn.number() < 1 << 13);
        assert_eq!(guest.usable().filter(is_low).count(), 0, "{fault:?}");
        assert_eq!(scene.allocator.stats().lent, 0, "{fault:?}");
    }
}

/// The library takes any free run of the kernel, and checks whether it fits.
#[test]
fn a_kernel_that_cannot_search_serves_translated_requests() {
    let one_extent = limits(|it| it.backing(Backing::OneExtent));
    for limits in [Constraints::default(), one_extent] {
        for pages in [1, 3, 64, 257, 512] {
            let scene = ReserveScene::new(GuestBuilder::new(2048).translated().build());
            scene.platform.deny_search(true);
            scene.alloc(pages, &limits);
            scene.check_balance();
        }
    }
}

/// The library adopts runs until one fits. If none does, the kernel gets them back, although Xen refuses
/// to take back what it exchanged before.
#[test]
fn a_refused_request_of_a_kernel_that_cannot_search_keeps_no_memory() {
    let scene = ReserveScene::new(GuestBuilder::new(16384).machine_frames(60_000).build());
    scene.platform.deny_search(true);
    let low = limits(|it| it.mask((1 << 25) - 1));
    // Idle frames of Xen's are of the same class as what the kernel has free.
    let reached = limits(|it| it.mask((1 << 28) - 1));
    let mut pages: Vec<_> = (0..24).map(|_| scene.alloc(1, &reached)).collect();
    (0..12).for_each(|index| drop(pages.remove(index)));
    let guest = scene.platform.guest();
    guest.deny_exchange(Some(XenErrno::ENOMEM));
    // Runs of the kernel are contiguous above what the device reaches.
    let runs: Vec<_> = std::iter::from_fn(|| scene.platform.take(1024, 512)).collect();
    for (index, run) in (0..).zip(runs) {
        guest.forge_all(run.first().number(), 0x8000 + 1024 * index, 1024);
        scene.platform.give(run);
    }
    let free = scene.platform.free_frames();
    let idle = scene.allocator.stats().idle;
    assert!(idle > 0);
    for _ in 0..4 {
        scene.allocator.alloc_coherent(1024 * PAGE, &low).unwrap_err();
        assert!(scene.allocator.stats().idle <= idle, "{:?}", scene.allocator.stats());
        assert!(scene.platform.free_frames() >= free, "{:?}", scene.allocator.stats());
    }
}
