//! Devices on the model: limits, records, reports, and memory that drivers hold by its addresses.

#![forbid(unsafe_code)]

use std::mem::forget;
use std::ptr::NonNull;
use std::thread;

use fake_xen::{FakeGuest, FakePlatform, Fault, GuestBuilder};
use hypercall::{Mfn, XenErrno};
use xen_contig::addr::{DmaAddr, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, BufferError, BufferKind, CoherentBuffer, ConstraintError, Constraints,
    ConstraintsBuilder, Device, FailureCause, LiveBuffer, Request, Retain, Sleep,
};
use xen_contig::platform::Platform;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;
const FRAMES: u64 = 2048;

struct DeviceScene {
    platform: Kernel,
    allocator: Allocator<Kernel>,
    free: u64,
}

impl DeviceScene {
    fn new(guest: FakeGuest) -> Self {
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let free = platform.free_frames();
        let allocator = Allocator::new(platform, Retain::default());
        platform.guest().xen().take_log();
        Self { platform, allocator, free }
    }

    fn device(&self, name: &'static str, limits: &Constraints) -> Device<'_, Kernel> {
        Device::new(&self.allocator, name, limits).unwrap()
    }

    /// Returns a device without limits.
    fn any(&self) -> Device<'_, Kernel> {
        self.device("tested", &Constraints::default())
    }

    /// Checks that after a trim every frame is free, but for those that were lost.
    fn check_balance(&self, lost: u64) {
        self.allocator.trim(u64::MAX);
        let stats = self.allocator.stats();
        // The reserve keeps the records of lost memory.
        let records = if lost > 0 { stats.records } else { 0 };
        assert_eq!(self.platform.free_frames() + records, self.free - lost, "{stats:?}");
        assert_eq!(Platform::accounts(&self.platform).forgotten(), lost);
        self.platform.guest().check();
    }
}

fn pv() -> DeviceScene {
    DeviceScene::new(GuestBuilder::new(FRAMES).record_memory().build())
}

fn limits(build: impl FnOnce(ConstraintsBuilder) -> ConstraintsBuilder) -> Constraints {
    build(Constraints::builder()).build().unwrap()
}

fn live(device: &Device<'_, Kernel>) -> Vec<LiveBuffer> {
    device.report().live().collect()
}

/// Returns the tags and lengths of the live buffers, sorted.
fn tags(device: &Device<'_, Kernel>) -> Vec<(&'static str, u64)> {
    let mut tags: Vec<_> =
        live(device).into_iter().map(|buffer| (buffer.tag, buffer.len)).collect();
    tags.sort_unstable();
    tags
}

#[test]
fn a_buffer_keeps_the_limits_of_its_device_and_of_the_request() {
    let scene = pv();
    let device = scene.device("nic", &limits(|it| it.mask(FRAMES * PAGE - 1).align(64)));
    let buffer = device.alloc_coherent(Request::new(3 * PAGE).align(1 << 16)).unwrap();
    let dma = buffer.dma_addr().get();
    assert!(dma.is_multiple_of(1 << 16) && dma + 3 * PAGE <= FRAMES * PAGE, "{dma:#x}");
    drop(buffer);
    let wrong = device.alloc_coherent(Request::new(1).align(24)).unwrap_err();
    assert_eq!(wrong, AllocError::Constraints(ConstraintError::Alignment { align: 24 }));
    drop(device);
    scene.check_balance(0);
}

#[test]
fn a_child_has_the_limits_of_its_parent_and_its_own() {
    let scene = pv();
    let reach = FRAMES * PAGE - 1;
    let parent = scene.device("nic", &limits(|it| it.mask(reach).max_segments(16)));
    let child = parent.child("queue-0", &limits(|it| it.align(1 << 15))).unwrap();
    assert_eq!((child.limits().mask(), child.limits().align()), (reach, 1 << 15));
    assert_eq!(child.limits().max_segments(), 16, "the child was not told a number of segments");
    assert_eq!(child.name().to_string(), "nic/queue-0");
    drop(parent);
    for _ in 0..20 {
        let ring = child.alloc_coherent(Request::new(PAGE).max_segments(1)).unwrap();
        let dma = ring.dma_addr().get();
        assert!(dma <= reach && dma.is_multiple_of(1 << 15), "{dma:#x}");
        forget(ring);
    }
    let contradiction = child.child("part", &limits(|it| it.lowest(reach + 1)));
    let (lowest, mask) = (reach + 1, reach);
    assert_eq!(
        contradiction.err(),
        Some(AllocError::Constraints(ConstraintError::NothingBetween { lowest, mask }))
    );
}

#[test]
fn a_report_names_live_buffers_and_nothing_else() {
    let scene = pv();
    let device = scene.any();
    let ring = device.alloc_coherent(Request::new(8192).tag("ring")).unwrap();
    let status = device.alloc_coherent(64).unwrap();
    let dma = status.dma_addr();
    let kind = BufferKind::Coherent;
    let found = live(&device);
    assert_eq!(tags(&device), [("", 64), ("ring", 8192)]);
    assert!(found.iter().any(|it| (it.dma, it.kind, it.len) == (dma, kind, 64)), "{found:?}");
    drop(ring);
    assert_eq!(tags(&device), [("", 64)]);
    drop(status);
    assert_eq!(live(&device), []);
    drop(device);
    scene.check_balance(0);
}

#[test]
fn a_report_is_a_readable_table() {
    let scene = pv();
    let device = scene.device("disk", &limits(|it| it.mask(u64::MAX >> 24).align(512)));
    let ring = device.alloc_coherent(Request::new(8192).tag("submission queue")).unwrap();
    let _refused = device.alloc_coherent(0).unwrap_err();
    let dma = ring.dma_addr();
    let expected = format!(
        "device disk: mask 0xffffffffff, alignment 0x200, 1 segment\n  \
           requests: 2; 0 from the reserve, 0 from free memory, 1 exchanged\n  \
           mappings: 0 direct (0 bytes), 0 bounced (0 bytes)\n  \
           failures: 1; 1 no memory can satisfy it\n  \
           live buffer                 bytes  device address\n  \
           submission queue             8192  {dma}\n  \
           live buffers: 1 (8192 bytes)\n  \
           live mappings: 0"
    );
    assert_eq!(device.report().to_string(), expected);
}

#[test]
fn requests_are_counted_by_what_served_them_and_by_what_failed() {
    let scene = DeviceScene::new(GuestBuilder::new(FRAMES).record_memory().build());
    let device = scene.any();
    drop(device.alloc_coherent(4 * PAGE).unwrap());
    drop(device.alloc_coherent(4 * PAGE).unwrap());
    let counts = *device.report().counts();
    assert_eq!((counts.requests, counts.exchanged, counts.from_reserve), (2, 1, 1));
    let asleep = Request::new(64 * PAGE).sleep(Sleep::MustNot);
    assert_eq!(device.alloc_coherent(asleep).unwrap_err(), AllocError::MustNotSleep);
    let crossing = Request::new(2 * PAGE).within(&limits(|it| it.boundary(PAGE)));
    assert!(device.alloc_coherent(crossing).is_err());
    let contradiction = Request::new(1).within(&limits(|it| it.lowest(1 << 60)));
    let low = device.child("low", &limits(|it| it.mask(0xffff_ffff))).unwrap();
    assert!(low.alloc_coherent(contradiction).is_err() && low.alloc_raw(contradiction).is_err());
    scene.platform.deny_lists(true);
    let raw = device.alloc_raw(300 * PAGE);
    scene.platform.deny_lists(false);
    assert!(raw.is_err(), "{raw:?}");
    let counts = *device.report().counts();
    let by = |cause| counts.failures_by(cause);
    assert_eq!((counts.requests, counts.failures()), (5, 3));
    assert_eq!((by(FailureCause::MustNotSleep), by(FailureCause::Request)), (1, 1));
    assert_eq!(by(FailureCause::GuestMemory), 1, "{counts:?}");
    let counts = *low.report().counts();
    assert_eq!((counts.requests, counts.failures_by(FailureCause::Request)), (2, 2));
}

/// Fills all records of the first frame.
fn fill<'d>(device: &'d Device<'_, Kernel>) -> Vec<CoherentBuffer<'d, Kernel>> {
    let mut all = vec![device.alloc_coherent(PAGE).unwrap()];
    loop {
        match device.alloc_coherent(Request::new(PAGE).sleep(Sleep::MustNot)) {
            Ok(buffer) => all.push(buffer),
            Err(AllocError::MustNotSleep) => {
                // The reserve is empty. A buffer that is dropped at once refills it and keeps no record.
                let any = Constraints::default();
                drop(device.allocator().alloc_coherent(64 * PAGE, &any).unwrap());
                assert!(all.len() < 1000);
            }
            Err(AllocError::RecordsFull { records }) => {
                assert_eq!(records, all.len() as u64);
                return all;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_request_that_must_not_sleep_takes_no_frame_for_its_record() {
    let scene = pv();
    let device = scene.any();
    let all = fill(&device);
    assert!(all.len() >= 32, "{} records", all.len());
    drop(scene.allocator.alloc_coherent(8 * PAGE, &Constraints::default()).unwrap());
    let free = scene.platform.free_frames();
    let counts = *device.report().counts();
    assert_eq!(counts.failures_by(FailureCause::Records), 1);
    assert_eq!(scene.platform.free_frames(), free);
    // A request that may sleep takes another frame, and the records of freed buffers are used again.
    let more = device.alloc_coherent(PAGE).unwrap();
    assert_eq!(live(&device).len(), all.len() + 1);
    drop((all, more));
    let all = fill(&device);
    assert!(all.len() >= 64, "{} records in two frames", all.len());
    drop(all);
    drop(device);
    scene.check_balance(0);
}

#[test]
fn a_kernel_without_a_frame_for_records_is_an_error() {
    let scene = pv();
    scene.platform.deny_takes(true);
    let none = Device::new(&scene.allocator, "tested", &Constraints::default());
    assert_eq!(none.err(), Some(AllocError::NoRecordMemory { frames: 1 }));
    scene.platform.deny_takes(false);
    let device = scene.any();
    let mut all = fill(&device);
    scene.platform.deny_takes(true);
    let refused = device.alloc_coherent(PAGE).unwrap_err();
    assert_eq!(refused, AllocError::NoRecordMemory { frames: 1 });
    assert!(device.child("part", &Constraints::default()).is_err());
    scene.platform.deny_takes(false);
    all.truncate(3);
    drop(all);
    drop(device);
    scene.check_balance(0);
}

#[test]
fn both_parts_of_a_split_buffer_are_recorded() {
    let scene = pv();
    let device = scene.any();
    let mut left = device.alloc_coherent(Request::new(5 * PAGE).tag("ring")).unwrap();
    let right = left.split_off(2 * PAGE).unwrap();
    assert_eq!(tags(&device), [("ring", 2 * PAGE), ("ring", 3 * PAGE)]);
    let found = live(&device);
    assert!(found.iter().any(|it| it.dma == right.dma_addr() && it.len == 3 * PAGE), "{found:?}");
    drop(left);
    assert_eq!(tags(&device), [("ring", 3 * PAGE)]);
    drop(right);
    assert_eq!(live(&device), []);
    // Without memory for the record of the other part, the buffer stays whole.
    let mut all = fill(&device);
    drop(all.pop());
    let mut ring = device.alloc_coherent(2 * PAGE).unwrap();
    scene.platform.deny_takes(true);
    assert_eq!(ring.split_off(PAGE).unwrap_err(), BufferError::NoRecordMemory);
    assert_eq!((ring.len(), live(&device).len()), (2 * PAGE, all.len() + 1));
    scene.platform.deny_takes(false);
    drop((ring, all));
    drop(device);
    scene.check_balance(0);
}

#[test]
fn a_set_is_allocated_and_recorded_as_a_whole_or_not_at_all() {
    let scene = pv();
    let device = scene.device("nic", &limits(|it| it.align(1 << 13)));
    let request = |size, tag| Request::new(size).tag(tag);
    let set = [request(PAGE, "rx"), request(3 * PAGE, "tx"), request(64, "status")];
    let buffers = device.alloc_many(&set).unwrap();
    assert_eq!(tags(&device), [("rx", PAGE), ("status", 64), ("tx", 3 * PAGE)]);
    assert!(buffers.iter().all(|it| it.dma_addr().get().is_multiple_of(1 << 13)));
    drop(buffers);
    let wrong = [request(PAGE, "rx"), request(0, "tx"), request(64, "status")];
    assert_eq!(device.alloc_many(&wrong).unwrap_err(), (1, AllocError::ZeroSize));
    let wrong = [request(PAGE, "rx"), request(PAGE, "tx").align(3)];
    let error = AllocError::Constraints(ConstraintError::Alignment { align: 3 });
    assert_eq!(device.alloc_many(&wrong).unwrap_err(), (1, error));
    assert_eq!(live(&device), []);
    let counts = *device.report().counts();
    assert_eq!((counts.requests, counts.failures()), (8, 2));
    drop(device);
    scene.check_balance(0);
}

#[test]
fn raw_memory_is_freed_by_both_of_its_addresses() {
    let scene = pv();
    let device = scene.device("disk", &limits(|it| it.max_segments(16)));
    let (dma, cpu) = device.alloc_raw(Request::new(3 * PAGE).tag("queue")).unwrap();
    let (other_dma, other_cpu) = device.alloc_raw(PAGE).unwrap();
    assert_eq!(tags(&device), [("", PAGE), ("queue", 3 * PAGE)]);
    assert!(live(&device).iter().all(|it| it.kind == BufferKind::Raw));
    let next = DmaAddr::new(dma.get() + PAGE);
    for (dma, cpu) in [
        (dma, other_cpu),
        (other_dma, cpu),
        (next, cpu),
        (dma, NonNull::dangling()),
        (DmaAddr::new(0), cpu),
        (DmaAddr::new(u64::MAX), cpu),
    ] {
        let refused = device.free_raw(dma, cpu).unwrap_err();
        assert_eq!((refused.dma, refused.cpu), (dma, cpu));
        assert_eq!(live(&device).len(), 2);
    }
    device.free_raw(dma, cpu).unwrap();
    assert!(device.free_raw(dma, cpu).is_err(), "a double free");
    device.free_raw(other_dma, other_cpu).unwrap();
    // A coherent buffer is not freed by its addresses.
    let buffer = device.alloc_coherent(PAGE).unwrap();
    assert!(device.free_raw(buffer.dma_addr(), buffer.as_ptr()).is_err());
    drop(buffer);
    assert_eq!(device.close(), Ok(()));
    scene.check_balance(0);
}

#[test]
fn raw_memory_is_one_segment_above_address_zero() {
    let translated = GuestBuilder::new(FRAMES).record_memory().translated().build();
    for scene in [pv(), DeviceScene::new(translated)] {
        let device = scene.device("disk", &limits(|it| it.max_segments(16)));
        let many: Vec<_> = (1..30).map(|pages| device.alloc_raw(pages * PAGE / 2)).collect();
        for (dma, cpu) in many.into_iter().map(Result::unwrap) {
            assert!(dma.get() >= PAGE && dma.get().is_multiple_of(PAGE));
            device.free_raw(dma, cpu).unwrap();
        }
        drop(device);
        scene.check_balance(0);
    }
}

#[test]
fn sizes_that_no_memory_can_serve_are_errors() {
    let scene = pv();
    let device = scene.any();
    for size in [0, u64::MAX, u64::MAX - 4095, 1 << 63, (1 << 30) + 1] {
        for align in [1, 3, 1 << 40, 1 << 63, 0] {
            let request = Request::new(size).align(align);
            assert!(device.alloc_raw(request).is_err(), "{size:#x} {align:#x}");
            assert!(device.alloc_coherent(request).is_err(), "{size:#x} {align:#x}");
            assert!(device.alloc_many(&[request]).is_err(), "{size:#x} {align:#x}");
            let guest = limits(|it| it).to_builder().frame_align(align).build();
            if let Ok(guest) = guest {
                assert!(device.alloc_raw(Request::new(size).within(&guest)).is_err());
            }
        }
    }
    drop(device);
    scene.check_balance(0);
}

/// Other machine frames back a page, as after a restore.
fn move_page(scene: &DeviceScene, dma: DmaAddr) -> impl FnOnce() + use<'_> {
    let guest = scene.platform.guest();
    let pfn = guest.pfn(Mfn::new(dma.get() / PAGE)).unwrap();
    let before = guest.forge(pfn, guest.mfn(Pfn::new(FRAMES - 1)).unwrap());
    move || {
        guest.forge(pfn, before);
    }
}

#[test]
fn c75_a_device_names_its_buffers_that_moved() {
    let scene = pv();
    let device = scene.device("nic", &limits(|it| it.max_segments(16)));
    let ring = device.alloc_coherent(Request::new(2 * PAGE).tag("ring").max_segments(1)).unwrap();
    let (raw, cpu) = device.alloc_raw(Request::new(3 * PAGE).tag("raw")).unwrap();
    // Pages of several extents.
    let pages = Request::new(4 * PAGE).within(&limits(|it| it.max_segments(16).max_segment(PAGE)));
    let parts = device.alloc_coherent(pages.tag("parts")).unwrap();
    assert_eq!(device.check_in_place(), Ok(()));
    let segments: Vec<_> = parts.segments().collect();
    assert!(segments.len() > 1, "the test needs a buffer of several segments");
    let last = segments.last().unwrap();
    for (at, tag, offset) in [
        (ring.dma_addr_at(PAGE).unwrap(), "ring", PAGE),
        (DmaAddr::new(raw.get() + 2 * PAGE), "raw", 2 * PAGE),
        (last.dma, "parts", last.offset),
    ] {
        let undo = move_page(&scene, at);
        let error = device.check_in_place().unwrap_err();
        let first = error.first;
        assert_eq!((error.buffers, first.buffer.tag, first.moved.offset), (1, tag, offset));
        assert_eq!(first.moved.device_address, at);
        undo();
        assert_eq!(device.moved_buffers().count(), 0);
    }
    device.free_raw(raw, cpu).unwrap();
    drop((ring, parts));
    drop(device);
    scene.check_balance(0);
}

#[test]
fn closing_a_device_names_what_is_still_in_use() {
    let scene = pv();
    let device = scene.any();
    drop(device.alloc_coherent(PAGE).unwrap());
    forget(device.alloc_coherent(Request::new(5000).tag("ring")).unwrap());
    let _never_freed = device.alloc_raw(PAGE).unwrap();
    let error = device.close().unwrap_err();
    assert_eq!((error.buffers, error.bytes), (2, 5000 + PAGE));
    let first = error.first.unwrap();
    let dma = first.dma;
    assert_eq!((first.tag, first.len), ("ring", 5000));
    let text = format!(
        "device tested was closed with 2 buffers of 9096 bytes, whose memory is lost: free them before; \
         the first is ring: 5000 bytes at {dma}"
    );
    assert_eq!(error.to_string(), text);
    assert_eq!(scene.platform.take_leaked(), [""; 0], "the caller has the error");
    scene.check_balance(3);
}

#[test]
fn dropping_a_device_reports_each_buffer_and_keeps_its_memory() {
    let scene = pv();
    let parent = scene.any();
    let device = parent.child("queue", &Constraints::default()).unwrap();
    forget(device.alloc_coherent(Request::new(5000).tag("ring")).unwrap());
    let (dma, _never_freed) = device.alloc_raw(PAGE).unwrap();
    drop(parent);
    assert_eq!(scene.platform.take_leaked(), [""; 0]);
    drop(device);
    let leaked = scene.platform.take_leaked();
    assert_eq!(leaked.len(), 2);
    assert!(leaked[0].starts_with("tested/queue: ring: 5000 bytes at 0x"), "{leaked:?}");
    assert_eq!(leaked[1], format!("tested/queue: untagged: 4096 bytes at {dma}"));
    scene.check_balance(3);
    let pfn = scene.platform.guest().pfn(Mfn::new(dma.get() / PAGE)).unwrap();
    let all: Vec<_> = std::iter::from_fn(|| Platform::take(&scene.platform, 1, 1)).collect();
    assert!(all.iter().all(|run| run.first() != pfn), "the device may still write to it");
}

#[test]
fn the_required_mask_covers_all_memory_of_the_guest() {
    let scene = pv();
    let highest = (0..FRAMES).filter_map(|pfn| scene.platform.guest().mfn(Pfn::new(pfn)));
    let top = highest.map(|mfn| mfn.number()).max().unwrap() * PAGE + (PAGE - 1);
    let mask = scene.any().required_mask();
    assert!((mask + 1).is_power_of_two() && mask >= top && mask / 2 < top, "{mask:#x} {top:#x}");
    let translated = GuestBuilder::new(FRAMES).record_memory().translated().build();
    assert_eq!(DeviceScene::new(translated).any().required_mask(), FRAMES * PAGE - 1);
}

/// The alignment of guest addresses holds, whatever serves the request.
#[test]
fn guest_addresses_are_aligned_as_asked() {
    for translated in [false, true] {
        let builder = GuestBuilder::new(FRAMES).record_memory().machine_frames(4 * FRAMES);
        let scene = DeviceScene::new(match translated {
            true => builder.translated().build(),
            false => builder.build(),
        });
        let device = scene.any();
        for align in [PAGE, 2 * PAGE, 8 * PAGE, 64 * PAGE, 512 * PAGE, 1024 * PAGE] {
            let aligned = limits(|it| it.frame_align(align).align(align.min(512 * PAGE)));
            for size in [64, PAGE, 3 * PAGE, 20 * PAGE] {
                let request = Request::new(size).within(&aligned);
                let buffers: Vec<_> =
                    (0..2).map_while(|_| device.alloc_coherent(request).ok()).collect();
                assert!(!buffers.is_empty(), "{size:#x} bytes, alignment {align:#x}, {translated}");
                for buffer in &buffers {
                    let at = buffer.frames().first().number() * PAGE;
                    assert!(at.is_multiple_of(align), "{at:#x} {align:#x}");
                }
                drop(buffers);
                // What is idle now serves only where it is aligned.
                drop(device.alloc_coherent(request).unwrap());
            }
        }
        drop(device);
        scene.check_balance(0);
    }
}

#[test]
fn threads_allocate_and_report_at_the_same_time() {
    let scene = pv();
    let device = scene.any();
    let tags = ["a ring", "a longer tag", "x"];
    thread::scope(|scope| {
        for (at, tag) in tags.into_iter().enumerate() {
            let device = &device;
            scope.spawn(move || {
                for round in 0..2000 {
                    let size = PAGE + at as u64;
                    if round % 2 == 0 {
                        drop(device.alloc_coherent(Request::new(size).tag(tag)).unwrap());
                    } else {
                        let (dma, cpu) = device.alloc_raw(Request::new(size).tag(tag)).unwrap();
                        device.free_raw(dma, cpu).unwrap();
                    }
                }
            });
        }
        for _ in 0..2000 {
            for buffer in device.report().live() {
                let at = tags.iter().position(|tag| *tag == buffer.tag);
                assert_eq!(at.map(|at| PAGE + at as u64), Some(buffer.len), "{buffer:?}");
            }
        }
    });
    assert_eq!((live(&device), device.report().counts().failures()), (vec![], 0));
    drop(device);
    scene.check_balance(0);
}

/// What a driver does from probe to remove: a device, a part of it, buffers, a set, raw memory, a split.
fn drive(scene: &DeviceScene) -> Result<(), String> {
    let any = Constraints::default();
    let device = Device::new(&scene.allocator, "nic", &any).map_err(|it| it.to_string())?;
    let queue = device.child("queue", &limits(|it| it.align(8192))).map_err(|it| it.to_string())?;
    let mut ring = queue.alloc_coherent(4 * PAGE).map_err(|it| it.to_string())?;
    let part = ring.split_off(2 * PAGE).map_err(|it| it.to_string())?;
    let set = device.alloc_many(&[Request::new(PAGE), Request::new(3 * PAGE)]);
    let set = set.map_err(|(_, it)| it.to_string())?;
    let (dma, cpu) = device.alloc_raw(5 * PAGE).map_err(|it| it.to_string())?;
    assert_eq!((device.live(), queue.live()), (3, 2));
    device.free_raw(dma, cpu).map_err(|it| it.to_string())?;
    drop((ring, part, set));
    device.close().map_err(|it| it.to_string())?;
    queue.close().map_err(|it| it.to_string())
}

/// Every take of frames fails once. No buffer and no frame of a refused driver is lost.
#[test]
fn a_kernel_that_refuses_frames_once_loses_nothing() {
    let mut refused = 0;
    for successes in 0.. {
        let scene = pv();
        scene.platform.fail_take(successes);
        let result = drive(&scene);
        let met = scene.platform.fail_take(u64::MAX);
        refused += usize::from(result.is_err());
        assert_eq!(scene.platform.take_leaked(), [""; 0]);
        scene.check_balance(0);
        assert_eq!(drive(&scene), Ok(()), "without a fault, after {result:?}");
        scene.check_balance(0);
        if !met {
            assert_eq!(result, Ok(()));
            break;
        }
    }
    assert!(refused >= 2, "{refused} drivers were refused: a device and a part of it take frames");
}

/// Every hypercall fails once. Of a refused driver no buffer is lost, and only quarantined frames are.
#[test]
fn a_xen_that_refuses_a_hypercall_once_loses_nothing() {
    let mut refused = 0;
    for call in 1.. {
        let scene = pv();
        scene.platform.guest().xen().arm(Fault::refuse(call, XenErrno::ENOMEM));
        let result = drive(&scene);
        let met = scene.platform.guest().xen().disarm() > 0;
        refused += usize::from(result.is_err());
        assert_eq!(scene.platform.take_leaked(), [""; 0]);
        assert_eq!(drive(&scene), Ok(()), "without a fault, after {result:?}");
        if Platform::accounts(&scene.platform).quarantined() == 0 {
            scene.check_balance(0);
        }
        if !met {
            assert_eq!(result, Ok(()));
            break;
        }
    }
    assert!(refused > 0);
}
