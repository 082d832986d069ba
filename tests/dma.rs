//! The allocator of coherent buffers against the model.

#![forbid(unsafe_code)]

use fake_xen::{Asked, FakeGuest, FakePlatform, Fault, GuestBuilder, Mark};
use hypercall::XenErrno;
use hypercall::trace::Span;
use xen_contig::addr::{AddressBits, Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, Backing, BufferError, CoherentBuffer, Constraints, GiveBack, Layout,
    PoolConfig, Request, Sleep,
};
use xen_contig::exchange::{Capability, ExchangeError, Node, OnRefusal};
use xen_contig::paging::Width;

type Buffer<'a> = CoherentBuffer<'a, &'static FakePlatform>;

const PAGE: u64 = PAGE_SIZE as u64;

/// A guest, its kernel and an allocator.
struct DmaScene {
    platform: &'static FakePlatform,
    allocator: Allocator<&'static FakePlatform>,
    free: u64,
}

impl DmaScene {
    fn new(guest: FakeGuest, policy: GiveBack) -> Self {
        let platform: &'static FakePlatform = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let allocator = Allocator::new(platform, policy);
        platform.guest().xen().take_log();
        Self { platform, allocator, free: platform.free_frames() }
    }

    /// The number of hypercalls. The entries of a multicall are none of their own.
    fn calls(&self) -> usize {
        let log = self.platform.guest().xen().take_log();
        let entries = log.iter().map(|call| match call.asked {
            Asked::Multicall { entries } => entries,
            _ => 0,
        });
        log.len() - entries.sum::<usize>()
    }

    /// Every frame is where it was, and all books agree.
    fn is_balanced(&self) {
        assert_eq!(self.platform.free_frames(), self.free);
        self.platform.guest().check_whole();
    }
}

fn pv() -> DmaScene {
    DmaScene::new(FakeGuest::new(4096), GiveBack::AtOnce)
}

fn build(
    build: impl FnOnce(xen_contig::dma::ConstraintsBuilder) -> xen_contig::dma::ConstraintsBuilder,
) -> Constraints {
    build(Constraints::builder()).build().unwrap()
}

fn order(order: u32) -> Order {
    Order::new(order).unwrap()
}

/// Each segment is one the device takes, in the machine and not only by the guest's books.
fn is_within(scene: &DmaScene, buffer: &Buffer<'_>, constraints: &Constraints) {
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
fn every_odd_size_comes_and_goes() {
    let scene = pv();
    let any = Constraints::default();
    for size in [1, 2, 4095, 4096, 4097, 3 * PAGE, 5 * PAGE + 1, 511 * PAGE, 2 << 20] {
        let buffer = scene.allocator.alloc_coherent(size, &any).unwrap();
        assert_eq!((buffer.len(), buffer.frames().frames()), (size, size.div_ceil(PAGE)));
        is_within(&scene, &buffer, &any);
        let mut content = vec![1; size as usize];
        buffer.read(0, &mut content).unwrap();
        assert!(content.iter().all(|byte| *byte == 0), "{size}");
        drop(buffer);
        scene.is_balanced();
    }
}

#[test]
fn what_is_not_asked_for_stays_ordinary_memory() {
    let scene = pv();
    let buffer = scene.allocator.alloc_coherent((1 << 20) + 1, &Constraints::default()).unwrap();
    assert_eq!(buffer.frames().frames(), 257);
    assert_eq!(scene.platform.free_frames(), scene.free - 257);
    drop(buffer);
    scene.is_balanced();
}

#[test]
fn constraints_are_kept() {
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
            let buffer = scene.allocator.alloc_coherent(size, &constraints).unwrap();
            is_within(&scene, &buffer, &constraints);
            assert!(buffer.segments().len() <= constraints.max_segments());
        }
        scene.is_balanced();
    }
}

#[test]
fn a_lower_bound_is_kept_or_told() {
    let scene = pv();
    let machine = 4 * 4096 * PAGE;
    let low = build(|it| it.lowest(PAGE));
    is_within(&scene, &scene.allocator.alloc_coherent(PAGE, &low).unwrap(), &low);
    let beyond = build(|it| it.lowest(machine * 2));
    let error = scene.allocator.alloc_coherent(PAGE, &beyond).unwrap_err();
    assert_eq!(error, AllocError::OutOfReach { lowest: machine * 2, mask: u64::MAX, tries: 4 });
    scene.is_balanced();
}

#[test]
fn above_the_limit_there_are_segments_or_an_error_with_the_limit() {
    let scene = pv();
    let size = 5 << 20;
    let error = scene.allocator.alloc_coherent(size, &Constraints::default()).unwrap_err();
    assert_eq!(error, AllocError::OrderNotPermitted { order: order(11), limit: order(9) });
    let several = build(|it| it.max_segments(3));
    let buffer = scene.allocator.alloc_coherent(size, &several).unwrap();
    let lengths: Vec<u64> = buffer.segments().iter().map(|segment| segment.len).collect();
    assert_eq!(lengths, [2 << 20, 2 << 20, 1 << 20]);
    is_within(&scene, &buffer, &several);
    drop(buffer);
    scene.is_balanced();
}

#[test]
fn c60_memory_that_fits_is_used_as_it_is() {
    let scene = DmaScene::new(FakeGuest::new(4096), GiveBack::Keep);
    let any = Constraints::default();
    for order in [0, 4, 9] {
        let size = PAGE << order;
        drop(scene.allocator.alloc_coherent(size, &any).unwrap());
        let cold = scene.calls();
        assert!(cold <= 8, "order {order}: {cold} hypercalls");
        let warm = scene.allocator.alloc_coherent(size, &any).unwrap();
        assert_eq!(scene.calls(), 0, "order {order}");
        assert_eq!(warm.load(0, Width::Quad), Ok(0));
        is_within(&scene, &warm, &any);
    }
    assert_eq!(scene.allocator.stats().found, 4, "any frame fits order 0");
    scene.is_balanced();
}

#[test]
fn who_must_not_sleep_gets_what_fits_or_nothing() {
    let scene = DmaScene::new(FakeGuest::new(4096), GiveBack::Keep);
    let awake = build(|it| it.sleep(Sleep::MustNot));
    assert_eq!(
        scene.allocator.alloc_coherent(8 * PAGE, &awake).unwrap_err(),
        AllocError::MustNotSleep
    );
    assert_eq!(scene.calls(), 0);
    drop(scene.allocator.alloc_coherent(8 * PAGE, &Constraints::default()).unwrap());
    scene.calls();
    assert!(scene.allocator.alloc_coherent(8 * PAGE, &awake).is_ok());
    assert_eq!(scene.calls(), 0);
}

#[test]
fn refusals_are_told_and_nothing_is_lost() {
    let scene = pv();
    scene.platform.guest().fragment(order(9));
    let error = scene.allocator.alloc_coherent(2 << 20, &Constraints::default()).unwrap_err();
    let bits = xen_contig::addr::AddressBits::UNLIMITED;
    assert_eq!(error, ExchangeError::NoMemory { order: order(9), bits, node: Node::Any }.into());
    scene.platform.guest().relieve();
    scene.is_balanced();

    let nowhere = build(|it| it.mask(0x1fff));
    let error = scene.allocator.alloc_coherent(1, &nowhere).unwrap_err();
    let bits = xen_contig::addr::AddressBits::new(13).unwrap();
    assert_eq!(error, ExchangeError::NoMemoryBelow { bits, node: Node::Any }.into());
    let large = build(|it| it.max_segments(16));
    let error = scene.allocator.alloc_coherent(20 << 20, &large).unwrap_err();
    assert_eq!(error, AllocError::NoGuestMemory { frames: 5120 });
    scene.platform.guest().deny_exchange(Some(XenErrno::EPERM));
    let error = scene.allocator.alloc_coherent(2 * PAGE, &Constraints::default()).unwrap_err();
    assert_eq!(error, ExchangeError::NotPermitted.into());
    scene.is_balanced();
}

#[test]
fn c12_exactness_of_a_node_is_for_the_control_domain() {
    let scene = pv();
    let exact = build(|it| it.node(Node::Exactly(0)));
    let error = scene.allocator.alloc_coherent(2 * PAGE, &exact).unwrap_err();
    assert_eq!(error, ExchangeError::NodeNotPermitted { node: 0 }.into());
    scene.is_balanced();
    // [C13](xen_contig::conformance#C13): without exactness it is a hint.
    let near = build(|it| it.node(Node::Near(0)));
    assert!(scene.allocator.alloc_coherent(2 * PAGE, &near).is_ok());
}

#[test]
fn c73_when_memory_ends_midway_the_caller_chose_what_becomes_of_it() {
    let several =
        |on_refusal| build(|it| it.max_segments(4).max_segment(1 << 16).on_refusal(on_refusal));
    for on_refusal in [OnRefusal::Undo, OnRefusal::Return] {
        let scene = pv();
        // Room for two extents of order 4 and some single frames.
        scene.platform.guest().exhaust_but(40);
        let result = scene.allocator.alloc_coherent(1 << 18, &several(on_refusal));
        match (on_refusal, result) {
            (OnRefusal::Return, Ok(buffer)) => {
                assert!(buffer.len() < 1 << 18 && buffer.len().is_multiple_of(1 << 16));
                is_within(&scene, &buffer, &several(on_refusal));
            }
            (OnRefusal::Return, Err(error)) => panic!("{error}"),
            (_, Ok(_)) => panic!("there is no memory for it"),
            (_, Err(error)) => assert!(
                matches!(error, AllocError::Exchange(ExchangeError::NoMemory { .. })),
                "{error}"
            ),
        }
        scene.platform.guest().relieve();
        scene.is_balanced();
    }
}

#[test]
fn a_set_comes_with_one_flush_and_an_exchange_for_each_order() {
    let scene = pv();
    let any = Constraints::default();
    let request = |size| Request { size, constraints: any };
    let requests = [request(8 * PAGE), request(2 * PAGE + 1), request(4 * PAGE), request(7 * PAGE)];
    let buffers = scene.allocator.alloc_many(&requests).unwrap();
    // Orders 3, 2, 2 and 3: zap, flush and exchange in one, another exchange, map.
    assert_eq!(scene.calls(), 3);
    for (buffer, request) in buffers.iter().zip(&requests) {
        assert_eq!(buffer.len(), request.size);
        is_within(&scene, buffer, &any);
    }
    drop(buffers);
    scene.is_balanced();
}

#[test]
fn a_set_is_all_or_nothing() {
    let scene = pv();
    let any = Constraints::default();
    let request = |size| Request { size, constraints: any };
    let error = scene.allocator.alloc_many(&[request(PAGE), request(8 << 20)]).unwrap_err();
    let why = AllocError::OrderNotPermitted { order: order(11), limit: order(9) };
    assert_eq!(error, (1, why));
    scene.is_balanced();
}

#[test]
fn halves_know_their_addresses_and_go_back_each() {
    let scene = pv();
    let any = Constraints::default();
    let mut buffer = scene.allocator.alloc_coherent(4 * PAGE + 10, &any).unwrap();
    buffer.store(2 * PAGE, Width::Quad, 0x1234).unwrap();
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
    assert_eq!(right.load(0, Width::Quad), Ok(0x1234));
    drop(left);
    scene.platform.guest().check_whole();
    drop(right);
    scene.is_balanced();
}

#[test]
fn accesses_stay_within_the_buffer() {
    let scene = pv();
    let mut buffer = scene.allocator.alloc_coherent(10, &Constraints::default()).unwrap();
    for (offset, width, value) in
        [(0, Width::Quad, u64::MAX), (8, Width::Word, 0xabcd), (9, Width::Byte, 7)]
    {
        buffer.store(offset, width, value).unwrap();
        let mask = u64::MAX >> (64 - 8 * width.bytes());
        assert_eq!(buffer.load(offset, width), Ok(value & mask));
    }
    assert_eq!(buffer.load(8, Width::Word), Ok(0x07cd));
    for (offset, width) in [
        (10, Width::Byte),
        (9, Width::Word),
        (8, Width::Double),
        (1, Width::Word),
        (u64::MAX, Width::Quad),
    ] {
        assert!(buffer.load(offset, width).is_err() && buffer.store(offset, width, 0).is_err());
    }
    assert!(buffer.read(5, &mut [0; 6]).is_err() && buffer.write(u64::MAX, &[0]).is_err());
    buffer.write(3, b"abc").unwrap();
    let mut text = [0; 3];
    buffer.read(3, &mut text).unwrap();
    assert_eq!(&text, b"abc");
}

#[test]
fn giving_back_later_makes_no_hypercall_until_then() {
    let scene = DmaScene::new(FakeGuest::new(4096), GiveBack::Later);
    let any = Constraints::default();
    let buffers: Vec<Buffer<'_>> =
        (0..4).map(|_| scene.allocator.alloc_coherent(8 * PAGE, &any).unwrap()).collect();
    scene.calls();
    drop(buffers);
    assert_eq!((scene.calls(), scene.allocator.stats().waiting), (0, 32));

    scene.platform.guest().exhaust_but(0);
    let report = scene.allocator.give_back_waiting();
    assert_eq!((report.given, report.kept), (0, 32));
    assert!(matches!(report.error, Some(ExchangeError::NoMemory { .. })));
    assert_eq!(scene.allocator.stats().waiting, 32, "they are tried again");
    scene.platform.guest().relieve();
    let report = scene.allocator.give_back_waiting();
    assert_eq!((report.given, report.kept, report.error), (32, 0, None));
    assert_eq!(scene.allocator.stats().below_4g, 0);
    scene.is_balanced();
}

#[test]
fn a_translated_guest_finds_frames_below_the_mask_or_says_so() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    let low = build(|it| it.mask(2048 * PAGE - 1).align(1 << 16));
    let buffer = scene.allocator.alloc_coherent(100_000, &low).unwrap();
    assert!(low.admits(buffer.dma_addr().get(), 100_000));
    assert_eq!(scene.calls(), 0);
    let error = scene.allocator.alloc_coherent(2048 * PAGE, &low).unwrap_err();
    let mask = 2048 * PAGE - 1;
    let named = AllocError::NoFramesInReach { frames: 2048, align: 1 << 16, lowest: 0, mask };
    assert_eq!(error, named);
    drop(buffer);
    scene.is_balanced();
}

#[test]
fn a_translated_guest_can_have_one_extent_beneath_a_buffer() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    let whole = build(|it| it.backing(Backing::OneExtent).mask(2048 * PAGE - 1));
    for size in [1, 8 * PAGE, 9 * PAGE, 2 << 20] {
        let buffer = scene.allocator.alloc_coherent(size, &whole).unwrap();
        assert!(whole.admits(buffer.dma_addr().get(), size));
        let beneath = |pfn| scene.platform.guest().mfn(pfn).unwrap().number();
        let first = beneath(buffer.frames().first());
        assert!((first..).zip(buffer.frames().iter()).all(|(mfn, pfn)| beneath(pfn) == mfn));
        assert_eq!(buffer.load(0, Width::Byte), Ok(0));
        drop(buffer);
        scene.is_balanced();
    }
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    scene.platform.guest().fragment(order(3));
    let error = scene.allocator.alloc_coherent(8 * PAGE, &whole).unwrap_err();
    assert!(matches!(error, AllocError::Exchange(ExchangeError::NoMemory { .. })), "{error}");
    scene.platform.guest().relieve();
    scene.is_balanced();
    let error = scene.allocator.alloc_coherent(4 << 20, &whole).unwrap_err();
    assert_eq!(error, AllocError::OrderNotPermitted { order: order(10), limit: order(9) });
}

#[test]
fn memory_in_one_piece_serves_a_device_of_short_segments() {
    let several = build(|it| it.max_segment(1 << 15).max_segments(4).align(1 << 13));
    let pvh = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    let pv = DmaScene::new(FakeGuest::new(4096), GiveBack::Keep);
    drop(pv.allocator.alloc_coherent(1 << 17, &several).unwrap());
    for scene in [pvh, pv] {
        scene.calls();
        let buffer = scene.allocator.alloc_coherent(100_000, &several).unwrap();
        let lengths: Vec<u64> = buffer.segments().iter().map(|segment| segment.len).collect();
        assert_eq!(lengths, [1 << 15, 1 << 15, 1 << 15, 100_000 - 3 * (1 << 15)]);
        let first = buffer.dma_addr().get();
        for segment in buffer.segments() {
            assert!(several.admits(segment.dma.get(), segment.len), "{buffer:?}");
        }
        drop(buffer);
        assert!(first.is_multiple_of(1 << 13));
        scene.is_balanced();
    }
}

#[test]
fn what_waits_survives_its_allocator() {
    let scene = DmaScene::new(FakeGuest::new(4096), GiveBack::Later);
    let buffer = scene.allocator.alloc_coherent(8 * PAGE, &Constraints::default()).unwrap();
    drop(buffer);
    assert_eq!(scene.platform.free_frames(), scene.free - 8);
    let DmaScene { platform, allocator, free } = scene;
    drop(allocator);
    assert_eq!(platform.free_frames(), free);
    platform.guest().check_whole();
}

#[test]
fn c75_a_buffer_that_was_moved_says_so() {
    let scene = pv();
    let buffer = scene.allocator.alloc_coherent(4 * PAGE, &Constraints::default()).unwrap();
    assert_eq!(buffer.check_in_place(), Ok(()));
    // What a restored kernel finds: another machine frame beneath the third page.
    let pfn = buffer.frames().first().add(2);
    let other = scene.platform.guest().mfn(buffer.frames().first()).unwrap();
    let before = scene.platform.guest().forge(pfn, other);
    let Err(BufferError::Moved(moved)) = buffer.check_in_place() else { panic!("in place") };
    assert_eq!((moved.offset, moved.told.frame().number()), (2 * PAGE, before.number()));
    assert_eq!(moved.found.unwrap().frame().number(), other.number());
    let (said, found) = (moved.to_string(), moved.found.unwrap());
    assert!(said.contains(&format!("offset {} was at {}", moved.offset, moved.told)), "{said}");
    assert!(said.contains(&format!("at {found}: allocate anew")), "{said}");
    scene.platform.guest().forge(pfn, before);
    assert_eq!(buffer.check_in_place(), Ok(()));
}

#[test]
fn a_forgotten_buffer_leaks_and_is_safe() {
    let scene = pv();
    let buffer = scene.allocator.alloc_coherent(PAGE, &Constraints::default()).unwrap();
    std::mem::forget(buffer);
    assert_eq!(scene.platform.free_frames(), scene.free - 1);
    scene.platform.guest().check_whole();
}

/// How many frames the guest has below 16 MiB, by the machine.
fn low_frames(scene: &DmaScene) -> u64 {
    let guest = scene.platform.guest();
    let low = |pfn| guest.mfn(pfn).is_some_and(|mfn| mfn.number() < 4096);
    (0..guest.frames()).filter(|pfn| low(Pfn::new(*pfn))).count() as u64
}

/// In the upper three quarters of its machine; the lower quarter is below 16 MiB and free.
fn high(frames: u64, policy: GiveBack) -> DmaScene {
    let guest = GuestBuilder::new(frames).machine_frames(16_384).build();
    let scene = DmaScene::new(guest, policy);
    assert!(low_frames(&scene) < 64, "{}", low_frames(&scene));
    scene
}

#[test]
fn low_memory_is_counted_whatever_becomes_of_it() {
    let below_16m = build(|it| it.mask((16 << 20) - 1).align(1 << 16));
    for policy in [GiveBack::Keep, GiveBack::Later, GiveBack::AtOnce] {
        let scene = high(1024, policy);
        let before = low_frames(&scene);
        let counted = |what| {
            let more = low_frames(&scene).saturating_sub(before);
            assert_eq!(scene.allocator.stats().below_16m, more, "{policy:?}: {what}");
            more
        };
        // One page is asked for, 16 come: the others are ordinary memory, and low all the same.
        let buffer = scene.allocator.alloc_coherent(PAGE, &below_16m).unwrap();
        assert!(counted("a surplus") > 8);
        drop(buffer);
        counted("a drop");
        scene.allocator.give_back_waiting();
        counted("given back");
        // Low memory is what comes, and no memory of the machine's is high enough.
        let beyond = build(|it| it.lowest(1 << 40));
        scene.platform.guest().exhaust_but(3000);
        assert!(scene.allocator.alloc_coherent(8 * PAGE, &beyond).is_err());
        counted("out of reach");
        let several = below_16m.to_builder().align(1).max_segments(4).max_segment(1 << 15);
        let several = several.build().unwrap();
        scene.platform.guest().exhaust_but(20);
        assert!(scene.allocator.alloc_coherent(1 << 17, &several).is_err());
        counted("undone");
    }
}

#[test]
fn asking_whether_there_is_memory_at_all_uses_up_none() {
    let scene = high(1024, GiveBack::Keep);
    scene.platform.guest().fragment(order(1));
    let low = build(|it| it.mask((16 << 20) - 1));
    let before = low_frames(&scene);
    for _ in 0..20 {
        let error = scene.allocator.alloc_coherent(4 * PAGE, &low).unwrap_err();
        assert!(matches!(error, AllocError::Exchange(ExchangeError::NoMemory { .. })), "{error}");
    }
    assert_eq!((low_frames(&scene), scene.allocator.stats().below_16m), (before, 0));
    scene.platform.guest().relieve();
    scene.is_balanced();
}

#[test]
fn what_went_back_is_not_given_back_again() {
    let scene = DmaScene::new(FakeGuest::new(4096), GiveBack::Later);
    let two = build(|it| it.max_segments(2));
    drop(scene.allocator.alloc_coherent(4 << 20, &two).unwrap());
    // Two tables are unhooked in a multicall of three, and of two steps of 512 frames Xen refuses the
    // second.
    scene.platform.guest().xen().arm(Fault::refuse(5, XenErrno::ENOMEM));
    let report = scene.allocator.give_back_waiting();
    assert_eq!((report.given, report.kept, report.quarantined), (512, 512, 0), "{report:?}");
    assert_eq!(scene.allocator.stats().waiting, report.kept);
    assert_eq!(scene.platform.free_frames(), scene.free - report.kept);
    let rest = scene.allocator.give_back_waiting();
    assert_eq!((rest.given, scene.allocator.stats().given_back), (report.kept, 1024));
    scene.is_balanced();
}

#[test]
fn what_waits_goes_back_when_the_guest_runs_out() {
    let scene = DmaScene::new(GuestBuilder::new(64).build(), GiveBack::Later);
    drop(scene.allocator.alloc_coherent(32 * PAGE, &Constraints::default()).unwrap());
    assert_eq!(scene.allocator.stats().waiting, 32);
    // More than is free beside it.
    let buffer = scene.allocator.alloc_coherent(31 * PAGE, &Constraints::default()).unwrap();
    assert_eq!(scene.allocator.stats().waiting, 0);
    drop(buffer);
    assert_eq!(scene.allocator.give_back_waiting().kept, 0);
    scene.is_balanced();
}

#[test]
fn what_lies_nowhere_is_refused_before_anything_moves() {
    let scene = pv();
    for (constraints, size) in [
        (build(|it| it.mask(0xf_ffff)), (1 << 20) + 1),
        (build(|it| it.mask(0xffff).lowest(0x8000)), 0x8001),
        (build(|it| it.mask(0xffff).max_segments(4).max_segment(1 << 17)), 0x10001),
    ] {
        let (lowest, mask) = (constraints.lowest(), constraints.mask());
        let error = scene.allocator.alloc_coherent(size, &constraints).unwrap_err();
        assert_eq!(error, AllocError::LargerThanReach { size, align: PAGE, lowest, mask });
        assert_eq!(scene.calls(), 0, "{error}");
    }
    scene.is_balanced();
}

#[test]
fn one_extent_is_one_extent_in_a_set_and_without_a_right_to_any() {
    let guest = || GuestBuilder::new(4096).translated().build();
    let scene = DmaScene::new(guest(), GiveBack::Later);
    let whole = build(|it| it.backing(Backing::OneExtent));
    let request = |size, constraints| Request { size, constraints };
    let requests = [request(8 * PAGE, whole), request(PAGE, Constraints::default())];
    let buffers = scene.allocator.alloc_many(&requests).unwrap();
    let beneath = |pfn| scene.platform.guest().mfn(pfn).unwrap().number();
    let first = beneath(buffers[0].frames().first());
    assert!((first..).zip(buffers[0].frames().iter()).all(|(mfn, pfn)| beneath(pfn) == mfn));
    drop(buffers);
    // Xen exchanges nothing of a translated guest's, so there is nothing to wait for.
    assert_eq!(scene.allocator.stats().waiting, 0);
    scene.is_balanced();

    let denied = guest();
    // The first question is whether a single frame may be exchanged.
    denied.xen().arm(Fault::refuse(1, XenErrno::EPERM));
    let scene = DmaScene::new(denied, GiveBack::Keep);
    let Capability::None { why } = scene.allocator.capability() else { panic!("not denied") };
    let error = scene.allocator.alloc_coherent(8 * PAGE, &whole).unwrap_err();
    assert_eq!(error, AllocError::NoExchange(why));
}

#[test]
fn an_extent_lies_beneath_frames_that_superpages_can_map() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    let whole = build(|it| it.backing(Backing::OneExtent));
    let other = scene.allocator.alloc_coherent(PAGE, &Constraints::default()).unwrap();
    let buffer = scene.allocator.alloc_coherent(2 << 20, &whole).unwrap();
    assert!(buffer.frames().first().number().is_multiple_of(512), "{buffer:?}");
    drop((other, buffer));
    scene.is_balanced();
}

#[test]
fn c77_frames_that_do_not_come_back_are_told() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    let whole = build(|it| it.backing(Backing::OneExtent));
    // The toolstack lowers the target while the guest runs.
    scene.platform.guest().set_max_pages(3000);
    let error = scene.allocator.alloc_coherent(16 * PAGE, &whole).unwrap_err();
    let AllocError::Lost { frames: 16, .. } = error else { panic!("{error:?}") };
    assert!(
        error
            .to_string()
            .ends_with("16 frames of the guest could not be brought back and are quarantined")
    );
}

#[test]
fn errors_say_what_can_be_done() {
    let scene = pv();
    let mut buffer = scene.allocator.alloc_coherent(2 * PAGE, &Constraints::default()).unwrap();
    let error = buffer.split_off(100).unwrap_err();
    let told = "a buffer of 8192 bytes cannot be split at 100: choose a multiple of 4096 within it";
    assert_eq!(error.to_string(), told);
}

#[test]
fn a_lowest_address_above_a_power_of_two_is_in_reach() {
    // The guest has the last 16 MiB of the machine, and the 4 MiB from 64 MiB on are free.
    let guest = GuestBuilder::new(4096).machine_frames(84 << 20 >> 12).build();
    let scene = DmaScene::new(guest, GiveBack::AtOnce);
    for (lowest, mask) in [(64 << 20, 90 << 20), ((64 << 20) - PAGE, 90 << 20)] {
        let high = build(|it| it.lowest(lowest).mask(mask));
        for size in [1, 2 * PAGE, 3 * PAGE] {
            is_within(&scene, &scene.allocator.alloc_coherent(size, &high).unwrap(), &high);
            scene.is_balanced();
        }
    }
}

#[test]
fn a_translated_guest_finds_what_is_far_behind_its_first_frames() {
    const FRAMES: u64 = 1 << 16;
    let scene = DmaScene::new(GuestBuilder::new(FRAMES).translated().build(), GiveBack::AtOnce);
    let (far, most) = (FRAMES * PAGE * 3 / 4, FRAMES * PAGE - 1);
    let devices = [
        build(|it| it.lowest(far)),
        build(|it| it.lowest(far).mask(most).boundary(1 << 16)),
        build(|it| it.align(FRAMES * PAGE / 2).lowest(1)),
        build(|it| it.lowest(far).backing(Backing::OneExtent)),
        // Above the order limit, which is of what lies beneath.
        build(|it| it.align(FRAMES * PAGE / 4).lowest(1).backing(Backing::OneExtent)),
        build(|it| it.lowest(far).max_segment(1 << 15).max_segments(16)),
    ];
    for constraints in &devices {
        for size in [1, 5 * PAGE, 1 << 15] {
            let buffer = scene.allocator.alloc_coherent(size, constraints).unwrap();
            assert!(constraints.admits(buffer.dma_addr().get(), size), "{buffer:?}");
        }
        scene.is_balanced();
    }
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let scene =
        DmaScene::new(GuestBuilder::new(4096).privileged().max_order(18).build(), GiveBack::AtOnce);
    let below = |bits: u32, node| build(|it| it.mask((1 << bits) - 1).node(Node::Exactly(node)));
    for (constraints, bits) in [(build(|it| it.node(Node::Exactly(2))), 64), (below(30, 2), 30)] {
        for (size, log) in [(PAGE, 0), (4 * PAGE, 2)] {
            let error = scene.allocator.alloc_coherent(size, &constraints).unwrap_err();
            let (order, bits) = match bits {
                // Where a limit is in the way a single frame is asked for as well, and refused.
                30 => (order(0), AddressBits::new(30).unwrap()),
                _ => (order(log), AddressBits::UNLIMITED),
            };
            assert_eq!(error, AllocError::NoMemoryOnNode { node: 2, order, bits });
            assert!(error.to_string().contains("node 2"), "{error}");
        }
    }
    assert!(scene.allocator.alloc_coherent(PAGE, &below(30, 0)).is_ok());
    scene.is_balanced();
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    for backing in [Backing::Whatever, Backing::OneExtent] {
        let exact = build(|it| it.node(Node::Exactly(3)).backing(backing));
        let error = scene.allocator.alloc_coherent(1, &exact).unwrap_err();
        assert_eq!(error, AllocError::NodeNotTold { node: 3 });
        assert!(scene.allocator.alloc_coherent(1, &build(|it| it.node(Node::Near(3)))).is_ok());
    }
    scene.is_balanced();
}

#[test]
fn one_extent_that_cannot_be_is_refused_by_its_own_size() {
    let scene = DmaScene::new(GuestBuilder::new(4096).translated().build(), GiveBack::AtOnce);
    let whole = |max_segment| {
        build(|it| it.backing(Backing::OneExtent).max_segments(16).max_segment(max_segment))
    };
    let error =
        |size, max_segment| scene.allocator.alloc_coherent(size, &whole(max_segment)).unwrap_err();
    let above = AllocError::OrderNotPermitted { order: order(10), limit: order(9) };
    assert_eq!(error((2 << 20) + 1, u64::MAX), above);
    let long = AllocError::SegmentTooLong { size: 2 * PAGE, max_segment: PAGE };
    assert_eq!(error(2 * PAGE, PAGE), long);
    scene.is_balanced();
}

#[test]
fn without_memory_for_lists_nothing_moves_and_it_is_said() {
    let scene = pv();
    let any = Constraints::default();
    let buffer = scene.allocator.alloc_coherent(8 * PAGE, &any).unwrap();
    scene.calls();
    scene.platform.deny_lists(true);
    drop(buffer);
    let stats = scene.allocator.stats();
    assert_eq!((stats.refusals, stats.waiting, stats.given_back), (1, 8, 0));
    let error = scene.allocator.alloc_coherent(16 * PAGE, &any).unwrap_err();
    assert_eq!(error, AllocError::NoListMemory { words: 16 + 16 });
    let request = Request { size: 16 * PAGE, constraints: any };
    assert_eq!(scene.allocator.alloc_many(&[request, request]).unwrap_err(), (0, error));
    let report = scene.allocator.give_back_waiting();
    let short = ExchangeError::ListTooShort { needed: 16, len: 0 };
    assert_eq!((report.given, report.kept, report.error), (0, 8, Some(short)));
    assert_eq!(scene.calls(), 0);
    scene.platform.deny_lists(false);
    assert_eq!(scene.allocator.give_back_waiting().given, 8);
    scene.is_balanced();
}

#[test]
fn what_finds_no_place_to_wait_is_counted() {
    let scene = DmaScene::new(FakeGuest::new(4096), GiveBack::AtOnce);
    let any = Constraints::default();
    let buffers: Vec<Buffer<'_>> =
        (0..80).map(|_| scene.allocator.alloc_coherent(2 * PAGE, &any).unwrap()).collect();
    scene.platform.guest().exhaust_but(0);
    drop(buffers);
    let stats = scene.allocator.stats();
    assert_eq!((stats.refusals, stats.waiting, stats.crowded_out), (80, 128, 32));
    scene.platform.guest().relieve();
    assert_eq!(scene.allocator.give_back_waiting().given, 128);
    scene.is_balanced();
}

#[test]
fn advice_is_for_what_can_be() {
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
    let span = Span::Operation("alloc_coherent");
    let marks = || scene.platform.guest().xen().take_marks();
    for (size, succeeds) in [(PAGE, true), (0, false)] {
        assert_eq!(scene.allocator.alloc_coherent(size, &Constraints::default()).is_ok(), succeeds);
        let marks = marks();
        assert_eq!(marks.first(), Some(&Mark::Enter(span)));
        assert_eq!(marks.last(), Some(&Mark::Leave(span)));
    }
}

/// Values at which an unchecked sum, product or shift goes wrong.
const EXTREMES: [u64; 10] =
    [0, 1, 2, PAGE - 1, PAGE, 1 << 30, 1 << 52, 1 << 63, u64::MAX - PAGE + 1, u64::MAX];

#[test]
fn no_value_makes_a_public_constructor_overflow() {
    let (mut built, mut pools) = (0, 0);
    for (mask, lowest) in EXTREMES.iter().flat_map(|mask| EXTREMES.map(|lowest| (*mask, lowest))) {
        for (align, boundary) in EXTREMES.iter().flat_map(|a| EXTREMES.map(|b| (*a, b))) {
            for (bytes, segments) in EXTREMES.into_iter().zip([16, usize::MAX].into_iter().cycle())
            {
                let builder = Constraints::builder().mask(mask).lowest(lowest).align(align);
                let builder = builder.boundary(boundary).max_segment(bytes);
                let _refused_or_not = builder.max_segments(segments).build();
                let Ok(device) = builder.max_segments(4).build() else { continue };
                built += 1;
                let _placements = (device.placement(), device.wider_placement());
                for size in EXTREMES {
                    let _admitted = device.admits(bytes, size);
                    for limit in [Order::ZERO, order(9), Order::MAX] {
                        let Ok(layout) = Layout::new(size, &device, limit) else { continue };
                        assert!(layout.frames() >= layout.used_frames());
                    }
                    let pool = PoolConfig::builder("extreme", size).align(bytes).chunk(align);
                    let pool = pool.limit(bytes).reserve(lowest).constraints(device);
                    pools += usize::from(pool.build().is_ok());
                }
            }
        }
    }
    assert!(built > 1000 && pools > 10, "{built} {pools}");
}
