//! Sizes and limits at their edges, and errors.

use std::ptr::NonNull;

use xen_contig::addr::{Mfn, Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, BufferError, Constraints, ConstraintsBuilder, Device, Direction, FailureCause,
    MapError, Segment, Sleep,
};

use xen_contig::paging::GuestMemory;
use xen_contig::platform::Platform;

use crate::memory::{DriverMemory, load, noise, store};
use crate::random::Random;
use crate::scene::{KINDS, Kernel, KernelMapping, ModelDevice, PAGE, StreamingScene};

const BOTH: Direction = Direction::Bidirectional;

fn build(builder: ConstraintsBuilder) -> Constraints {
    builder.build().unwrap()
}

/// Maps a range of the test's memory.
fn map<'d>(
    device: &'d Device<'_, Kernel>,
    range: NonNull<[u8]>,
    direction: Direction,
) -> Result<KernelMapping<'d>, MapError> {
    // SAFETY: the range is memory of the test, which does not access it while the device may.
    unsafe { device.map(range, direction) }
}

/// Maps a range, lets a device read and replace all bytes, and checks them. Returns the segments.
fn round_trip(scene: &StreamingScene, range: NonNull<[u8]>, limits: Constraints) -> Vec<Segment> {
    let mut random = Random(range.len() as u64);
    let (first, second) =
        (noise(&mut random, range.len() as u64), noise(&mut random, range.len() as u64));
    store(&[range], 0, &first);
    let device = scene.device(limits);
    let mapping = map(&device, range, BOTH).unwrap();
    let segments = mapping.segments().collect();
    let model = ModelDevice::new(scene.guest(), &mapping);
    assert!(model.reads(0..mapping.len()) == first);
    model.writes(0, &second);
    drop(mapping);
    assert!(load(&[range]) == second);
    segments
}

#[test]
fn odd_sizes_are_mapped_everywhere() {
    for kind in KINDS {
        let scene = StreamingScene::new(4096, kind);
        let any = Constraints::default();
        let list = build(Constraints::builder().max_segments(usize::MAX));
        let low = build(list.to_builder().mask((1 << 23) - 1));
        for memory in [
            DriverMemory::heap(516),
            DriverMemory::scattered(&scene, 516),
            DriverMemory::contiguous(&scene, 516, &list),
        ] {
            for offset in [0, 1, 4095] {
                for len in [1, 2, 4096, 4097, 40_000, 257 << 12, (2 << 20) + 1] {
                    for limits in [any, list, low] {
                        // The longest takes long, and one segment is not enough.
                        if len > 1 << 20 && (limits != list || offset == 1) {
                            continue;
                        }
                        let segments = round_trip(&scene, memory.range(offset, len), limits);
                        assert!(segments.len() <= limits.max_segments());
                        assert_eq!(segments[0].dma.get() % PAGE, offset, "{len}: {limits:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn memory_in_reach_is_mapped_in_place_without_a_hypercall() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let memory = DriverMemory::contiguous(&scene, 4, &Constraints::default());
        let device = scene.device(build(Constraints::builder().align(1 << 16)));
        let (range, free) = (memory.range(100, 9000), scene.platform.free_frames());
        scene.take_calls();
        let mapping = map(&device, range, BOTH).unwrap();
        assert_eq!((mapping.is_direct(), mapping.bounced_bytes(), mapping.len()), (true, 0, 9000));
        // The alignment of coherent buffers has no effect.
        assert_eq!(device.needs_bounce(range), Ok(false));
        let segments: Vec<_> = mapping.segments().map(|it| (it.offset, it.len)).collect();
        assert_eq!(segments, [(0, 9000)]);
        drop(mapping);
        assert_eq!((scene.take_calls(), scene.platform.free_frames()), (0, free));
    }
}

#[test]
fn neighbours_in_the_machine_are_one_segment_across_ranges() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let memory = DriverMemory::contiguous(&scene, 4, &Constraints::default());
        let list = [memory.range(100, 50), memory.range(150, 8000), memory.range(8150, 1)];
        let device = scene.device(Constraints::default());
        // SAFETY: the ranges are memory of the test, which does not access it.
        let mapping = unsafe { device.map_list(&list, BOTH) }.unwrap();
        let segments: Vec<_> = mapping.segments().map(|it| (it.offset, it.len)).collect();
        assert_eq!((mapping.is_direct(), &segments[..]), (true, &[(0, 8051)][..]));
    }
}

/// The offset stays in each bounced page, rounded down to the alignment.
#[test]
fn a_bounced_page_keeps_the_offset_in_the_page() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let memory = DriverMemory::heap(4);
        let list = [memory.range(0x123, 0x1000), memory.range(0x2ffe, 4)];
        for (align, offsets) in
            [(1, [0x123, 0, 0xffe, 0]), (4, [0x120, 0, 0xffc, 0]), (512, [0, 0, 0xe00, 0])]
        {
            let limits = Constraints::builder().streaming_align(align).max_segment(4096);
            let device = scene.device(build(limits.boundary(4096).max_segments(4)));
            // SAFETY: the ranges are memory of the test, which does not access it.
            let mapping = unsafe { device.map_list(&list, BOTH) }.unwrap();
            let found: Vec<_> = mapping.segments().map(|it| it.dma.get() % PAGE).collect();
            assert_eq!(found, offsets, "alignment {align}");
        }
        // One segment: the first offset is kept, and the rest follows.
        let device = scene.device(Constraints::default());
        // SAFETY: the ranges are memory of the test, which does not access it.
        let mapping = unsafe { device.map_list(&list, BOTH) }.unwrap();
        let found: Vec<_> = mapping.segments().map(|it| (it.dma.get() % PAGE, it.len)).collect();
        assert_eq!(found, [(0x123, 0x1004)]);
    }
}

#[test]
fn another_mapping_of_memory_in_reach_is_bounced() {
    let scene = StreamingScene::new(1024, KINDS[0]);
    let memory = DriverMemory::area(&scene, 2);
    let device = scene.device(build(Constraints::builder().max_segments(2)));
    assert_eq!(device.needs_bounce(memory.range(5, 5000)), Ok(true));
    let mapping = map(&device, memory.range(5, 5000), BOTH).unwrap();
    assert_eq!(mapping.bounced_bytes(), 5000);
}

#[test]
fn impossible_requests_are_errors() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let device = scene.device(Constraints::default());
        let memory = DriverMemory::heap(1);
        let range = |address: usize, len| {
            let pointer = std::ptr::without_provenance_mut(address);
            NonNull::slice_from_raw_parts(NonNull::new(pointer).unwrap(), len)
        };
        assert_eq!(map(&device, memory.range(0, 0), BOTH).unwrap_err(), MapError::Empty);
        for list in [&[][..], &[range(9, 0)][..]] {
            // SAFETY: the lists have no byte.
            assert_eq!(unsafe { device.map_list(list, BOTH) }.unwrap_err(), MapError::Empty);
        }
        let past = device.needs_bounce(range(16, usize::MAX)).unwrap_err();
        assert_eq!(past, MapError::PastAddressSpace { address: 16, bytes: u64::MAX });
        let guest = 1024 * PAGE;
        for (address, len) in
            [(1, usize::MAX - 1), (1, guest as usize + 1), (4096, isize::MAX as usize)]
        {
            let bytes = len as u64;
            let error = device.needs_bounce(range(address, len)).unwrap_err();
            assert_eq!(error, MapError::LargerThanGuest { bytes, guest });
            assert!(!error.is_transient());
        }
        assert_eq!(device.needs_bounce(range(1, 4096)), Ok(true));
        assert_eq!(
            device.needs_bounce(range(usize::MAX, 1)).unwrap_err(),
            MapError::PastAddressSpace { address: u64::MAX, bytes: 1 }
        );
        assert_eq!(device.needs_bounce(range(usize::MAX - 1, 1)), Ok(true));
        drop(device);
        scene.check_balance(0);
    }
}

#[test]
fn a_page_that_nothing_backs_is_named() {
    let scene = StreamingScene::new(1024, KINDS[0]);
    let run = scene.platform.take(3, 1).unwrap();
    let pointer = scene.guest().pointer(run.first());
    let start = NonNull::new(pointer.wrapping_add(100)).unwrap();
    let range = NonNull::slice_from_raw_parts(start, 2 * PAGE_SIZE);
    let device = scene.device(build(Constraints::builder().max_segments(3)));
    let pfn = run.first().add(1);
    let before = scene.guest().forge(pfn, Mfn::new(u64::MAX));
    let error = map(&device, range, BOTH).unwrap_err();
    assert_eq!(error, MapError::NotBacked { offset: PAGE - 100, pfn });
    assert!(error.is_transient());
    scene.guest().forge(pfn, before);
    assert!(map(&device, range, BOTH).is_ok());
}

/// Ten thousand ranges of a few bytes: a bit of the mapping stands for 32 of them.
#[test]
fn a_list_can_have_ten_thousand_ranges() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let any = build(Constraints::builder().max_segments(usize::MAX));
        let (linear, heap) = (DriverMemory::scattered(&scene, 64), DriverMemory::heap(1));
        let mut list: Vec<_> = (0..10_000).map(|at| linear.range(at * 26, 25)).collect();
        list[5000] = heap.range(7, 25);
        let content = noise(&mut Random(9), 250_000);
        store(&list, 0, &content);
        for (limits, bounced) in [
            (any, 32 * 25..34 * 25),
            (build(any.to_builder().max_segments(9000)), 250_000..250_001),
        ] {
            let device = scene.device(limits);
            // SAFETY: the ranges are memory of the test, which does not access it.
            let mapping = unsafe { device.map_list(&list, Direction::FromDevice) }.unwrap();
            assert!(bounced.contains(&mapping.bounced_bytes()), "{mapping:?}");
            let model = ModelDevice::new(scene.guest(), &mapping);
            assert!(model.reads(0..250_000) == content);
            model.writes(125_000, b"by the device");
            drop(mapping);
            let mut expected = content.clone();
            expected[125_000..125_013].copy_from_slice(b"by the device");
            assert!(load(&list) == expected);
            store(&list, 0, &content);
        }
    }
}

/// As many bytes as the limit says can be mapped wherever they lie, and not one more.
#[test]
fn the_longest_mapping_is_as_long_as_the_device_says() {
    let new = Constraints::builder;
    for (limits, pv, translated) in [
        (new(), 2 << 20, 1 << 30),
        (new().max_segment(4096), 4096, 4096),
        (new().boundary(64).max_segment(512), 64, 64),
        (new().boundary(64).max_segment(512).max_segments(3), 192, 192),
        (new().boundary(4096).max_segment(512).max_segments(3), 1536, 1536),
        (new().max_segment(5000).max_segments(2), 10_000, 10_000),
        (new().max_segment(5000).max_segments(2).streaming_align(4096), 4096 + 5000, 4096 + 5000),
        (new().max_segment(512).streaming_align(4096).max_segments(9), 512, 512),
        (new().max_segments(3), 6 << 20, 1 << 30),
        (new().max_segments(usize::MAX), 1 << 30, 1 << 30),
        (new().mask(0x3ffff).lowest(0x1000), 0x20000, 0x20000),
        (new().mask(0xffff).lowest(0x1000).max_segments(16), 0xf000, 0xf000),
    ] {
        for (kind, max) in KINDS.into_iter().zip([pv, translated]) {
            let scene = StreamingScene::new(256, kind);
            let device = scene.device(build(limits));
            assert_eq!(device.max_mapping(), max, "{limits:?}");
            if max > 16 << 12 {
                continue;
            }
            let memory = DriverMemory::heap(max.div_ceil(PAGE) + 2);
            for offset in [0, 4095] {
                let is_mapped = map(&device, memory.range(offset, max), BOTH);
                match is_mapped {
                    Ok(mapping) => assert!(mapping.segments().count() <= device_segments(&limits)),
                    // The model's Xen has little memory so low.
                    Err(error) => assert!(error.is_transient(), "{limits:?}: {error}"),
                }
            }
            let error = map(&device, memory.range(0, max + 1), BOTH).unwrap_err();
            let MapError::TooLong { bytes, max: named, .. } = error else { panic!("{error}") };
            assert_eq!((bytes, named, error.is_transient()), (max + 1, max, false));
        }
    }
}

/// The order limit of Xen counts, too, and the offset gives way to it.
#[test]
fn a_mapping_of_one_segment_can_be_as_long_as_an_extent() {
    let scene = StreamingScene::new(2048, KINDS[0]);
    let (device, memory) = (scene.device(Constraints::default()), DriverMemory::heap(514));
    let mapping = map(&device, memory.range(4095, 2 << 20), BOTH).unwrap();
    assert_eq!((mapping.segments().count(), mapping.bounced_bytes()), (1, 2 << 20));
    let error = map(&device, memory.range(0, (2 << 20) + 1), BOTH).unwrap_err();
    let [order, limit] = [10, 9].map(|order| Order::new(order).unwrap());
    let limit = AllocError::OrderNotPermitted { order, limit };
    let (bytes, max) = ((2 << 20) + 1, 2 << 20);
    assert_eq!(error, MapError::TooLong { bytes, max, limit });
}

fn device_segments(limits: &ConstraintsBuilder) -> usize {
    build(*limits).max_segments()
}

#[test]
fn ranges_of_a_sync_are_checked() {
    let scene = StreamingScene::new(1024, KINDS[0]);
    for memory in [DriverMemory::heap(1), DriverMemory::scattered(&scene, 1)] {
        let device = scene.device(Constraints::default());
        let mut mapping = map(&device, memory.range(0, 100), BOTH).unwrap();
        let out = |offset, bytes| Err(BufferError::OutOfBounds { offset, bytes, len: 100 });
        for (range, expected) in [
            (0..100, Ok(())),
            (100..100, Ok(())),
            (0..101, out(0, 101)),
            (101..101, out(101, 0)),
            (7..u64::MAX, out(7, u64::MAX - 7)),
            (std::ops::Range { start: u64::MAX, end: 1 }, out(u64::MAX, 0)),
        ] {
            assert_eq!(mapping.sync_for_cpu(range.clone()), expected);
            assert_eq!(mapping.sync_for_device(range), expected);
        }
    }
}

#[test]
fn a_caller_that_must_not_sleep_gets_memory_of_the_reserve_or_an_error() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let device = scene.device(build(Constraints::builder().sleep(Sleep::MustNot)));
        let memory = DriverMemory::heap(2);
        let error = map(&device, memory.range(0, 5000), BOTH).unwrap_err();
        assert_eq!(
            error,
            MapError::NoBounceMemory { bytes: 5000, error: AllocError::MustNotSleep }
        );
        assert!(error.is_transient());
        scene.allocator.alloc_coherent(8 * PAGE, &Constraints::default()).map(drop).unwrap();
        scene.take_calls();
        assert_eq!(map(&device, memory.range(0, 5000), BOTH).unwrap().bounced_bytes(), 5000);
        assert_eq!(scene.take_calls(), 0);
        drop(device);
        scene.check_balance(0);
    }
}

#[test]
fn bytes_that_a_device_only_reads_are_not_copied_back() {
    let scene = StreamingScene::new(1024, KINDS[0]);
    let memory = DriverMemory::heap(1);
    let range = memory.range(10, 100);
    store(&[range], 0, &[7; 100]);
    let device = scene.device(Constraints::default());
    let mut mapping = map(&device, range, Direction::ToDevice).unwrap();
    store(&[range], 0, &[8; 100]);
    mapping.sync_for_cpu(0..100).unwrap();
    assert_eq!(ModelDevice::new(scene.guest(), &mapping).reads(0..100), [7; 100]);
    drop(mapping);
    assert_eq!(load(&[range]), [8; 100]);
}

#[test]
fn a_mapping_says_that_its_memory_moved() {
    let scene = StreamingScene::new(1024, KINDS[0]);
    let (linear, heap) = (DriverMemory::scattered(&scene, 2), DriverMemory::heap(1));
    let list = [linear.range(0, 2 * PAGE), heap.range(0, 8)];
    store(&list, 0, &[3; 2 * PAGE_SIZE + 8]);
    let device = scene.device(build(Constraints::builder().max_segments(3)));
    // SAFETY: the ranges are memory of the test, which does not access it.
    let mapping = unsafe { device.map_list(&list, BOTH) }.unwrap();
    assert_eq!((mapping.check_in_place(), mapping.bounced_bytes()), (Ok(()), 8));
    let frames: Vec<Pfn> = mapping
        .segments()
        .map(|segment| scene.guest().pfn(Mfn::new(segment.dma.get() / PAGE)).unwrap())
        .collect();
    for (pfn, bounce) in frames.iter().zip([false, false, true]) {
        let dma = mapping.segments().last().unwrap().dma;
        let before = scene.guest().forge(*pfn, scene.guest().mfn(Pfn::new(1023)).unwrap());
        let expected = Err(MapError::Moved { bounce: bounce.then_some(dma) });
        assert_eq!(mapping.check_in_place(), expected);
        scene.guest().forge(*pfn, before);
        assert_eq!(mapping.check_in_place(), Ok(()));
    }
    // Two frames that swapped their places have both moved.
    let swap = || {
        let first = scene.guest().mfn(frames[0]).unwrap();
        scene.guest().forge(frames[0], scene.guest().forge(frames[1], first));
    };
    swap();
    assert_eq!(mapping.check_in_place(), Err(MapError::Moved { bounce: None }));
    swap();
    drop(mapping);
    assert_eq!(load(&list), [3; 2 * PAGE_SIZE + 8]);
}

#[test]
fn a_mapping_can_be_sent_to_another_thread() {
    const fn assert<T: Send + Sync>() {}
    assert::<KernelMapping<'static>>();
}

/// The counters of a device say what was mapped, and how.
#[test]
fn a_device_counts_its_mappings() {
    let scene = StreamingScene::new(1024, KINDS[0]);
    let device = scene.device(build(Constraints::builder().max_segments(9)));
    let (linear, heap) = (DriverMemory::scattered(&scene, 2), DriverMemory::heap(20));
    drop(map(&device, linear.range(0, 5000), BOTH).unwrap());
    let list = [linear.range(5000, 1000), heap.range(0, 100)];
    // SAFETY: the ranges are memory of the test, which does not access it.
    drop(unsafe { device.map_list(&list, BOTH) }.unwrap());
    let failed = [
        map(&device, heap.range(0, 0), BOTH).unwrap_err(),
        // SAFETY: the ranges are memory of the test, which does not access it.
        unsafe { device.mapper().sleep(Sleep::MustNot).map(heap.range(0, 20 * PAGE), BOTH) }
            .unwrap_err(),
    ];
    assert_eq!(failed[0], MapError::Empty);
    let report = device.report();
    let counts = report.counts();
    assert_eq!((counts.direct_mappings, counts.direct_bytes), (1, 6000));
    assert_eq!((counts.bounced_mappings, counts.bounced_bytes), (1, 100));
    let failures = [FailureCause::Request, FailureCause::MustNotSleep];
    assert_eq!(failures.map(|cause| counts.failures_by(cause)), [1, 1]);
}

/// Without free memory the mapping fails for now, and nothing is lost.
#[test]
fn a_guest_without_free_memory_maps_again_when_it_has_some() {
    for kind in KINDS {
        let scene = StreamingScene::new(256, kind);
        let device = scene.device(Constraints::default());
        let memory = DriverMemory::heap(2);
        let taken: Vec<_> = std::iter::from_fn(|| scene.platform.take(1, 1)).collect();
        let error = map(&device, memory.range(1, PAGE), BOTH).unwrap_err();
        assert!(matches!(error, MapError::NoBounceMemory { bytes: 4097, .. }), "{error}");
        assert!(error.is_transient(), "{error}");
        taken.into_iter().for_each(|run| scene.platform.give(run));
        assert!(map(&device, memory.range(1, PAGE), BOTH).is_ok());
        drop(device);
        scene.check_balance(0);
    }
}
