//! Pools of DMA objects on the model.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use std::thread;

use fake_xen::{FakeGuest, FakePlatform, FakeXen, GuestBuilder};
use xen_contig::addr::{Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, BufferError, BufferKind, ConstraintError, Constraints,
    ConstraintsBuilder, Device, Moved, Pool, PoolBuilder, PoolConfig, PoolError, PoolErrorKind,
    PoolObject, PoolStatistics, Retain, Sleep, Zeroing,
};
use xen_contig::exchange::{Accounts, ExchangeError};
use xen_contig::frames::{Candidate, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::paging::GuestMemory;
use xen_contig::platform::Platform;

type Model = &'static FakePlatform;
type Object<'p> = PoolObject<'p, Model>;

const PAGE: u64 = PAGE_SIZE as u64;

/// The number of frames of the guest.
const FRAMES: u64 = 512;
/// The number of frames of the machine.
const MACHINE: u64 = 3072;

/// A guest, its kernel and an allocator.
struct PoolScene {
    platform: Model,
    allocator: &'static Allocator<Model>,
    /// A device without limits.
    device: Device<'static, Model>,
    free: u64,
}

impl PoolScene {
    fn new(guest: GuestBuilder) -> Self {
        let guest = guest.machine_frames(MACHINE).real_memory().build();
        let platform: Model = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let free = platform.free_frames();
        let allocator: &_ = Box::leak(Box::new(Allocator::new(platform, Retain::NOTHING)));
        let device = Device::new(allocator, "any", &Constraints::default()).unwrap();
        platform.guest().xen().take_log();
        Self { platform, allocator, device, free }
    }

    fn pool(&self, config: PoolBuilder) -> Pool<'_, Model> {
        pool_of(&self.device, config)
    }

    fn device(&self, limits: Constraints) -> Device<'static, Model> {
        Device::new(self.allocator, "limited", &limits).unwrap()
    }

    /// Returns how many hypercalls were made since the last call of this method.
    fn take_calls(&self) -> usize {
        self.platform.guest().xen().take_log().len()
    }

    /// Returns how many frames are free in the kernel or in the allocator's reserve.
    fn free_frames(&self) -> u64 {
        let stats = self.allocator.stats();
        let reserve = stats.idle + stats.set_aside + stats.records;
        self.platform.free_frames() + reserve + self.device.record_frames()
    }

    /// Checks that every frame is free again, and that P2M, M2P and page tables agree.
    fn check_balance(&self) {
        assert_eq!(self.free_frames(), self.free);
        assert_eq!(self.platform.accounts().forgotten(), 0);
        self.platform.guest().check_whole();
    }

    fn first_frame(&self, object: &Object<'_>, offset: u64) -> Pfn {
        let linear = self.platform.guest().pointer(Pfn::new(0)).addr() as u64;
        Pfn::new((object.as_ptr().addr().get() as u64 + offset - linear) / PAGE)
    }
}

fn pool_of<'d>(device: &'d Device<'_, Model>, config: PoolBuilder) -> Pool<'d, Model> {
    Pool::new(device, build(config)).unwrap()
}

fn pv() -> PoolScene {
    PoolScene::new(GuestBuilder::new(FRAMES))
}

fn build(builder: PoolBuilder) -> PoolConfig {
    builder.build().unwrap()
}

fn objects_of(size: u64) -> PoolBuilder {
    PoolConfig::builder("tested", size)
}

/// Returns the builder of a pool with chunks of four frames. In a scattered guest each is exchanged.
fn exchanged(size: u64) -> PoolBuilder {
    objects_of(size).chunk(4 * PAGE)
}

fn device(build: impl FnOnce(ConstraintsBuilder) -> ConstraintsBuilder) -> Constraints {
    build(Constraints::builder()).build().unwrap()
}

/// Returns how many objects the pool has, and how many are in use.
fn usage(pool: &Pool<'_, Model>) -> (u64, u64) {
    let PoolStatistics { objects, in_use, .. } = pool.statistics();
    (objects, in_use)
}

fn exhausted(objects: u64, in_use: u64, moved: u64, limit: u64) -> PoolErrorKind {
    PoolErrorKind::Exhausted { objects, in_use, moved, limit }
}

fn take<'p>(pool: &'p Pool<'_, Model>, count: usize) -> Vec<Object<'p>> {
    (0..count).map(|_| pool.alloc().unwrap()).collect()
}

/// Checks that the device addresses are right, and that no byte belongs to two objects.
fn check_objects(scene: &PoolScene, objects: &mut [Object<'_>], admits: impl Fn(u64, u64) -> bool) {
    let guest = scene.platform.guest();
    let mut extents: Vec<(u64, u64)> = Vec::new();
    for object in objects.iter() {
        let dma = object.dma_addr().get();
        assert!(admits(dma, object.len()), "{object:?}");
        extents.push((dma, dma + object.len()));
        for offset in [0, object.len() / 2, object.len() - 1] {
            let at = object.dma_addr_at(offset).unwrap();
            assert_eq!(at.get(), dma + offset);
            let mfn = guest.mfn(scene.first_frame(object, offset)).unwrap();
            assert_eq!(mfn.number(), at.frame().number());
            let address = object.as_ptr().addr().get() as u64 + offset;
            assert_eq!(address % PAGE, at.get() % PAGE);
        }
        assert_eq!(object.dma_addr_at(object.len()), None);
    }
    extents.sort_unstable();
    assert!(extents.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{extents:x?}");

    let pattern =
        |index: usize, len: u64| (0..len).map(|byte| (index as u64 * 7 + byte) as u8).collect();
    for (index, object) in objects.iter_mut().enumerate() {
        let bytes: Vec<u8> = pattern(index, object.len());
        object.write(0, &bytes).unwrap();
    }
    for (index, object) in objects.iter().enumerate() {
        let mut bytes = vec![0; object.len() as usize];
        object.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, pattern(index, object.len()));
    }
}

#[test]
fn a_pool_is_small_by_value() {
    let (pool, object) = (size_of::<Pool<'_, Model>>(), size_of::<Object<'_>>());
    println!("a pool has {pool} bytes, an object {object}");
    assert!(pool <= 256 && object <= 80, "{pool} and {object} bytes");
}

#[test]
fn objects_meet_the_constraints_at_their_device_addresses() {
    let scene = pv();
    let low = 2 * FRAMES * PAGE - 1;
    for (config, align, device) in [
        (objects_of(64), 1, device(|it| it)),
        (objects_of(12), 4, device(|it| it.boundary(64))),
        (objects_of(100), 32, device(|it| it.mask(low).boundary(4096))),
        (exchanged(1000), 1, device(|it| it.mask(low).max_segment(1000))),
        (exchanged(3000), 1024, device(|it| it.boundary(1 << 13).align(1 << 14))),
        (exchanged(1500), 1, device(|it| it.boundary(1 << 16).lowest(1 << 20))),
        (objects_of(5000), 1 << 14, device(|it| it.max_segment(5000).max_segments(3))),
    ] {
        let object = device.to_builder().align(align).build().unwrap();
        let device = scene.device(device);
        let pool = pool_of(&device, config.align(align).limit(20));
        let mut objects = take(&pool, 20);
        // Objects have the pool's alignment. The device's alignment is for coherent buffers.
        check_objects(&scene, &mut objects, |at, len| object.admits(at, len));
        drop(objects);
        drop(pool);
        drop(device);
        scene.check_balance();
    }
}

#[test]
fn objects_have_any_size() {
    let scene = pv();
    for (size, chunk, count) in
        [(1, 0, 4097), (1, 16 * PAGE, 70_000), (9000, 0, 5), (1 << 19, 0, 2)]
    {
        let pool = scene.pool(objects_of(size).chunk(chunk).zeroing(Zeroing::Whatever));
        let mut objects = take(&pool, count);
        check_objects(&scene, &mut objects, |at, _| size == 1 || at.is_multiple_of(64));
        assert_eq!(pool.statistics().in_use, count as u64);
        drop(objects);
        drop(pool);
        scene.check_balance();
    }
}

#[test]
fn the_alignment_of_coherent_buffers_does_not_waste_objects() {
    let scene = pv();
    let aligned = scene.device(device(|it| it.align(PAGE)));
    let pool = pool_of(&aligned, objects_of(64));
    let objects = take(&pool, 64);
    assert_eq!((pool.statistics().chunks, pool.statistics().chunk_frames), (1, 1));
    drop(objects);
    // Any page can be a chunk. A page at a multiple of 8 MiB would need an exchange.
    scene.take_calls();
    let aligned = scene.device(device(|it| it.align(1 << 23)));
    drop(pool_of(&aligned, objects_of(64)).alloc().unwrap());
    assert_eq!(scene.take_calls(), 0);
}

#[test]
fn a_pool_grows_up_to_its_limit() {
    let scene = pv();
    let config = exchanged(4000).limit(7);
    let pool = scene.pool(config);
    assert_eq!((scene.take_calls(), usage(&pool), scene.free_frames()), (0, (0, 0), scene.free));
    let first = take(&pool, 4);
    let cold = scene.take_calls();
    assert!(cold > 0 && usage(&pool) == (4, 4), "the pool has one chunk, by one exchange");
    let rest = take(&pool, 3);
    assert_eq!((scene.take_calls(), usage(&pool)), (cold, (7, 7)));
    assert_eq!(pool.alloc().unwrap_err().kind(), exhausted(7, 7, 0, 7));
    drop(first);
    let again = take(&pool, 4);
    assert_eq!(
        (scene.take_calls(), usage(&pool)),
        (0, (7, 7)),
        "dropped objects are allocated again"
    );
    drop((rest, again));
    drop(pool);
    scene.check_balance();
    let none = scene.pool(exchanged(4000).limit(0));
    assert_eq!(none.alloc().unwrap_err().kind(), exhausted(0, 0, 0, 0));
}

/// The records need several blocks of frames, which are freed with the chunks.
#[test]
fn the_number_of_chunks_has_no_limit() {
    let scene = pv();
    let mut pool = scene.pool(objects_of(PAGE).reserve(1));
    let mut objects = take(&pool, 300);
    let PoolStatistics { chunks, chunk_frames, record_frames, .. } = pool.statistics();
    assert!((chunks, chunk_frames) == (300, 300) && record_frames > 3, "{record_frames}");
    assert_eq!(scene.free_frames(), scene.free - 300 - record_frames);
    check_objects(&scene, &mut objects, |_, _| true);
    // Every third object is dropped and allocated again.
    let mut index = 0;
    objects.retain(|_| {
        index += 1;
        index % 3 != 0
    });
    assert_eq!((usage(&pool), objects.len()), ((300, 200), 200));
    objects.extend((0..100).map(|_| pool.alloc_atomic().unwrap()));
    check_objects(&scene, &mut objects, |_, _| true);
    assert!(pool.alloc_atomic().is_err() && usage(&pool) == (300, 300));
    drop(objects);
    assert_eq!((pool.trim(), usage(&pool), pool.statistics().record_frames), (300, (0, 0), 0));
    scene.check_balance();
    assert_eq!((pool.refill(), usage(&pool)), (Ok(1), (1, 0)));
    drop(pool);
    scene.check_balance();
}

#[test]
fn messages_name_the_pool() {
    let scene = pv();
    let pool = scene.pool(PoolConfig::builder("rx packets", 2048).limit(2).reserve(1));
    let objects = take(&pool, 2);
    let text =
        "pool rx packets: 2 of 2 objects of 2048 bytes in use, limit 2, 1 frames and 1 for records";
    assert_eq!((pool.to_string(), pool.statistics().to_string()), (text.into(), text.into()));
    assert!(format!("{pool:?}").contains("pool: \"rx packets\""), "{pool:?}");
    let error = pool.alloc().unwrap_err();
    assert_eq!(error.pool(), "rx packets");
    let text = "pool rx packets: no object is available, 2 of 2 are in use: raise the limit of 2";
    assert_eq!(error.to_string(), text);
    let error = PoolConfig::builder("tx", 0).build().unwrap_err();
    assert_eq!(error.to_string(), "pool tx: an object must have at least one byte");
    drop(objects);
    assert!(scene.pool(objects_of(1)).to_string().contains("no limit, 0 frames and 0"));
}

#[test]
fn a_pool_that_cannot_grow_names_the_cause_and_stays_usable() {
    let scene = pv();
    let pool = scene.pool(exchanged(4000).limit(8));
    let mut object = pool.alloc().unwrap();
    object.store(0, 0x1234_u64).unwrap();
    scene.platform.guest().fragment(Order::new(2).unwrap());
    let others = take(&pool, 3);
    let error = pool.alloc().unwrap_err();
    let PoolErrorKind::Alloc { added: 0, error: AllocError::Exchange(cause) } = error.kind() else {
        panic!("{error}")
    };
    assert!(matches!(cause, ExchangeError::NoMemory { .. }), "{error}");
    assert_eq!(usage(&pool), (4, 4));
    assert_eq!(object.load(0), Ok(0x1234_u64));
    scene.platform.guest().relieve();
    drop(pool.alloc().unwrap());
    assert_eq!(usage(&pool), (8, 4));
    drop((object, others));
    drop(pool);
    scene.check_balance();

    scene.allocator.trim(u64::MAX);
    let awake = scene.device(device(|it| it.sleep(Sleep::MustNot)));
    let pool = pool_of(&awake, exchanged(64));
    scene.take_calls();
    let refused = PoolErrorKind::Alloc { added: 0, error: AllocError::MustNotSleep };
    // There are more failures than slots in a block, so each failure must free its slot.
    (0..300).for_each(|_| assert_eq!(pool.alloc().unwrap_err().kind(), refused));
    assert_eq!((scene.take_calls(), pool.statistics().record_frames), (0, 1));
}

#[test]
fn without_frames_for_records_nothing_is_lost() {
    let scene = pv();
    let small = scene.pool(objects_of(64));
    let large = scene.pool(objects_of(1).chunk(16 * PAGE));
    let mut taken: Vec<FrameRun> = std::iter::from_fn(|| scene.platform.take(1, 1)).collect();
    let error = small.alloc().unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::RecordMemory { added: 0, frames: 1 });
    scene.platform.give(taken.pop().unwrap());
    let error = large.alloc().unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::RecordMemory { added: 0, frames: 3 });
    assert_eq!((usage(&small), usage(&large)), ((0, 0), (0, 0)));
    assert_eq!(scene.platform.free_frames(), 1);
    taken.into_iter().for_each(|run| scene.platform.give(run));
    drop((small.alloc().unwrap(), large.alloc().unwrap()));
    drop((small, large));
    scene.check_balance();
}

#[test]
fn an_atomic_allocation_makes_no_hypercall_and_takes_no_frame() {
    let scene = pv();
    let pool = scene.pool(exchanged(4000).reserve(6).limit(10));
    assert_eq!(usage(&pool), (8, 0));
    assert!(scene.take_calls() > 0, "the reserve is allocated at once");
    let free = scene.free_frames();
    let mut objects: Vec<Object<'_>> = (0..8).map(|_| pool.alloc_atomic().unwrap()).collect();
    assert_eq!(pool.alloc_atomic().unwrap_err().kind(), exhausted(8, 8, 0, 10));
    check_objects(&scene, &mut objects, |_, _| true);
    objects.truncate(6);
    drop(pool.alloc_atomic().unwrap());
    assert_eq!((scene.take_calls(), scene.free_frames()), (0, free));

    // 2 of 8 objects are available, and the reserve is 6. The limit allows 2 more objects.
    assert!(pool.is_low());
    assert_eq!(pool.refill().unwrap_err().kind(), exhausted(10, 6, 0, 10));
    objects.truncate(4);
    assert_eq!((pool.is_low(), pool.refill()), (false, Ok(0)));
    drop(objects);
    drop(pool);
    scene.check_balance();
}

#[test]
fn a_refill_restores_the_reserve() {
    let scene = pv();
    let pool = scene.pool(exchanged(4000).reserve(3).limit(32));
    let (mut objects, mut added) = (Vec::new(), 0);
    while usage(&pool).0 < 32 {
        objects.extend(std::iter::from_fn(|| pool.alloc_atomic().ok()));
        added += pool.refill().unwrap();
        assert!(pool.statistics().available >= 3);
    }
    assert_eq!((added, usage(&pool).0), (28, 32));
    drop(objects);
    drop(pool);
    scene.check_balance();
}

#[test]
fn a_refill_that_fails_keeps_what_it_added_and_continues_later() {
    let scene = pv();
    let pool = scene.pool(exchanged(4000).reserve(4));
    let mut objects = take(&pool, 4);
    scene.platform.guest().fragment(Order::new(2).unwrap());
    let error = pool.refill().unwrap_err();
    let refused = PoolErrorKind::Alloc { added: 0, error: alloc_error(&error) };
    assert!(error.kind() == refused && matches!(alloc_error(&error), AllocError::Exchange(_)));
    assert_eq!(pool.alloc_atomic().unwrap_err().kind(), exhausted(4, 4, 0, u64::MAX));
    scene.platform.guest().relieve();
    assert_eq!(pool.refill(), Ok(4));
    objects.push(pool.alloc_atomic().unwrap());
    check_objects(&scene, &mut objects, |_, _| true);
    drop(objects);
    drop(pool);
    scene.check_balance();
}

fn alloc_error(error: &PoolError) -> AllocError {
    let PoolErrorKind::Alloc { error, .. } = error.kind() else { panic!("{error}") };
    error
}

#[test]
fn a_pool_that_cannot_get_its_reserve_frees_all_memory() {
    let scene = pv();
    scene.platform.guest().exhaust_but(60);
    let config = build(exchanged(4000).reserve(400));
    let error = Pool::new(&scene.device, config).unwrap_err();
    let PoolErrorKind::Alloc { added, .. } = error.kind() else { panic!("{error}") };
    assert!(added > 0 && added < 400 && matches!(alloc_error(&error), AllocError::Exchange(_)));
    scene.platform.guest().relieve();
    scene.check_balance();
}

#[test]
fn chunks_are_live_buffers_of_the_device() {
    let scene = pv();
    let low = scene.device(device(|it| it.mask(u64::MAX >> 24).boundary(4096)));
    let live = || -> Vec<_> { low.report().live().map(|it| (it.tag, it.kind, it.len)).collect() };
    let mut pool = pool_of(&low, exchanged(3000).reserve(8));
    assert_eq!(live(), [("tested", BufferKind::Coherent, 4 * PAGE); 2]);
    let counts = *low.report().counts();
    assert_eq!((counts.requests, counts.exchanged, counts.failures()), (2, 2, 0));

    // A restore moves a chunk. The check of the device finds it.
    let object = pool.alloc_atomic().unwrap();
    let pfn = scene.first_frame(&object, 0);
    let before = move_page(&scene, pfn);
    let moved = low.check_in_place().unwrap_err();
    assert_eq!((moved.buffers, moved.first.buffer.tag), (1, "tested"));
    scene.platform.guest().forge(pfn, before);
    assert_eq!(low.check_in_place(), Ok(()));

    drop(object);
    assert_eq!((pool.trim(), live().len()), (8, 0));
    drop(pool);
    assert_eq!(low.close(), Ok(()));
    scene.check_balance();
}

#[test]
fn objects_that_contradict_the_device_are_refused() {
    let scene = pv();
    let high = ConstraintError::AlignmentAboveMask { align: 1 << 16, mask: 0xffff };
    for (config, limits, kind) in [
        (
            objects_of(65),
            device(|it| it.boundary(64)),
            PoolErrorKind::CrossesBoundary { size: 65, boundary: 64 },
        ),
        (
            objects_of(65),
            device(|it| it.max_segment(64)),
            PoolErrorKind::SegmentTooLong { size: 65, max_segment: 64 },
        ),
        (
            objects_of(8).align(1 << 16),
            device(|it| it.mask(0xffff)),
            PoolErrorKind::Constraints(high),
        ),
    ] {
        let narrow = scene.device(limits);
        let error = Pool::new(&narrow, build(config.reserve(1))).unwrap_err();
        assert_eq!((error.pool(), error.kind()), ("tested", kind));
        assert_eq!(narrow.report().counts().requests, 0);
    }
    scene.check_balance();
}

#[test]
fn a_forgotten_object_keeps_its_chunk_and_stays_counted() {
    let scene = pv();
    let mut pool = scene.pool(exchanged(4000).reserve(8));
    let mut object = pool.alloc_atomic().unwrap();
    object.store(0, 0x5afe_u64).unwrap();
    let (address, pfn) = (object.dma_addr(), scene.first_frame(&object, 0));
    std::mem::forget(object);
    assert_eq!((usage(&pool), pool.trim(), usage(&pool)), ((8, 1), 4, (4, 1)));
    let PoolStatistics { available, chunk_frames, record_frames, .. } = pool.statistics();
    assert_eq!((available, chunk_frames, record_frames), (3, 4, 1));
    assert_eq!(scene.free_frames(), scene.free - 5);

    // A restore moves the chunk. The pool allocates no object from it, and still counts it.
    let before = move_page(&scene, pfn);
    assert!(pool.check_in_place().is_err());
    let PoolStatistics { in_use, moved, available, .. } = pool.statistics();
    assert_eq!((in_use, moved, available, pool.trim()), (1, 4, 0, 0));
    scene.platform.guest().forge(pfn, before);

    drop(pool);
    let live: Vec<_> = scene.device.report().live().map(|it| (it.tag, it.len)).collect();
    assert_eq!(live, [("tested", 4 * PAGE)], "the device may still write to the chunk");
    assert_eq!(
        scene.free_frames(),
        scene.free - 4,
        "a device may still write to the forgotten chunk"
    );
    // The machine frame at the device address still backs this frame, which the kernel never gets.
    let guest = scene.platform.guest();
    assert_eq!(guest.pfn(hypercall::Mfn::new(address.frame().number())), Some(pfn));
    assert_eq!(guest.read(0, pfn, 0), 0x5afe);
    while let Some(run) = scene.platform.take(1, 1) {
        assert_ne!(run.first(), pfn);
    }
    guest.check_whole();
    let in_use = scene.device.close().unwrap_err();
    assert_eq!((in_use.buffers, in_use.bytes), (1, 4 * PAGE));
    assert_eq!(scene.platform.accounts().forgotten(), 4);
}

#[test]
fn a_trimmed_pool_grows_again() {
    let scene = pv();
    let mut pool = scene.pool(exchanged(4000).limit(8));
    for _ in 0..3 {
        drop(take(&pool, 8));
        assert_eq!((pool.trim(), pool.trim(), usage(&pool)), (8, 0, (0, 0)));
        scene.check_balance();
    }
    // One chunk stays, and its free objects are allocated. The other chunk is added and trimmed more
    // often than a block has slots, so its slot must be reused.
    std::mem::forget(pool.alloc().unwrap());
    for _ in 0..100 {
        drop(take(&pool, 7));
        assert_eq!((pool.statistics().record_frames, pool.trim(), usage(&pool)), (1, 4, (4, 1)));
    }
    let mut objects = take(&pool, 7);
    check_objects(&scene, &mut objects, |_, _| true);
    assert_eq!(pool.alloc().unwrap_err().kind(), exhausted(8, 8, 0, 8));
}

#[test]
fn objects_are_zeroed_unless_the_pool_leaves_them() {
    let scene = pv();
    for (zeroing, expected) in [(Zeroing::Zeroed, 0), (Zeroing::Whatever, 0xff)] {
        for size in [1, 7, 13, 64, 4096, 5000] {
            let pool = scene.pool(objects_of(size).align(1).zeroing(zeroing));
            let mut used = take(&pool, 3);
            let ones = vec![0xff; size as usize];
            used.iter_mut().for_each(|object| object.write(0, &ones).unwrap());
            drop(used.remove(1));
            let mut bytes = vec![1; size as usize];
            pool.alloc().unwrap().read(0, &mut bytes).unwrap();
            assert_eq!(bytes, vec![expected; size as usize]);
            for neighbour in &used {
                neighbour.read(0, &mut bytes).unwrap();
                assert_eq!(bytes, ones, "the neighbour is untouched");
            }
        }
    }
    scene.check_balance();
}

/// The pool does not zero objects here, so the bytes come from the chunk itself.
#[test]
fn a_new_chunk_is_zeroed() {
    let scene = pv();
    let pool = scene.pool(exchanged(4 * PAGE).zeroing(Zeroing::Whatever));
    let object = pool.alloc().unwrap();
    let mut bytes = vec![1; 4 * PAGE_SIZE];
    object.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn accesses_stay_within_the_object() {
    let scene = pv();
    let pool = scene.pool(objects_of(13).align(1));
    let mut neighbours = take(&pool, 3);
    let object = &mut neighbours[0];
    object.store(0, u64::MAX).unwrap();
    object.store(12, 7_u8).unwrap();
    assert_eq!(object.load(12), Ok(7_u8));
    for offset in [13, u64::MAX] {
        assert!(object.load::<u8>(offset).is_err() && object.store(offset, 0_u8).is_err());
    }
    for offset in [12, 1] {
        assert!(object.load::<u16>(offset).is_err() && object.store(offset, 0_u16).is_err());
    }
    for offset in [8, u64::MAX - 7] {
        assert!(object.load::<u64>(offset).is_err() && object.store(offset, 0_u64).is_err());
    }
    assert!(object.read(5, &mut [0; 9]).is_err() && object.write(u64::MAX, &[0]).is_err());
    let mut bytes = [1; 13];
    neighbours[1].read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 13]);
    // The second object begins at byte 13. Alignment counts for addresses, not for offsets.
    assert!(neighbours[1].load::<u32>(0).is_err());
    assert_eq!(neighbours[1].load(3), Ok(0_u64));
}

#[test]
fn a_translated_guest_has_pools_too() {
    let scene = PoolScene::new(GuestBuilder::new(FRAMES).translated());
    let low = scene.device(device(|it| it.mask(FRAMES / 2 * PAGE - 1)));
    let pool = pool_of(&low, exchanged(1500).reserve(20));
    let objects: Vec<Object<'_>> = (0..20).map(|_| pool.alloc_atomic().unwrap()).collect();
    assert!(objects.iter().all(|object| low.limits().admits(object.dma_addr().get(), 1500)));
    assert_eq!(scene.take_calls(), 0);
    drop(objects);
    drop(pool);
    drop(low);
    scene.check_balance();
}

/// Allocates and drops objects at random. `owners` shows that each has one owner.
fn contend(pool: &Pool<'_, Model>, me: u64, rounds: u64, owners: &[AtomicU64]) -> u64 {
    let owner = |object: &Object<'_>| &owners[(object.dma_addr().get() / 512) as usize];
    let (mut held, mut random, mut refused) = (Vec::new(), me << 32 | 0x9e37_79b9, 0);
    for _ in 0..rounds {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random % 8 < 5 || held.is_empty() {
            match pool.alloc_atomic() {
                Ok(object) => {
                    assert_eq!(owner(&object).swap(me, Relaxed), 0, "{object:?}");
                    held.push(object);
                }
                Err(error) => {
                    let PoolErrorKind::Exhausted { objects, limit: 64, .. } = error.kind() else {
                        panic!("{error}")
                    };
                    assert!(objects <= 64, "{error}");
                    refused += 1;
                }
            }
        } else {
            let object = held.swap_remove(random as usize / 8 % held.len());
            assert_eq!(owner(&object).swap(0, Relaxed), me, "{object:?}");
            drop(object);
        }
    }
    held.iter().for_each(|object| assert_eq!(owner(object).swap(0, Relaxed), me));
    refused
}

#[test]
fn threads_never_share_an_object_and_lose_none() {
    const ROUNDS: u64 = 20_000;
    let scene = pv();
    let pool = scene.pool(objects_of(512).zeroing(Zeroing::Whatever).reserve(4).limit(64));
    // The owner of each 512 bytes of the machine.
    let owners: Vec<AtomicU64> = (0..MACHINE * 8).map(|_| AtomicU64::new(0)).collect();
    let start = Barrier::new(4);
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for me in 1..=3 {
            let (pool, owners, start, refused) = (&pool, &owners, &start, &refused);
            scope.spawn(move || {
                start.wait();
                refused.fetch_add(contend(pool, me, ROUNDS, owners), Relaxed);
            });
        }
        scope.spawn(|| {
            start.wait();
            for _ in 0..ROUNDS / 10 {
                let refill = pool.refill();
                let at_limit =
                    |error: PoolError| matches!(error.kind(), PoolErrorKind::Exhausted { .. });
                assert!(refill.is_ok() || refill.is_err_and(at_limit));
                thread::yield_now();
            }
        });
    });
    assert_eq!(usage(&pool).1, 0);
    println!("exhausted {} times, grew to {}", refused.load(Relaxed), usage(&pool).0);
    drop(pool);
    scene.check_balance();
}

#[test]
fn threads_grow_a_pool_by_many_chunks_and_lose_none() {
    let scene = pv();
    let pool = scene.pool(objects_of(PAGE).zeroing(Zeroing::Whatever));
    let start = Barrier::new(4);
    let work = || {
        start.wait();
        take(&pool, 40).into_iter().map(|object| object.dma_addr().get()).collect::<Vec<_>>()
    };
    // Each thread drops its objects at its end, so several threads use the same chunks.
    let addresses: Vec<Vec<u64>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for addresses in addresses {
        let distinct: std::collections::HashSet<u64> = addresses.iter().copied().collect();
        assert_eq!(distinct.len(), 40);
    }
    let PoolStatistics { objects, in_use, chunks, .. } = pool.statistics();
    assert!(objects == chunks && (40..=160).contains(&objects) && in_use == 0, "{objects}");
    drop(pool);
    scene.check_balance();
}

/// A kernel that is interrupted whenever it takes frames, makes lists or accesses Xen.
struct InterruptedKernel {
    model: Model,
    handler: Mutex<Option<fn()>>,
}

impl InterruptedKernel {
    fn interrupt(&self) {
        let handler = *self.handler.lock().unwrap();
        handler.into_iter().for_each(|handler| handler());
    }
}

// SAFETY: every method calls the same method of one `FakePlatform`, which meets the requirements of
// `Platform`. The handler takes no frames.
unsafe impl Platform for &InterruptedKernel {
    type Xen = FakeXen;
    type Memory = FakeGuest;
    type Linear = FakeGuest;
    type Lock = spin::Mutex<()>;
    type Lists<'p>
        = Vec<u64>
    where
        Self: 'p;

    fn xen(&self) -> &FakeXen {
        self.interrupt();
        self.model.guest().xen()
    }

    fn memory(&self) -> &FakeGuest {
        self.model.guest()
    }

    fn linear(&self) -> Option<&FakeGuest> {
        self.model.linear()
    }

    fn p2m(&self) -> &P2m<'_> {
        (**self).model_p2m()
    }

    fn accounts(&self) -> &Accounts {
        Platform::accounts(&self.model)
    }

    fn free_frames(&self) -> u64 {
        self.model.free_frames()
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.interrupt();
        self.model.take(frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        self.interrupt();
        self.model.take_where(frames, from, fits)
    }

    fn give(&self, run: FrameRun) {
        self.model.give(run);
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        self.interrupt();
        self.model.lists(words)
    }
}

impl InterruptedKernel {
    fn model_p2m(&self) -> &P2m<'_> {
        Platform::p2m(&self.model)
    }
}

static POOL: Mutex<Option<&'static Pool<'static, &'static InterruptedKernel>>> = Mutex::new(None);
static SERVED: AtomicU64 = AtomicU64::new(0);

#[test]
fn an_interrupt_handler_allocates_during_a_refill() {
    fn handler() {
        let pool = POOL.lock().unwrap().expect("the pool is set before the handler");
        match pool.alloc_atomic() {
            Ok(object) => {
                SERVED.fetch_add(1, Relaxed);
                drop(object);
            }
            Err(error) => {
                let PoolErrorKind::Exhausted { objects, in_use, .. } = error.kind() else {
                    panic!("{error}")
                };
                assert_eq!(objects, in_use);
            }
        }
    }
    let PoolScene { platform: model, free, .. } = pv();
    let kernel: &'static InterruptedKernel =
        Box::leak(Box::new(InterruptedKernel { model, handler: Mutex::new(None) }));
    let allocator: &_ = Box::leak(Box::new(Allocator::new(kernel, Retain::NOTHING)));
    let device =
        Box::leak(Box::new(Device::new(allocator, "any", &Constraints::default()).unwrap()));
    let pool = Pool::new(device, build(exchanged(4000).reserve(4))).unwrap();
    let pool = Box::leak(Box::new(pool));
    *POOL.lock().unwrap() = Some(pool);
    *kernel.handler.lock().unwrap() = Some(handler);
    let one = pool.alloc_atomic().unwrap();
    assert_eq!(pool.refill(), Ok(4));
    assert!(SERVED.load(Relaxed) >= 3, "the handler got {} objects", SERVED.load(Relaxed));
    // With every object in use the handler gets an error, and the refill makes progress.
    let all: Vec<_> = std::iter::from_fn(|| pool.alloc_atomic().ok()).collect();
    assert_eq!(pool.refill(), Ok(4));
    drop((one, all));
    let PoolStatistics { in_use, chunk_frames, record_frames, .. } = pool.statistics();
    assert_eq!((in_use, chunk_frames), (0, 12));
    allocator.trim(u64::MAX);
    let reserve_records = allocator.stats().records;
    let records = record_frames + device.record_frames() + reserve_records;
    assert_eq!(model.free_frames(), free - 12 - records);
    model.guest().check_whole();
}

/// Changes the machine frame of a page in the P2M, as a restore does. Returns the old one.
fn move_page(scene: &PoolScene, pfn: Pfn) -> hypercall::Mfn {
    let elsewhere = scene.platform.guest().mfn(Pfn::new(FRAMES - 1)).unwrap();
    scene.platform.guest().forge(pfn, elsewhere)
}

#[test]
fn c75_an_object_that_moved_is_reported() {
    let scene = pv();
    let pool = scene.pool(exchanged(3000).align(8).limit(5));
    let objects = take(&pool, 5);
    assert!(objects.iter().all(|object| object.check_in_place() == Ok(())));
    // The second object begins in the first page of the chunk and ends in the second.
    let (pfn, cut) = (scene.first_frame(&objects[1], 2999), PAGE - 3000);
    let before = move_page(&scene, pfn);
    let Err(BufferError::Moved(moved)) = objects[1].check_in_place() else {
        panic!("not reported")
    };
    assert_eq!((moved.offset, moved.device_address), (cut, objects[1].dma_addr_at(cut).unwrap()));
    assert_ne!(moved.found, Some(moved.device_address));
    assert_eq!(objects[0].check_in_place(), Ok(()), "the first object lies in the page before");
    let moved = objects[2].check_in_place();
    assert!(matches!(moved, Err(BufferError::Moved(Moved { offset: 0, .. }))), "{moved:?}");
    scene.platform.guest().forge(pfn, before);
    assert!(objects.iter().all(|object| object.check_in_place() == Ok(())));
    drop(objects);
    drop(pool);
    scene.check_balance();
}

#[test]
fn c75_a_pool_reports_a_moved_chunk_and_allocates_no_object_of_it() {
    let scene = pv();
    let mut pool = scene.pool(exchanged(4000).reserve(12).limit(12));
    let mut objects = take(&pool, 6);
    assert_eq!((pool.check_in_place(), pool.moved_chunks().count()), (Ok(()), 0));
    // The last page of the second chunk moves. Two objects of this chunk are in use.
    let (pfn, first) = (scene.first_frame(&objects[4], 0).add(3), objects[4].dma_addr());
    let before = move_page(&scene, pfn);
    let moved: Vec<_> = pool.moved_chunks().collect();
    assert_eq!(
        (moved.len(), pool.statistics().available),
        (1, 6),
        "`moved_chunks` changes nothing"
    );
    let reported = first.checked_add(3 * PAGE).unwrap();
    assert_eq!((moved[0].objects, moved[0].in_use), (4, 2));
    assert_eq!((moved[0].moved.offset, moved[0].moved.device_address), (3 * PAGE, reported));
    let report = pool.check_in_place().unwrap_err();
    let kind = PoolErrorKind::Moved { chunks: 1, in_use: 2, first: moved[0] };
    assert_eq!((report.kind(), report.is_transient()), (kind, false));
    let PoolStatistics { objects: all, in_use, available, moved, .. } = pool.statistics();
    assert_eq!((all, in_use, available, moved, pool.is_low()), (12, 6, 4, 4, true));
    assert!(pool.to_string().contains("in use, 4 in chunks that moved, limit 12"), "{pool}");

    objects.extend(std::iter::from_fn(|| pool.alloc_atomic().ok()));
    assert_eq!(objects.len(), 6 + 4, "the objects of the chunks that did not move");
    let sound = objects.iter().filter(|object| object.check_in_place().is_ok()).count();
    assert_eq!(sound, 10, "the page of each object stayed");
    let error = pool.alloc_atomic().unwrap_err();
    assert_eq!(error.kind(), exhausted(12, 10, 4, 12));
    assert!(error.to_string().contains("4 have moved: drop those in use and trim"), "{error}");
    assert_eq!(pool.refill(), Err(error), "a moved chunk counts against the limit");

    // The model requires that P2M and M2P agree when the chunk is released.
    scene.platform.guest().forge(pfn, before);
    drop(objects);
    assert_eq!((pool.trim(), usage(&pool)), (12, (0, 0)));
    assert_eq!((pool.refill(), pool.check_in_place()), (Ok(12), Ok(())));
    drop(pool);
    scene.check_balance();
}

#[test]
fn c75_a_pool_that_was_not_checked_allocates_no_moved_object() {
    let scene = pv();
    let pool = scene.pool(exchanged(4000).reserve(4).limit(8));
    let object = pool.alloc_atomic().unwrap();
    let page = scene.first_frame(&object, 0);
    drop(object);
    let before = move_page(&scene, page);
    let error = pool.alloc_atomic().unwrap_err();
    assert_eq!(error.kind(), exhausted(4, 0, 4, 8));
    assert!(error.to_string().contains("refill"), "{error}");
    assert_eq!(pool.refill(), Ok(4));
    assert_eq!(pool.alloc_atomic().unwrap().check_in_place(), Ok(()));
    scene.platform.guest().forge(page, before);
    drop(pool);
    scene.check_balance();
}
