//! The allocator of coherent buffers, on the model.

#![forbid(unsafe_code)]

use fake_xen::{Asked, FakeGuest, FakePlatform, Fault, GuestBuilder, Mark};
use hypercall::XenErrno;
use hypercall::trace::{Operation, Span};
use xen_contig::addr::{AddressBits, Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, Backing, BufferError, CoherentBuffer, Constraints, PoolConfig, Request,
    Retain, Sleep,
};
use xen_contig::exchange::{Capability, ExchangeError, Node};
use xen_contig::platform::Platform;

type Buffer<'a> = CoherentBuffer<'a, &'static FakePlatform>;

const PAGE: u64 = PAGE_SIZE as u64;

/// A reserve that retains all idle memory until a trim.
const KEEP: Retain = Retain::Bytes { low: u64::MAX, high: u64::MAX };

/// A guest, its kernel and an allocator.
struct DmaScene {
    platform: &'static FakePlatform,
    allocator: Allocator<&'static FakePlatform>,
    free: u64,
}

impl DmaScene {
    fn new(guest: FakeGuest) -> Self {
        Self::retaining(guest, Retain::default())
    }

    fn retaining(guest: FakeGuest, retain: Retain) -> Self {
        let platform: &'static FakePlatform = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let allocator = Allocator::new(platform, retain);
        platform.guest().xen().take_log();
        Self { platform, allocator, free: platform.free_frames() }
    }

    /// Returns how many hypercalls were made since the last call of this method.
    ///
    /// The entries of a multicall do not count.
    fn take_calls(&self) -> usize {
        let log = self.platform.guest().xen().take_log();
        let entries = log.iter().map(|call| match call.asked {
            Asked::Multicall { entries } => entries,
            _ => 0,
        });
        log.len() - entries.sum::<usize>()
    }

    fn alloc(&self, size: u64, constraints: &Constraints) -> Buffer<'_> {
        match self.allocator.alloc_coherent(size, constraints) {
            Ok(buffer) => buffer,
            Err(error) => panic!("{size} bytes for {constraints:?}: {error}"),
        }
    }

    fn error(&self, size: u64, constraints: &Constraints) -> AllocError {
        match self.allocator.alloc_coherent(size, constraints) {
            Ok(buffer) => panic!("{buffer:?} for {constraints:?}"),
            Err(error) => error,
        }
    }

    /// Checks that every frame is free, in the reserve or in a buffer. `held` frames are in buffers.
    fn check_frames(&self, held: u64) {
        let stats = self.allocator.stats();
        let reserve = stats.idle + stats.set_aside + stats.records;
        assert_eq!(self.platform.free_frames() + held + reserve, self.free, "{stats:?}");
        self.platform.guest().check_whole();
    }

    /// Trims all idle memory, and checks that every frame is free again.
    fn check_balance(&self) {
        self.check_frames(0);
        let report = self.allocator.trim(u64::MAX);
        let stats = self.allocator.stats();
        assert_eq!((report.error, report.quarantined), (None, 0), "{stats:?}");
        assert_eq!((stats.idle, stats.set_aside, stats.records), (0, 0, 0), "{stats:?}");
        assert_eq!(self.platform.free_frames(), self.free, "{stats:?}");
        self.platform.guest().check_whole();
    }
}

fn pv() -> DmaScene {
    DmaScene::new(FakeGuest::new(4096))
}

fn build(
    build: impl FnOnce(xen_contig::dma::ConstraintsBuilder) -> xen_contig::dma::ConstraintsBuilder,
) -> Constraints {
    build(Constraints::builder()).build().unwrap()
}

fn order(order: u32) -> Order {
    Order::new(order).unwrap()
}

/// Checks that each segment meets the constraints and has the right device address.
fn check_buffer(scene: &DmaScene, buffer: &Buffer<'_>, constraints: &Constraints) {
    let guest = scene.platform.guest();
    let mut offset = 0;
    for segment in buffer.segments() {
        assert_eq!(segment.offset, offset);
        offset += segment.len;
        assert!(constraints.admits(segment.dma.get(), segment.len), "{buffer:?} {constraints:?}");
        for page in 0..segment.len.div_ceil(PAGE) {
            let pfn = buffer.frames().first().add((segment.offset / PAGE) + page);
            let mfn = guest.mfn(pfn).unwrap();
            assert_eq!(mfn.number(), segment.dma.frame().number() + page);
            assert_eq!(guest.pfn(mfn), Some(pfn));
        }
    }
    assert_eq!(offset, buffer.len());
}

#[test]
fn every_size_is_zeroed_and_released() {
    let scene = pv();
    let any = Constraints::default();
    for size in [1, 2, 4095, 4096, 4097, 3 * PAGE, 5 * PAGE + 1, 511 * PAGE, 2 << 20] {
        let buffer = scene.alloc(size, &any);
        assert_eq!((buffer.len(), buffer.frames().frames()), (size, size.div_ceil(PAGE)));
        check_buffer(&scene, &buffer, &any);
        let mut content = vec![1; size as usize];
        buffer.read(0, &mut content).unwrap();
        assert!(content.iter().all(|byte| *byte == 0), "{size}");
        scene.platform.guest().fill(buffer.frames().first(), 7);
        scene.check_frames(size.div_ceil(PAGE));
        drop(buffer);
        scene.check_frames(0);
    }
    scene.check_balance();
}

#[test]
fn a_surplus_is_idle() {
    let scene = pv();
    let buffer = scene.alloc((1 << 20) + 1, &Constraints::default());
    assert_eq!((buffer.frames().frames(), scene.allocator.stats().idle), (257, 255));
    scene.check_frames(257);
    drop(buffer);
    scene.check_balance();
}

#[test]
fn every_buffer_meets_its_constraints() {
    let scene = pv();
    let machine = 4 * 4096 * PAGE;
    for constraints in [
        build(|it| it.mask(machine / 2 - 1)),
        build(|it| it.mask(machine / 2 + 12_345)),
        build(|it| it.align(1 << 16)),
        build(|it| it.boundary(1 << 17)),
        build(|it| it.max_segment(1 << 15).max_segments(8)),
        build(|it| it.boundary(1 << 14).max_segments(16).align(8192)),
    ] {
        for size in [1, PAGE, 3 * PAGE, 1 << 16, 100_000] {
            let buffer = scene.alloc(size, &constraints);
            check_buffer(&scene, &buffer, &constraints);
            assert!(buffer.segments().count() <= constraints.max_segments());
        }
        scene.check_balance();
    }
}

#[test]
fn a_lower_bound_is_kept_or_named() {
    let scene = pv();
    let machine = 4 * 4096 * PAGE;
    let low = build(|it| it.lowest(PAGE));
    check_buffer(&scene, &scene.alloc(PAGE, &low), &low);
    let beyond = build(|it| it.lowest(machine * 2));
    let error = scene.error(PAGE, &beyond);
    assert_eq!(error, AllocError::OutOfReach { lowest: machine * 2, mask: u64::MAX });
    scene.check_balance();
}

#[test]
fn a_size_above_the_order_limit_needs_segments_or_is_refused() {
    let scene = pv();
    let size = 5 << 20;
    let error = scene.error(size, &Constraints::default());
    assert_eq!(error, AllocError::OrderNotPermitted { order: order(11), limit: order(9) });
    let several = build(|it| it.max_segments(3));
    let buffer = scene.alloc(size, &several);
    let lengths: Vec<u64> = buffer.segments().map(|segment| segment.len).collect();
    assert_eq!(lengths, [2 << 20, 2 << 20, 1 << 20]);
    check_buffer(&scene, &buffer, &several);
    drop(buffer);
    scene.check_balance();
}

#[test]
fn c60_memory_that_fits_is_not_exchanged() {
    let scene = DmaScene::new(FakeGuest::new(8192));
    let any = Constraints::default();
    for order in [0, 4, 9] {
        let size = PAGE << order;
        drop(scene.alloc(size, &any));
        let cold = scene.take_calls();
        assert!(cold <= 8, "order {order}: {cold} hypercalls");
        let mut warm = scene.alloc(size, &any);
        assert_eq!(scene.take_calls(), 0, "order {order}");
        assert_eq!(warm.load(0), Ok(0_u64));
        warm.store(0, 9_u64).unwrap();
        check_buffer(&scene, &warm, &any);
    }
    let stats = scene.allocator.stats();
    assert!(stats.from_reserve >= 3, "{stats:?}");
    assert_eq!(stats.from_reserve + stats.adopted + stats.exchanged, 6, "{stats:?}");
    scene.check_balance();
}

#[test]
fn a_refusal_is_named_and_nothing_is_lost() {
    let scene = pv();
    scene.platform.guest().fragment(order(9));
    let error = scene.error(2 << 20, &Constraints::default());
    let bits = xen_contig::addr::AddressBits::UNLIMITED;
    assert_eq!(error, ExchangeError::NoMemory { order: order(9), bits, node: Node::Any }.into());
    scene.platform.guest().relieve();
    scene.check_balance();

    let nowhere = build(|it| it.mask(0x1fff));
    let error = scene.error(1, &nowhere);
    let bits = xen_contig::addr::AddressBits::new(13).unwrap();
    assert_eq!(error, ExchangeError::NoMemoryBelow { bits, node: Node::Any }.into());
    let large = build(|it| it.max_segments(16));
    let error = scene.error(20 << 20, &large);
    assert_eq!(error, AllocError::NoGuestMemory { frames: 5120, in_transactions: 0 });
    scene.platform.guest().deny_exchange(Some(XenErrno::EPERM));
    let error = scene.error(2 * PAGE, &Constraints::default());
    assert_eq!(error, ExchangeError::NotPermitted.into());
    scene.check_balance();
}

#[test]
fn c12_only_the_control_domain_may_request_an_exact_node() {
    let scene = pv();
    let exact = build(|it| it.node(Node::Exactly(0)));
    let error = scene.error(2 * PAGE, &exact);
    assert_eq!(error, ExchangeError::NodeNotPermitted { node: 0 }.into());
    scene.check_balance();
    // A node that is not exact is a hint ([C13](xen_contig::conformance#C13)).
    let near = build(|it| it.node(Node::Near(0)));
    assert!(scene.allocator.alloc_coherent(2 * PAGE, &near).is_ok());
}

#[test]
fn c73_frames_exchanged_before_the_memory_ends_are_not_lost() {
    let several = build(|it| it.max_segments(4).max_segment(1 << 16));
    let scene = pv();
    // Two extents of order 4 and some single frames are free in the machine.
    scene.platform.guest().exhaust_but(40);
    let error = scene.error(1 << 18, &several);
    assert!(matches!(error, AllocError::Exchange(ExchangeError::NoMemory { .. })), "{error}");
    scene.check_frames(0);
    scene.platform.guest().relieve();
    check_buffer(&scene, &scene.alloc(1 << 18, &several), &several);
    scene.check_balance();
}

#[test]
fn a_set_takes_fewer_exchanges_than_it_has_buffers() {
    let scene = pv();
    let any = Constraints::default();
    let request = |size| Request::new(size).within(&any);
    let requests =
        [2 * PAGE, 2 * PAGE + 1, PAGE, PAGE, 3 * PAGE, 2 * PAGE, PAGE, PAGE].map(request);
    let buffers = scene.allocator.alloc_many(&requests).unwrap();
    let stats = scene.allocator.stats();
    assert!(stats.exchanged <= 3, "{stats:?}");
    // Each exchange takes a multicall, which clears, flushes and exchanges, and a call that maps.
    assert_eq!(scene.take_calls() as u64, 2 * stats.exchanged, "{stats:?}");
    for (buffer, request) in buffers.iter().zip(&requests) {
        assert_eq!(buffer.len(), request.size());
        check_buffer(&scene, buffer, &any);
    }
    drop(buffers);
    scene.check_balance();
}

#[test]
fn a_set_is_all_or_nothing() {
    let scene = pv();
    let any = Constraints::default();
    let request = |size| Request::new(size).within(&any);
    let error = scene.allocator.alloc_many(&[request(PAGE), request(8 << 20)]).unwrap_err();
    let why = AllocError::OrderNotPermitted { order: order(11), limit: order(9) };
    assert_eq!(error, (1, why));
    scene.check_balance();
}

#[test]
fn both_parts_of_a_split_have_their_addresses_and_are_released_alone() {
    let scene = pv();
    let any = Constraints::default();
    let mut buffer = scene.alloc(4 * PAGE + 10, &any);
    buffer.store(2 * PAGE, 0x1234_u64).unwrap();
    let first = buffer.dma_addr().get();
    let len = buffer.len();
    for at in [0, 100, 5 * PAGE, u64::MAX, u64::MAX - 4095] {
        let refused = BufferError::NoPageBoundary { at, len };
        assert_eq!(buffer.split_off(at).unwrap_err(), refused);
    }
    let (right, left) = (buffer.split_off(2 * PAGE).unwrap(), buffer);
    assert_eq!((left.len(), right.len()), (2 * PAGE, 2 * PAGE + 10));
    assert_eq!((left.dma_addr().get(), right.dma_addr().get()), (first, first + 2 * PAGE));
    assert_eq!(right.dma_addr_at(2 * PAGE + 9).unwrap().get(), first + 4 * PAGE + 9);
    assert_eq!(right.dma_addr_at(2 * PAGE + 10), None);
    assert_eq!(right.load(0), Ok(0x1234_u64));
    drop(left);
    scene.platform.guest().check_whole();
    drop(right);
    scene.check_balance();
}

#[test]
fn accesses_stay_within_the_buffer() {
    let scene = pv();
    let mut buffer = scene.alloc(10, &Constraints::default());
    buffer.store(0, u64::MAX).unwrap();
    assert_eq!(buffer.load(0), Ok(u64::MAX));
    buffer.store(4, 0_u32).unwrap();
    assert_eq!((buffer.load(4), buffer.load(0)), (Ok(0_u32), Ok(u32::MAX)));
    buffer.store(8, 0xabcd_u16).unwrap();
    assert_eq!(buffer.load(8), Ok(0xabcd_u16));
    buffer.store(9, 7_u8).unwrap();
    assert_eq!((buffer.load(9), buffer.load(8)), (Ok(7_u8), Ok(0x07cd_u16)));
    assert!(buffer.load::<u8>(10).is_err() && buffer.store(10, 0_u8).is_err());
    for offset in [9, 1] {
        assert!(buffer.load::<u16>(offset).is_err() && buffer.store(offset, 0_u16).is_err());
    }
    assert!(buffer.load::<u32>(8).is_err() && buffer.store(8, 0_u32).is_err());
    assert!(buffer.load::<u64>(u64::MAX).is_err() && buffer.store(u64::MAX, 0_u64).is_err());
    assert!(buffer.read(5, &mut [0; 6]).is_err() && buffer.write(u64::MAX, &[0]).is_err());
    buffer.write(3, b"abc").unwrap();
    let mut text = [0; 3];
    buffer.read(3, &mut text).unwrap();
    assert_eq!(&text, b"abc");
}

#[test]
fn a_drop_makes_no_hypercall_and_a_trim_returns_all() {
    let scene = pv();
    let any = Constraints::default();
    let buffers: Vec<Buffer<'_>> = (0..4).map(|_| scene.alloc(8 * PAGE, &any)).collect();
    scene.take_calls();
    drop(buffers);
    let idle = scene.allocator.stats().idle;
    assert_eq!(scene.take_calls(), 0);
    assert!(idle >= 32, "{idle}");

    scene.platform.guest().exhaust_but(0);
    let report = scene.allocator.trim(u64::MAX);
    let stats = scene.allocator.stats();
    assert_eq!((report.returned, report.quarantined, stats.idle), (0, 0, idle - report.freed));
    assert!(matches!(report.error, Some(ExchangeError::NoMemory { .. })), "{report:?}");
    assert!(stats.refusals > 0, "{stats:?}");
    scene.check_frames(0);

    scene.platform.guest().relieve();
    let report = scene.allocator.trim(u64::MAX);
    let after = scene.allocator.stats();
    assert_eq!((report.returned + report.freed, report.error), (stats.idle, None));
    assert_eq!((after.idle, after.lent, after.below_4g), (0, 0, 0), "{after:?}");
    scene.check_balance();
}

#[test]
fn a_translated_guest_finds_frames_below_the_mask_or_names_the_limit() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build());
    let low = build(|it| it.mask(2048 * PAGE - 1).align(1 << 16));
    let buffer = scene.alloc(100_000, &low);
    assert!(low.admits(buffer.dma_addr().get(), 100_000));
    assert_eq!(scene.take_calls(), 0);
    let error = scene.error(2048 * PAGE, &low);
    let mask = 2048 * PAGE - 1;
    let named = AllocError::NoFramesInReach { frames: 2048, align: 1 << 16, lowest: 0, mask };
    assert_eq!(error, named);
    drop(buffer);
    scene.check_balance();
}

#[test]
fn one_extent_backs_a_buffer_of_a_translated_guest() {
    let whole = build(|it| it.backing(Backing::OneExtent).mask(2048 * PAGE - 1));
    // Xen refuses the exchange to translated guests, or permits it.
    for permitted in [false, true] {
        let scene = DmaScene::new(GuestBuilder::new(4096).translated().build());
        scene.platform.guest().permit_translated_exchange(permitted);
        for size in [1, 8 * PAGE, 9 * PAGE, 2 << 20] {
            let buffer = scene.alloc(size, &whole);
            assert!(whole.admits(buffer.dma_addr().get(), size));
            let backing = |pfn| scene.platform.guest().mfn(pfn).unwrap().number();
            let first = backing(buffer.frames().first());
            assert!((first..).zip(buffer.frames().iter()).all(|(mfn, pfn)| backing(pfn) == mfn));
            assert_eq!(buffer.load(0), Ok(0_u8));
            drop(buffer);
            scene.check_balance();
        }
    }
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build());
    scene.platform.guest().fragment(order(3));
    let error = scene.error(8 * PAGE, &whole);
    assert!(matches!(error, AllocError::Exchange(ExchangeError::NoMemory { .. })), "{error}");
    scene.platform.guest().relieve();
    scene.check_balance();
    let error = scene.error(4 << 20, &whole);
    assert_eq!(error, AllocError::OrderNotPermitted { order: order(10), limit: order(9) });
}

#[test]
fn memory_in_one_piece_serves_a_device_of_short_segments() {
    let several = build(|it| it.max_segment(1 << 15).max_segments(4).align(1 << 13));
    let pvh = DmaScene::new(GuestBuilder::new(4096).translated().build());
    let pv = DmaScene::new(FakeGuest::new(4096));
    drop(pv.allocator.alloc_coherent(1 << 17, &several).unwrap());
    for scene in [pvh, pv] {
        scene.take_calls();
        let buffer = scene.alloc(100_000, &several);
        let lengths: Vec<u64> = buffer.segments().map(|segment| segment.len).collect();
        assert_eq!(lengths, [1 << 15, 1 << 15, 1 << 15, 100_000 - 3 * (1 << 15)]);
        let first = buffer.dma_addr().get();
        for segment in buffer.segments() {
            assert!(several.admits(segment.dma.get(), segment.len), "{buffer:?}");
        }
        drop(buffer);
        assert!(first.is_multiple_of(1 << 13));
        scene.check_balance();
    }
}

#[test]
fn idle_memory_is_freed_with_its_allocator() {
    let scene = pv();
    drop(scene.alloc(8 * PAGE, &Constraints::default()));
    scene.take_calls();
    assert!(scene.platform.free_frames() <= scene.free - 8);
    let DmaScene { platform, allocator, free } = scene;
    drop(allocator);
    assert_eq!((platform.free_frames(), platform.guest().xen().take_log().len()), (free, 0));
    platform.guest().check_whole();
}

#[test]
fn c75_a_buffer_that_moved_is_reported() {
    let scene = pv();
    let buffer = scene.alloc(4 * PAGE, &Constraints::default());
    assert_eq!(buffer.check_in_place(), Ok(()));
    // Another machine frame backs the third page, as after a restore.
    let pfn = buffer.frames().first().add(2);
    let other = scene.platform.guest().mfn(buffer.frames().first()).unwrap();
    let before = scene.platform.guest().forge(pfn, other);
    let Err(BufferError::Moved(moved)) = buffer.check_in_place() else { panic!("not reported") };
    assert_eq!((moved.offset, moved.device_address.frame().number()), (2 * PAGE, before.number()));
    assert_eq!(moved.found.unwrap().frame().number(), other.number());
    let (text, found) = (moved.to_string(), moved.found.unwrap());
    assert!(
        text.contains(&format!("offset {} was at {}", moved.offset, moved.device_address)),
        "{text}"
    );
    assert!(text.contains(&format!("at {found}: allocate anew")), "{text}");
    scene.platform.guest().forge(pfn, before);
    assert_eq!(buffer.check_in_place(), Ok(()));
}

#[test]
fn a_forgotten_buffer_stays_in_use() {
    let scene = pv();
    let buffer = scene.alloc(PAGE, &Constraints::default());
    std::mem::forget(buffer);
    assert_eq!(scene.allocator.trim(u64::MAX).error, None);
    scene.check_frames(1);
}

/// Returns how many machine frames of the guest lie below 16 MiB.
fn low_frames(scene: &DmaScene) -> u64 {
    let guest = scene.platform.guest();
    let low = |pfn| guest.mfn(pfn).is_some_and(|mfn| mfn.number() < 4096);
    (0..guest.frames()).filter(|pfn| low(Pfn::new(*pfn))).count() as u64
}

/// Returns a guest in the upper three quarters of its machine.
///
/// The lower quarter, which is below 16 MiB, is free.
fn high(frames: u64, retain: Retain) -> DmaScene {
    let guest = GuestBuilder::new(frames).machine_frames(16_384).build();
    let scene = DmaScene::retaining(guest, retain);
    assert!(low_frames(&scene) < 64, "{}", low_frames(&scene));
    scene
}

#[test]
fn low_memory_is_counted_wherever_it_is() {
    let below_16m = build(|it| it.mask((16 << 20) - 1).align(1 << 16));
    for retain in [Retain::default(), Retain::NOTHING] {
        let scene = high(1024, retain);
        let before = low_frames(&scene);
        let counted = |what| {
            let more = low_frames(&scene).saturating_sub(before);
            assert_eq!(scene.allocator.stats().below_16m, more, "{retain:?}: {what}");
            more
        };
        // The request needs one page, and the extent has at least 16.
        let buffer = scene.alloc(PAGE, &below_16m);
        assert!(counted("a surplus") > 8);
        drop(buffer);
        counted("a drop");
        scene.allocator.trim(u64::MAX);
        assert_eq!(counted("trimmed"), 0);
        // No memory of the machine is in reach, and Xen hands out low memory.
        let beyond = build(|it| it.lowest(1 << 40));
        scene.platform.guest().exhaust_but(3000);
        assert!(scene.allocator.alloc_coherent(8 * PAGE, &beyond).is_err());
        counted("out of reach");
        let several = below_16m.to_builder().align(1).max_segments(4).max_segment(1 << 15);
        let several = several.build().unwrap();
        scene.platform.guest().exhaust_but(20);
        assert!(scene.allocator.alloc_coherent(1 << 17, &several).is_err());
        counted("refused midway");
        scene.platform.guest().relieve();
        scene.check_balance();
        assert_eq!(counted("trimmed again"), 0);
    }
}

#[test]
fn a_refused_request_uses_up_no_low_memory() {
    let scene = high(1024, Retain::default());
    scene.platform.guest().fragment(order(1));
    let low = build(|it| it.mask((16 << 20) - 1));
    let before = low_frames(&scene);
    for _ in 0..20 {
        let error = scene.error(4 * PAGE, &low);
        assert!(matches!(error, AllocError::Exchange(ExchangeError::NoMemory { .. })), "{error}");
    }
    assert_eq!((low_frames(&scene), scene.allocator.stats().below_16m), (before, 0));
    scene.platform.guest().relieve();
    scene.check_balance();
}

#[test]
fn a_refused_trim_can_be_repeated() {
    let scene = pv();
    let low = build(|it| it.max_segments(2).mask((1 << 24) - 1));
    drop(scene.alloc(4 << 20, &low));
    let idle = scene.allocator.stats().idle;
    scene.take_calls();
    let first = scene.allocator.trim(PAGE);
    assert!((1..idle).contains(&first.returned), "{first:?}");
    scene.platform.guest().deny_exchange(Some(XenErrno::EPERM));
    let refused = scene.allocator.trim(u64::MAX);
    let stats = scene.allocator.stats();
    assert!(refused.returned == 0 && refused.error.is_some(), "{refused:?}");
    assert_eq!((stats.returned, stats.idle), (first.returned, idle - first.returned));
    scene.check_frames(0);
    scene.platform.guest().deny_exchange(None);
    let rest = scene.allocator.trim(u64::MAX);
    assert_eq!((rest.returned, rest.error), (idle - first.returned, None));
    scene.check_balance();
}

#[test]
fn idle_memory_is_freed_before_the_guest_runs_out() {
    let scene = DmaScene::retaining(GuestBuilder::new(64).build(), KEEP);
    let low = build(|it| it.mask(1024 * PAGE - 1));
    drop(scene.alloc(16 * PAGE, &low));
    assert!(scene.allocator.stats().idle >= 16);
    // The request needs more frames than are free outside the reserve.
    let buffer = scene.alloc(48 * PAGE, &build(|it| it.max_segments(48)));
    scene.check_frames(48);
    drop(buffer);
    scene.check_balance();
}

/// The record pages lie in the middle of the free frames.
#[test]
fn unused_record_pages_are_freed_before_the_guest_runs_out() {
    let scene = DmaScene::retaining(GuestBuilder::new(64).build(), Retain::NOTHING);
    drop(scene.alloc(16 * PAGE, &Constraints::default()));
    let all = build(|it| it.max_segments(48));
    drop(scene.alloc(48 * PAGE, &all));
    assert!(scene.allocator.stats().records > 0);
    drop(scene.alloc(48 * PAGE, &all));
    scene.check_balance();
}

#[test]
fn a_refused_request_takes_no_memory_into_the_reserve() {
    let scene = pv();
    let low = build(|it| it.mask((1 << 24) - 1));
    scene.platform.guest().exhaust_but(0);
    scene.error(16 * PAGE, &low);
    let stats = scene.allocator.stats();
    assert_eq!((stats.idle, stats.records), (0, 0), "{stats:?}");
    scene.platform.guest().relieve();
    scene.check_balance();
}

#[test]
fn idle_memory_above_the_high_watermark_is_trimmed_to_the_low_one() {
    let retain = Retain::Bytes { low: 8 * PAGE, high: 24 * PAGE };
    let scene = DmaScene::retaining(FakeGuest::new(4096), retain);
    let low = build(|it| it.mask((1 << 24) - 1));
    let buffers: Vec<Buffer<'_>> = (0..16).map(|_| scene.alloc(4 * PAGE, &low)).collect();
    scene.allocator.trim(u64::MAX);
    scene.take_calls();
    let mut dropped = 0;
    for buffer in buffers {
        drop(buffer);
        dropped += 4;
        assert_eq!(
            (scene.allocator.stats().idle, scene.take_calls()),
            (dropped, 0),
            "a drop trims nothing"
        );
    }
    drop(scene.alloc(PAGE, &low));
    let stats = scene.allocator.stats();
    assert!(stats.idle <= 8 && stats.returned >= 56, "{stats:?}");
    scene.check_frames(0);
    scene.check_balance();
}

#[test]
fn a_size_above_the_reach_is_refused_before_anything_moves() {
    let scene = pv();
    for (constraints, size, align) in [
        (build(|it| it.mask(0xf_ffff)), (1 << 20) + 1, 2 << 20),
        (build(|it| it.mask(0xffff).lowest(0x8000)), 0x8001, 0x10000),
        (build(|it| it.mask(0xffff).max_segments(4).max_segment(1 << 17)), 0x10001, PAGE),
    ] {
        let (lowest, mask) = (constraints.lowest(), constraints.mask());
        let error = scene.error(size, &constraints);
        assert_eq!(error, AllocError::LargerThanReach { size, align, lowest, mask });
        assert_eq!(scene.take_calls(), 0, "{error}");
    }
    scene.check_balance();
}

#[test]
fn one_extent_backs_a_member_of_a_set() {
    let guest = || GuestBuilder::new(4096).translated().build();
    let scene = DmaScene::new(guest());
    let whole = build(|it| it.backing(Backing::OneExtent));
    let request = |size, limits| Request::new(size).within(&limits);
    let requests = [request(8 * PAGE, whole), request(PAGE, Constraints::default())];
    let buffers = scene.allocator.alloc_many(&requests).unwrap();
    let backing = |pfn| scene.platform.guest().mfn(pfn).unwrap().number();
    let first = backing(buffers[0].frames().first());
    assert!((first..).zip(buffers[0].frames().iter()).all(|(mfn, pfn)| backing(pfn) == mfn));
    drop(buffers);
    // Xen exchanges no frame of a translated guest, so the trim frees all memory to the kernel.
    assert_eq!(scene.allocator.trim(u64::MAX).returned, 0);
    scene.check_balance();

    let denied = guest();
    // The first question is whether Xen permits the exchange of a single frame.
    denied.xen().arm(Fault::refuse(1, XenErrno::EPERM));
    let scene = DmaScene::new(denied);
    let Capability::None { why } = scene.allocator.capability() else { panic!("not denied") };
    let error = scene.error(8 * PAGE, &whole);
    assert_eq!(error, AllocError::NoExchange(why));
}

#[test]
fn an_extent_backs_frames_that_a_superpage_can_map() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build());
    let whole = build(|it| it.backing(Backing::OneExtent));
    let other = scene.alloc(PAGE, &Constraints::default());
    let buffer = scene.alloc(2 << 20, &whole);
    assert!(buffer.frames().first().number().is_multiple_of(512), "{buffer:?}");
    drop((other, buffer));
    scene.check_balance();
}

#[test]
fn c77_frames_that_xen_would_not_populate_again_are_not_given_up() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build());
    let whole = build(|it| it.backing(Backing::OneExtent));
    // The toolstack lowers the target while the guest runs.
    scene.platform.guest().set_max_pages(3000);
    let error = scene.error(16 * PAGE, &whole);
    assert_eq!(error, AllocError::AboveMaximum { current: 4096, maximum: 3000 });
    scene.check_balance();
}

#[test]
fn an_error_says_what_the_caller_can_do() {
    let scene = pv();
    let mut buffer = scene.alloc(2 * PAGE, &Constraints::default());
    let error = buffer.split_off(100).unwrap_err();
    let text = "a buffer of 8192 bytes cannot be split at 100: choose a multiple of 4096 within it";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_lowest_address_above_a_power_of_two_is_in_reach() {
    // The guest has the last 16 MiB of the machine, and the 4 MiB from 64 MiB on are free.
    let guest = GuestBuilder::new(4096).machine_frames(84 << 20 >> 12).build();
    let scene = DmaScene::new(guest);
    for (lowest, mask) in [(64 << 20, 90 << 20), ((64 << 20) - PAGE, 90 << 20)] {
        let high = build(|it| it.lowest(lowest).mask(mask));
        for size in [1, 2 * PAGE, 3 * PAGE] {
            check_buffer(&scene, &scene.alloc(size, &high), &high);
            scene.check_balance();
        }
    }
}

#[test]
fn a_translated_guest_finds_memory_far_past_its_first_frames() {
    const FRAMES: u64 = 1 << 16;
    let scene = DmaScene::new(GuestBuilder::new(FRAMES).translated().build());
    let (far, most) = (FRAMES * PAGE * 3 / 4, FRAMES * PAGE - 1);
    let devices = [
        build(|it| it.lowest(far)),
        build(|it| it.lowest(far).mask(most).boundary(1 << 16)),
        build(|it| it.align(FRAMES * PAGE / 2).lowest(1)),
        build(|it| it.lowest(far).backing(Backing::OneExtent)),
        // The alignment is above the order limit, which limits the backing only.
        build(|it| it.align(FRAMES * PAGE / 4).lowest(1).backing(Backing::OneExtent)),
        build(|it| it.lowest(far).max_segment(1 << 15).max_segments(16)),
    ];
    for constraints in &devices {
        for size in [1, 5 * PAGE, 1 << 15] {
            let buffer = scene.alloc(size, constraints);
            assert!(constraints.admits(buffer.dma_addr().get(), size), "{buffer:?}");
        }
        scene.check_balance();
    }
}

#[test]
fn a_node_without_memory_is_named() {
    let scene = DmaScene::new(GuestBuilder::new(4096).privileged().max_order(18).build());
    let below = |bits: u32, node| build(|it| it.mask((1 << bits) - 1).node(Node::Exactly(node)));
    for (constraints, bits) in [(build(|it| it.node(Node::Exactly(2))), 64), (below(30, 2), 30)] {
        for (size, log) in [(PAGE, 0), (4 * PAGE, 2)] {
            let error = scene.error(size, &constraints);
            let (order, bits) = match bits {
                // With an address limit the library also asks for a single frame, which Xen refuses.
                30 => (order(0), AddressBits::new(30).unwrap()),
                _ => (order(log), AddressBits::UNLIMITED),
            };
            assert_eq!(error, AllocError::NoMemoryOnNode { node: 2, order, bits });
            assert!(error.to_string().contains("node 2"), "{error}");
        }
    }
    assert!(scene.allocator.alloc_coherent(PAGE, &below(30, 0)).is_ok());
    scene.check_balance();
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build());
    for backing in [Backing::Any, Backing::OneExtent] {
        let exact = build(|it| it.node(Node::Exactly(3)).backing(backing));
        let error = scene.error(1, &exact);
        assert_eq!(error, AllocError::NodeUnknown { node: 3 });
        assert!(scene.allocator.alloc_coherent(1, &build(|it| it.node(Node::Near(3)))).is_ok());
    }
    scene.check_balance();
}

#[test]
fn one_extent_above_the_limit_is_refused_by_its_own_size() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build());
    let whole = build(|it| it.backing(Backing::OneExtent).max_segments(16));
    let above = AllocError::OrderNotPermitted { order: order(10), limit: order(9) };
    assert_eq!(scene.error((2 << 20) + 1, &whole), above);
    scene.check_balance();
}

#[test]
fn without_memory_for_lists_nothing_moves() {
    let scene = pv();
    let low = build(|it| it.mask((1 << 24) - 1));
    let buffer = scene.alloc(8 * PAGE, &low);
    scene.take_calls();
    scene.platform.deny_lists(true);
    drop(buffer);
    let error = scene.error(16 * PAGE, &low);
    assert_eq!(error, AllocError::NoListMemory { words: 16 + 1 });
    let request = Request::new(16 * PAGE).within(&low);
    assert_eq!(scene.allocator.alloc_many(&[request, request]).unwrap_err(), (0, error));
    let stats = scene.allocator.stats();
    assert_eq!(stats.idle + stats.lent, 8, "the memory is idle or lent to the kernel: {stats:?}");
    let report = scene.allocator.trim(u64::MAX);
    assert_eq!((report.returned, report.freed), (0, 0));
    assert!(matches!(report.error, Some(ExchangeError::NoListMemory { .. })), "{report:?}");
    assert_eq!(scene.take_calls(), 0);
    scene.platform.deny_lists(false);
    assert_eq!(scene.allocator.trim(u64::MAX).returned, 8);
    scene.check_balance();
}

#[test]
fn lists_that_are_too_short_count_as_none() {
    let scene = pv();
    let low = build(|it| it.mask((1 << 24) - 1));
    let buffer = scene.alloc(8 * PAGE, &low);
    scene.take_calls();
    scene.platform.shorten_lists(true);
    let error = scene.error(16 * PAGE, &low);
    assert_eq!(error, AllocError::NoListMemory { words: 16 + 1 });
    drop(buffer);
    let report = scene.allocator.trim(u64::MAX);
    assert!(matches!(report.error, Some(ExchangeError::NoListMemory { .. })), "{report:?}");
    assert_eq!(scene.take_calls(), 0);
    scene.platform.shorten_lists(false);
    assert_eq!(scene.allocator.trim(u64::MAX).returned, 8);
    scene.check_balance();
}

#[test]
fn idle_memory_that_xen_refuses_is_kept() {
    let scene = pv();
    let low = build(|it| it.mask((1 << 24) - 1));
    let buffers: Vec<Buffer<'_>> = (0..80).map(|_| scene.alloc(2 * PAGE, &low)).collect();
    scene.platform.guest().exhaust_but(0);
    drop(buffers);
    let idle = scene.allocator.stats().idle;
    for refusals in 1..4 {
        assert_eq!(scene.allocator.trim(u64::MAX).returned, 0);
        assert!(scene.allocator.stats().refusals >= refusals);
        assert_eq!(scene.allocator.stats().idle, idle);
    }
    scene.check_frames(0);
    scene.platform.guest().relieve();
    assert_eq!(scene.allocator.trim(u64::MAX).returned, idle);
    scene.check_balance();
}

#[test]
fn the_advice_in_an_error_fits_the_limits() {
    let advice = |device: Constraints| {
        pv().allocator.alloc_coherent(2 * PAGE, &device).unwrap_err().to_string()
    };
    for limit in [8, PAGE / 2] {
        assert!(advice(build(|it| it.max_segment(limit))).ends_with("out of a pool"));
        assert!(advice(build(|it| it.boundary(limit))).ends_with("out of a pool"));
    }
    assert!(advice(build(|it| it.max_segment(PAGE))).ends_with("allow more segments"));
    assert!(advice(build(|it| it.boundary(PAGE))).ends_with("allow more segments"));
}

#[test]
fn an_allocation_is_a_span_whether_it_succeeds_or_fails() {
    let scene = pv();
    let operation = Operation::new("alloc_coherent", 64 * PAGE);
    let span = Span::Operation(operation);
    for denied in [None, Some(XenErrno::EPERM)] {
        scene.platform.guest().deny_exchange(denied);
        scene.platform.guest().xen().take_marks();
        let result = scene.allocator.alloc_coherent(64 * PAGE, &Constraints::default());
        assert_eq!(result.map(std::mem::forget).is_ok(), denied.is_none());
        let marks = scene.platform.guest().xen().take_marks();
        assert_eq!(marks.first(), Some(&Mark::Enter(span)));
        assert_eq!(marks.last(), Some(&Mark::Leave(span)));
    }
}

/// Values at which an unchecked sum, product or shift overflows.
const EXTREMES: [u64; 10] =
    [0, 1, 2, PAGE - 1, PAGE, 1 << 30, 1 << 52, 1 << 63, u64::MAX - PAGE + 1, u64::MAX];

#[test]
fn no_value_makes_a_public_constructor_overflow() {
    // The reserve is empty, so a request that must not sleep is planned and then refused.
    let scene = DmaScene::new(FakeGuest::new(512));
    let (mut built, mut planned, mut pools) = (0, 0, 0);
    for (mask, lowest) in EXTREMES.iter().flat_map(|mask| EXTREMES.map(|lowest| (*mask, lowest))) {
        for (align, boundary) in EXTREMES.iter().flat_map(|a| EXTREMES.map(|b| (*a, b))) {
            for (bytes, segments) in
                EXTREMES.into_iter().zip([4, 1, usize::MAX].into_iter().cycle())
            {
                let builder = Constraints::builder().mask(mask).lowest(lowest).align(align);
                let builder = builder.boundary(boundary).max_segment(bytes);
                let builder = builder.max_segments(segments).sleep(Sleep::MustNot);
                let Ok(device) = builder.build() else { continue };
                built += 1;
                let _placements = (device.placement(), device.wider_placement());
                for size in EXTREMES {
                    let _admitted = device.admits(bytes, size);
                    let error = scene.error(size, &device);
                    planned += u64::from(error == AllocError::MustNotSleep);
                    let pool = PoolConfig::builder("extreme", size).align(bytes).chunk(align);
                    pools += usize::from(pool.limit(bytes).reserve(lowest).build().is_ok());
                }
            }
        }
    }
    assert!(built > 1000 && planned > 1000 && pools > 10, "{built} {planned} {pools}");
}

/// Xen's order limit is lowered while the guest runs.
#[test]
fn growth_ahead_of_need_keeps_a_lowered_order_limit() {
    let scene = pv();
    let low = build(|it| it.mask((1 << 24) - 1));
    let _large = scene.alloc(16 * PAGE, &low);
    scene.platform.guest().set_max_order(2);
    check_buffer(&scene, &scene.alloc(4 * PAGE, &low), &low);
    let error = scene.error(8 * PAGE, &low);
    assert_eq!(error, ExchangeError::OrderNotPermitted { order: order(3) }.into());
}

/// Frames are lent to the kernel, and an exchange then returns them to Xen.
#[test]
fn lent_frames_that_an_exchange_takes_count_as_returned() {
    let scene = high(64, KEEP);
    let low = build(|it| it.mask((16 << 20) - 1));
    drop(scene.alloc(16 * PAGE, &low));
    let freed = scene.allocator.reclaim(u64::MAX);
    let lent = scene.allocator.stats().lent;
    assert!(freed >= 16 && lent >= 16, "{freed} {lent}");
    // The buffers together need more frames than the kernel has besides the lent ones.
    let high = build(|it| it.lowest(16 << 20));
    let buffers: Vec<Buffer<'_>> =
        (0..12).map_while(|_| scene.allocator.alloc_coherent(4 * PAGE, &high).ok()).collect();
    let stats = scene.allocator.stats();
    assert!(stats.lent < lent && stats.below_16m == stats.lent, "{stats:?}");
    drop(buffers);
    scene.check_balance();
    assert_eq!(scene.allocator.stats().below_16m, 0);
}

/// The kernel still uses lent frames of a higher class.
#[test]
fn lent_frames_of_a_lower_class_return_alone() {
    let scene = high(1024, KEEP);
    let (lower, higher) = (build(|it| it.mask((8 << 20) - 1)), build(|it| it.mask((16 << 20) - 1)));
    drop(scene.alloc(4 * PAGE, &lower));
    let lower_frames = scene.allocator.reclaim(u64::MAX);
    assert!(lower_frames >= 4 && scene.allocator.stats().lent >= 4);
    drop(scene.alloc(64 * PAGE, &higher));
    scene.allocator.reclaim(u64::MAX);
    let in_class = |pfn: Pfn, class: std::ops::Range<u64>| {
        class.contains(&scene.platform.guest().mfn(pfn).unwrap().number())
    };
    let all: Vec<_> = std::iter::from_fn(|| scene.platform.take(1, 1)).collect();
    let (used, free): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|run| in_class(run.first(), 2048..4096));
    free.into_iter().for_each(|run| scene.platform.give(run));
    assert!(!used.is_empty());
    scene.allocator.trim(u64::MAX);
    assert_eq!(
        scene.allocator.stats().lent,
        used.len() as u64,
        "the kernel uses the other lent frames"
    );
    used.into_iter().for_each(|run| scene.platform.give(run));
    scene.check_balance();
}
