//! The pools of small DMA objects against the model.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use std::thread;

use fake_xen::{FakeGuest, FakePlatform, FakeXen, Fault, GuestBuilder};
use hypercall::XenErrno;
use xen_contig::addr::{Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, AtomicPool, BufferError, Constraints, GiveBack, Moved, Pool,
    PoolBuilder, PoolConfig, PoolError, PoolObject, Sleep, Zeroing,
};
use xen_contig::exchange::{Accounts, ExchangeError};
use xen_contig::frames::{Candidate, FrameRun};
use xen_contig::p2m::P2m;
use xen_contig::paging::Width;
use xen_contig::platform::Platform;

type Model = &'static FakePlatform;
type Object<'p> = PoolObject<'p, Model>;

const PAGE: u64 = PAGE_SIZE as u64;

/// A guest, its kernel and an allocator.
struct PoolScene {
    platform: Model,
    allocator: Allocator<Model>,
    free: u64,
}

impl PoolScene {
    fn new(guest: FakeGuest) -> Self {
        let platform: Model = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let allocator = Allocator::new(platform, GiveBack::AtOnce);
        platform.guest().xen().take_log();
        Self { platform, allocator, free: platform.free_frames() }
    }

    fn calls(&self) -> usize {
        self.platform.guest().xen().take_log().len()
    }

    /// Every frame is where it was, and all books agree.
    fn is_balanced(&self) {
        assert_eq!(self.platform.free_frames(), self.free);
        self.platform.guest().check_whole();
    }
}

fn pv() -> PoolScene {
    PoolScene::new(FakeGuest::new(4096))
}

fn build(builder: PoolBuilder) -> PoolConfig {
    builder.build().unwrap()
}

/// What forces an exchange for every chunk: four frames in a row, of a scattered guest.
fn exchanged(size: u64) -> PoolBuilder {
    PoolConfig::builder(size).chunk(4 * PAGE)
}

fn below(mask: u64) -> Constraints {
    Constraints::builder().mask(mask).build().unwrap()
}

/// The machine has beneath every byte of the object what the device is told, and nobody else has
/// a byte of it.
fn are_sound(scene: &PoolScene, objects: &mut [Object<'_>], admits: impl Fn(u64, u64) -> bool) {
    let guest = scene.platform.guest();
    let mut extents: Vec<(u64, u64)> = Vec::new();
    for object in objects.iter() {
        let dma = object.dma_addr().get();
        assert!(admits(dma, object.len()), "{object:?}");
        extents.push((dma, dma + object.len()));
        let linear = object.as_ptr().as_ptr() as u64 - fake_xen::LINEAR;
        for offset in [0, object.len() / 2, object.len() - 1] {
            let at = object.dma_addr_at(offset).unwrap();
            assert_eq!(at.get(), dma + offset);
            let mfn = guest.mfn(Pfn::new((linear + offset) / PAGE)).unwrap();
            assert_eq!((mfn.number(), at.offset()), (at.frame().number(), at.offset()));
            assert_eq!((linear + offset) % PAGE, at.get() % PAGE);
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
fn objects_lie_where_the_device_is_told_and_keep_every_rule() {
    let scene = pv();
    let (any, low) = (Constraints::default(), below(2 * 4096 * PAGE - 1));
    for (config, device, align, boundary) in [
        (PoolConfig::builder(64), any, 1, 1 << 40),
        (PoolConfig::builder(12), any, 4, 64),
        (PoolConfig::builder(100), low, 32, 4096),
        (exchanged(1000), low, 1, 1 << 40),
        (exchanged(3000), any, 1024, 1 << 13),
        (exchanged(1500), any, 1, 1 << 16),
        (PoolConfig::builder(5000), any, 1 << 14, 1 << 40),
    ] {
        let config = config.align(align).boundary(boundary).constraints(device).limit(20);
        let pool: Pool<'_, _, 20> = Pool::new(&scene.allocator, &build(config)).unwrap();
        let mut objects: Vec<Object<'_>> = (0..20).map(|_| pool.alloc().unwrap()).collect();
        are_sound(&scene, &mut objects, |at, len| {
            device.admits(at, len)
                && at.is_multiple_of(align)
                && at / boundary == (at + len - 1) / boundary
        });
        drop(objects);
        drop(pool);
        scene.is_balanced();
    }
}

#[test]
fn a_pool_grows_to_its_limit_and_not_beyond() {
    let scene = pv();
    let config = build(exchanged(4000).limit(7));
    assert_eq!(config.objects_per_chunk(), 4);
    let pool: Pool<'_, _, 4> = Pool::new(&scene.allocator, &config).unwrap();
    assert_eq!((scene.calls(), pool.capacity(), pool.limit()), (0, 0, 7));
    let first: Vec<Object<'_>> = (0..4).map(|_| pool.alloc().unwrap()).collect();
    let cold = scene.calls();
    assert!(cold > 0 && pool.capacity() == 4, "one chunk, exchanged once");
    let rest: Vec<Object<'_>> = (0..3).map(|_| pool.alloc().unwrap()).collect();
    assert_eq!((scene.calls(), pool.capacity(), pool.in_use()), (cold, 7, 7));
    let exhausted = PoolError::Exhausted { capacity: 7, in_use: 7, moved: 0, limit: 7 };
    assert_eq!(pool.alloc().unwrap_err(), exhausted);
    drop(first);
    let again: Vec<Object<'_>> = (0..4).map(|_| pool.alloc().unwrap()).collect();
    assert_eq!((scene.calls(), pool.in_use()), (0, 7), "what comes back is used again");
    drop((rest, again));
    assert_eq!(format!("{pool:?}"), "Pool(0 of 7 objects of 4000 bytes, limit 7)");
    drop(pool);
    scene.is_balanced();
}

#[test]
fn a_pool_that_cannot_grow_says_why_and_is_as_it_was() {
    let scene = pv();
    let config = build(exchanged(4000));
    let pool: Pool<'_, _, 2> = Pool::new(&scene.allocator, &config).unwrap();
    let mut object = pool.alloc().unwrap();
    object.store(0, Width::Quad, 0x1234).unwrap();
    scene.platform.guest().fragment(Order::new(2).unwrap());
    let others: Vec<Object<'_>> = (0..3).map(|_| pool.alloc().unwrap()).collect();
    let error = pool.alloc().unwrap_err();
    let no_memory = matches!(error, PoolError::Alloc { error: AllocError::Exchange(error), .. }
        if matches!(error, ExchangeError::NoMemory { .. }));
    assert!(no_memory, "{error}");
    assert_eq!((pool.capacity(), pool.in_use()), (4, 4));
    assert_eq!(object.load(0, Width::Quad), Ok(0x1234));
    scene.platform.guest().relieve();
    drop(pool.alloc().unwrap());
    assert_eq!(pool.capacity(), 8, "the place that could not be filled is not lost");
    drop((object, others));
    drop(pool);
    scene.is_balanced();

    let awake = Constraints::builder().sleep(Sleep::MustNot).build().unwrap();
    let config = build(exchanged(64).constraints(awake));
    let pool: Pool<'_, _, 4> = Pool::new(&scene.allocator, &config).unwrap();
    scene.calls();
    assert_eq!(pool.alloc().unwrap_err(), AllocError::MustNotSleep.into());
    assert_eq!(scene.calls(), 0);
}

#[test]
fn an_atomic_pool_makes_no_hypercall_and_takes_no_frame() {
    let scene = pv();
    let config = build(exchanged(4000).reserve(6).limit(10));
    let pool: AtomicPool<'_, _, 4> = AtomicPool::new(&scene.allocator, &config).unwrap();
    assert_eq!((pool.capacity(), pool.reserve(), pool.limit()), (8, 6, 10));
    assert!(scene.calls() > 0, "sized at boot");
    let free = scene.platform.free_frames();
    let mut objects: Vec<Object<'_>> = (0..8).map(|_| pool.alloc().unwrap()).collect();
    assert_eq!(
        pool.alloc().unwrap_err(),
        PoolError::Exhausted { capacity: 8, in_use: 8, moved: 0, limit: 10 },
        "it may have more, but not from here"
    );
    are_sound(&scene, &mut objects, |_, _| true);
    objects.truncate(6);
    drop(pool.alloc().unwrap());
    assert_eq!((scene.calls(), scene.platform.free_frames()), (0, free));

    // 2 of 8 are free, 6 should be, and 2 more are all that there may be.
    assert!(pool.is_low());
    let exhausted = PoolError::Exhausted { capacity: 10, in_use: 6, moved: 0, limit: 10 };
    assert_eq!(pool.refill(), Err(exhausted));
    objects.truncate(4);
    assert_eq!((pool.is_low(), pool.refill()), (false, Ok(0)));
    drop(objects);
    drop(pool);
    scene.is_balanced();
}

#[test]
fn a_refill_restores_the_reserve() {
    let scene = pv();
    let config = build(exchanged(4000).reserve(3));
    let pool: AtomicPool<'_, _, 8> = AtomicPool::new(&scene.allocator, &config).unwrap();
    let mut objects = Vec::new();
    let mut added = 0;
    while pool.capacity() < pool.limit() {
        while let Ok(object) = pool.alloc() {
            objects.push(object);
        }
        added += pool.refill().unwrap();
        assert!(pool.capacity() - pool.in_use() >= 3);
    }
    assert_eq!((added, pool.capacity()), (28, 32));
    drop(objects);
    drop(pool);
    scene.is_balanced();
}

#[test]
fn a_refill_that_fails_keeps_what_it_got_and_goes_on_later() {
    let scene = pv();
    let config = build(exchanged(4000).reserve(4));
    let pool: AtomicPool<'_, _, 8> = AtomicPool::new(&scene.allocator, &config).unwrap();
    let mut objects: Vec<Object<'_>> = (0..4).map(|_| pool.alloc().unwrap()).collect();
    scene.platform.guest().fragment(Order::new(2).unwrap());
    let error = pool.refill().unwrap_err();
    let refused = matches!(error, PoolError::Alloc { added: 0, error: AllocError::Exchange(_) });
    assert!(refused, "{error}");
    assert_eq!(
        pool.alloc().unwrap_err(),
        PoolError::Exhausted { capacity: 4, in_use: 4, moved: 0, limit: 32 },
        "{error}"
    );
    scene.platform.guest().relieve();
    assert_eq!(pool.refill(), Ok(4));
    objects.push(pool.alloc().unwrap());
    are_sound(&scene, &mut objects, |_, _| true);
    drop(objects);
    drop(pool);
    scene.is_balanced();
}

#[test]
fn a_pool_that_cannot_be_filled_at_boot_gives_all_back() {
    let scene = pv();
    let config = build(exchanged(4000).reserve(400));
    scene.platform.guest().exhaust_but(120);
    let error = AtomicPool::<_, 128>::new(&scene.allocator, &config).unwrap_err();
    assert!(matches!(error, PoolError::Alloc { error: AllocError::Exchange(_), .. }), "{error}");
    scene.platform.guest().relieve();
    scene.is_balanced();

    let error = AtomicPool::<_, 2>::new(&scene.allocator, &config).unwrap_err();
    let above = PoolError::ReserveAboveLimit { reserve: 400, limit: 8 };
    assert_eq!(error, above);
    let config = build(exchanged(4000).limit(9));
    let error = Pool::<_, 2>::new(&scene.allocator, &config).unwrap_err();
    assert_eq!(error, PoolError::LimitAboveRoom { limit: 9, room: 8 });
    scene.is_balanced();
}

#[test]
fn every_call_of_a_refill_fails_once_and_nothing_is_lost() {
    let mut tried = 0;
    for errno in [XenErrno::EPERM, XenErrno::ENOMEM, XenErrno::EINVAL, XenErrno::EFAULT] {
        for call in 1.. {
            let scene = pv();
            let config = build(exchanged(4000).reserve(4));
            let pool: AtomicPool<'_, _, 8> = AtomicPool::new(&scene.allocator, &config).unwrap();
            let mut objects: Vec<Object<'_>> = (0..3).map(|_| pool.alloc().unwrap()).collect();
            objects[0].store(0, Width::Quad, 0x5afe).unwrap();
            scene.platform.guest().xen().arm(Fault::refuse(call, errno));
            let refill = pool.refill();
            let hit = scene.platform.guest().xen().disarm() > 0;
            assert_eq!(objects[0].load(0, Width::Quad), Ok(0x5afe));
            match refill {
                Ok(added) => assert_eq!((added, pool.capacity()), (4, 8)),
                Err(error) => {
                    assert!(hit && matches!(error, PoolError::Alloc { added: 0, .. }), "{error}");
                    assert_eq!(pool.capacity(), 4);
                    let lost = scene.platform.accounts().quarantined();
                    assert_eq!(scene.platform.free_frames() + lost, scene.free - 4);
                    assert_eq!(pool.refill(), Ok(4), "{call} {errno:?}");
                }
            }
            objects.push(pool.alloc().unwrap());
            are_sound(&scene, &mut objects, |_, _| true);
            drop(objects);
            drop(pool);
            let lost = scene.platform.accounts().quarantined();
            assert_eq!(scene.platform.free_frames() + lost, scene.free, "{call} {errno:?}");
            if lost == 0 {
                scene.is_balanced();
            }
            if !hit {
                break;
            }
            tried += 1;
        }
    }
    println!("{tried} faults tried");
    assert!(tried >= 16);
}

#[test]
fn a_forgotten_object_leaks_its_chunk_and_no_other() {
    let scene = pv();
    let config = build(exchanged(4000).reserve(8));
    let mut pool: AtomicPool<'_, _, 8> = AtomicPool::new(&scene.allocator, &config).unwrap();
    let mut object = pool.alloc().unwrap();
    object.store(0, Width::Quad, 0x5afe).unwrap();
    let device = object.dma_addr();
    std::mem::forget(object);
    assert_eq!(pool.in_use(), 1);
    assert_eq!((pool.trim(), pool.capacity(), pool.in_use()), (4, 4, 1));
    assert_eq!(scene.platform.free_frames(), scene.free - 4);
    drop(pool);
    assert_eq!(scene.platform.free_frames(), scene.free - 4, "a device may still write there");
    // The machine frame that the device has is still the guest's, and nobody else's memory.
    let guest = scene.platform.guest();
    let pfn = guest.pfn(hypercall::Mfn::new(device.frame().number())).unwrap();
    assert_eq!(guest.read(0, pfn, 0), 0x5afe);
    while let Some(run) = scene.platform.take(1, 1) {
        assert_ne!(run.first(), pfn);
    }
    guest.check_whole();
}

#[test]
fn what_is_trimmed_comes_again() {
    let scene = pv();
    let config = build(exchanged(4000));
    let mut pool: Pool<'_, _, 2> = Pool::new(&scene.allocator, &config).unwrap();
    for _ in 0..3 {
        let objects: Vec<Object<'_>> = (0..8).map(|_| pool.alloc().unwrap()).collect();
        drop(objects);
        assert_eq!((pool.trim(), pool.trim(), pool.capacity()), (8, 0, 0));
        scene.is_balanced();
    }
}

#[test]
fn objects_come_zeroed_unless_nobody_cares() {
    let scene = pv();
    let whatever = Constraints::builder().zeroing(Zeroing::Whatever).build().unwrap();
    for (constraints, zeroed) in [(Constraints::default(), true), (whatever, false)] {
        let config = build(PoolConfig::builder(13).constraints(constraints));
        let pool: Pool<'_, _, 1> = Pool::new(&scene.allocator, &config).unwrap();
        let mut used: Vec<Object<'_>> = (0..5).map(|_| pool.alloc().unwrap()).collect();
        used.iter_mut().for_each(|object| object.write(0, &[0xff; 13]).unwrap());
        used.truncate(4);
        let mut bytes = [1; 13];
        let again = pool.alloc().unwrap();
        again.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, if zeroed { [0; 13] } else { [0xff; 13] });
        used[3].read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0xff; 13], "the neighbour is untouched");
    }
    scene.is_balanced();
}

#[test]
fn accesses_stay_within_the_object() {
    let scene = pv();
    let config = build(PoolConfig::builder(13));
    let pool: Pool<'_, _, 1> = Pool::new(&scene.allocator, &config).unwrap();
    let mut neighbours: Vec<Object<'_>> = (0..3).map(|_| pool.alloc().unwrap()).collect();
    let object = &mut neighbours[0];
    object.store(0, Width::Quad, u64::MAX).unwrap();
    object.store(12, Width::Byte, 0x107).unwrap();
    assert_eq!(object.load(12, Width::Byte), Ok(7));
    for (offset, width) in [
        (13, Width::Byte),
        (12, Width::Word),
        (8, Width::Quad),
        (1, Width::Word),
        (u64::MAX, Width::Byte),
        (u64::MAX - 7, Width::Quad),
    ] {
        assert!(object.load(offset, width).is_err() && object.store(offset, width, 0).is_err());
    }
    assert!(object.read(5, &mut [0; 9]).is_err() && object.write(u64::MAX, &[0]).is_err());
    let mut bytes = [1; 13];
    neighbours[1].read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 13]);
    // The second object begins at byte 13: what is aligned is an address, not an offset.
    assert!(neighbours[1].load(0, Width::Double).is_err());
    assert_eq!(neighbours[1].load(3, Width::Quad), Ok(0));
}

#[test]
fn a_translated_guest_has_pools_too() {
    let scene = PoolScene::new(GuestBuilder::new(4096).translated().build());
    let low = below(2048 * PAGE - 1);
    let config = build(exchanged(1500).constraints(low).reserve(20));
    let pool: AtomicPool<'_, _, 4> = AtomicPool::new(&scene.allocator, &config).unwrap();
    let objects: Vec<Object<'_>> = (0..20).map(|_| pool.alloc().unwrap()).collect();
    assert!(objects.iter().all(|object| low.admits(object.dma_addr().get(), 1500)));
    assert_eq!(scene.calls(), 0);
    drop(objects);
    drop(pool);
    scene.is_balanced();
}

#[test]
fn threads_never_share_an_object_and_lose_none() {
    const ROUNDS: u64 = 20_000;
    let scene = pv();
    let whatever = Constraints::builder().zeroing(Zeroing::Whatever).build().unwrap();
    let config = build(PoolConfig::builder(512).constraints(whatever).reserve(4).limit(64));
    let pool: AtomicPool<'_, _, 8> = AtomicPool::new(&scene.allocator, &config).unwrap();
    // Who has which object, in memory of the test: by the place in the machine, 512 bytes each.
    let owners: Vec<AtomicU64> = (0..5 * 4096 * 8).map(|_| AtomicU64::new(0)).collect();
    let start = Barrier::new(4);
    let exhausted = AtomicU64::new(0);
    let worker = |me: u64| {
        start.wait();
        let mut held: Vec<Object<'_>> = Vec::new();
        let mut random = me << 32 | 0x9e37_79b9;
        let owner = |object: &Object<'_>| &owners[(object.dma_addr().get() / 512) as usize];
        for _ in 0..ROUNDS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 8 < 5 || held.is_empty() {
                match pool.alloc() {
                    Ok(object) => {
                        assert_eq!(owner(&object).swap(me, Relaxed), 0, "{object:?}");
                        held.push(object);
                    }
                    Err(error) => {
                        let PoolError::Exhausted { capacity, limit: 64, .. } = error else {
                            panic!("{error}")
                        };
                        assert!(capacity <= 64, "{error}");
                        exhausted.fetch_add(1, Relaxed);
                    }
                }
            } else {
                let object = held.swap_remove(random as usize / 8 % held.len());
                assert_eq!(owner(&object).swap(0, Relaxed), me, "{object:?}");
                drop(object);
            }
        }
        held.iter().for_each(|object| assert_eq!(owner(object).swap(0, Relaxed), me));
    };
    thread::scope(|scope| {
        for me in 1..=3 {
            scope.spawn(move || worker(me));
        }
        scope.spawn(|| {
            start.wait();
            for _ in 0..ROUNDS / 10 {
                let refill = pool.refill();
                let at_most = |error: PoolError| matches!(error, PoolError::Exhausted { .. });
                assert!(refill.is_ok() || refill.is_err_and(at_most));
                thread::yield_now();
            }
        });
    });
    assert_eq!(pool.in_use(), 0);
    println!("exhausted {} times, grew to {}", exhausted.load(Relaxed), pool.capacity());
    drop(pool);
    scene.is_balanced();
}

/// A kernel that an interrupt cuts into whenever it takes frames or makes a hypercall's lists.
struct Interrupted {
    model: Model,
    handler: Mutex<Option<fn()>>,
}

impl Interrupted {
    fn interrupt(&self) {
        let handler = *self.handler.lock().unwrap();
        handler.into_iter().for_each(|handler| handler());
    }
}

// SAFETY: as the model, which does all the work.
unsafe impl Platform for &Interrupted {
    type Xen = FakeXen;
    type Memory = FakeGuest;
    type Linear = FakeGuest;
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

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.interrupt();
        self.model.take(frames, align)
    }

    fn take_where(
        &self,
        frames: u64,
        budget: u32,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Option<FrameRun> {
        self.interrupt();
        self.model.take_where(frames, budget, fits)
    }

    fn give(&self, run: FrameRun) {
        self.model.give(run);
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        self.interrupt();
        self.model.lists(words)
    }
}

impl Interrupted {
    fn model_p2m(&self) -> &P2m<'_> {
        Platform::p2m(&self.model)
    }
}

type Interruptible = AtomicPool<'static, &'static Interrupted, 8>;

static POOL: Mutex<Option<&'static Interruptible>> = Mutex::new(None);
static SERVED: AtomicU64 = AtomicU64::new(0);

#[test]
fn an_interrupt_handler_allocates_in_the_middle_of_a_refill() {
    fn handler() {
        let pool = POOL.lock().unwrap().expect("set before interrupts are");
        match pool.alloc() {
            Ok(object) => {
                SERVED.fetch_add(1, Relaxed);
                drop(object);
            }
            Err(PoolError::Exhausted { capacity, in_use, .. }) => assert_eq!(capacity, in_use),
            Err(error) => panic!("{error}"),
        }
    }
    let model: Model = Box::leak(Box::new(FakePlatform::new(FakeGuest::new(4096))));
    let free = model.free_frames();
    let kernel: &'static Interrupted =
        Box::leak(Box::new(Interrupted { model, handler: Mutex::new(None) }));
    let allocator = Box::leak(Box::new(Allocator::new(kernel, GiveBack::AtOnce)));
    let config = build(exchanged(4000).reserve(4));
    let pool: &'static Interruptible =
        Box::leak(Box::new(AtomicPool::new(allocator, &config).unwrap()));
    *POOL.lock().unwrap() = Some(pool);
    *kernel.handler.lock().unwrap() = Some(handler);
    let one = pool.alloc().unwrap();
    assert_eq!(pool.refill(), Ok(4));
    assert!(SERVED.load(Relaxed) >= 3, "interrupts came: {}", SERVED.load(Relaxed));
    // With nothing left, the handler is told so, and the refill still gets on.
    let all: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
    assert_eq!(pool.refill(), Ok(4));
    drop((one, all));
    assert_eq!((pool.in_use(), model.free_frames()), (0, free - 12));
    model.guest().check_whole();
}

/// What a restored kernel finds: another machine frame beneath a page.
fn move_page(scene: &PoolScene, pfn: Pfn) -> hypercall::Mfn {
    let elsewhere = scene.platform.guest().mfn(Pfn::new(4095)).unwrap();
    scene.platform.guest().forge(pfn, elsewhere)
}

fn page_of(object: &Object<'_>, offset: u64) -> Pfn {
    Pfn::new((object.as_ptr().as_ptr() as u64 - fake_xen::LINEAR + offset) / PAGE)
}

#[test]
fn c75_an_object_that_was_moved_says_so() {
    let scene = pv();
    let pool: Pool<'_, _, 4> =
        Pool::new(&scene.allocator, &build(exchanged(3000).limit(5))).unwrap();
    let objects: Vec<Object<'_>> = (0..5).map(|_| pool.alloc().unwrap()).collect();
    assert!(objects.iter().all(|object| object.check_in_place() == Ok(())));
    // The second object begins in the first page of the chunk and ends in the second.
    let (pfn, cut) = (page_of(&objects[1], 2999), PAGE - 3000);
    let before = move_page(&scene, pfn);
    let Err(BufferError::Moved(moved)) = objects[1].check_in_place() else { panic!("in place") };
    assert_eq!((moved.offset, moved.told), (cut, objects[1].dma_addr_at(cut).unwrap()));
    assert_ne!(moved.found, Some(moved.told));
    assert_eq!(objects[0].check_in_place(), Ok(()), "it lies in the page before");
    let moved = objects[2].check_in_place();
    assert!(matches!(moved, Err(BufferError::Moved(Moved { offset: 0, .. }))), "{moved:?}");
    scene.platform.guest().forge(pfn, before);
    assert!(objects.iter().all(|object| object.check_in_place() == Ok(())));
    drop(objects);
    drop(pool);
    scene.is_balanced();
}

#[test]
fn c75_a_pool_tells_what_moved_and_hands_out_no_more_of_it() {
    let scene = pv();
    let config = build(exchanged(4000).reserve(12));
    let mut pool: AtomicPool<'_, _, 3> = AtomicPool::new(&scene.allocator, &config).unwrap();
    let mut objects: Vec<Object<'_>> = (0..6).map(|_| pool.alloc().unwrap()).collect();
    assert_eq!((pool.check_in_place(), pool.moved_chunks().count()), (Ok(()), 0));
    // The last page of the second chunk, of which two objects are taken.
    let (pfn, first) = (page_of(&objects[4], 0).add(3), objects[4].dma_addr());
    let before = move_page(&scene, pfn);
    let moved: Vec<_> = pool.moved_chunks().collect();
    assert_eq!((moved.len(), pool.capacity()), (1, 12), "looking changes nothing");
    let told = first.checked_add(3 * PAGE).unwrap();
    assert_eq!((moved[0].chunk, moved[0].objects, moved[0].taken), (1, 4, 2));
    assert_eq!((moved[0].moved.offset, moved[0].moved.told), (3 * PAGE, told));
    let report = pool.check_in_place().unwrap_err();
    assert_eq!(report, PoolError::Moved { chunks: 1, taken: 2, first: moved[0] });
    let said = report.to_string();
    assert!(
        said.starts_with("1 chunks of the pool have moved, 2 of") && said.contains("chunk 1, of")
    );
    assert_eq!((pool.capacity(), pool.in_use(), pool.is_low()), (8, 4, true));

    objects.extend(std::iter::from_fn(|| pool.alloc().ok()));
    assert_eq!(objects.len(), 6 + 4, "the rest of what did not move");
    let sound = objects.iter().filter(|object| object.check_in_place().is_ok()).count();
    assert_eq!(sound, 10, "each of them lies in a page that stayed");
    let full = PoolError::Exhausted { capacity: 12, in_use: 12, moved: 0, limit: 12 }.to_string();
    assert!(full.ends_with("raise its limit"), "{full}");
    let exhausted = PoolError::Exhausted { capacity: 8, in_use: 8, moved: 4, limit: 12 };
    assert_eq!(pool.alloc().unwrap_err(), exhausted);
    assert!(exhausted.to_string().contains("4 more have moved: drop what is taken of them, then"));
    assert_eq!(pool.refill().unwrap_err(), exhausted, "its place is taken");

    // The chunk goes back with what it has; the model wants its books in agreement for that.
    scene.platform.guest().forge(pfn, before);
    drop(objects);
    assert_eq!((pool.trim(), pool.capacity()), (12, 0));
    assert_eq!((pool.refill(), pool.check_in_place()), (Ok(12), Ok(())));
    drop(pool);
    scene.is_balanced();
}

#[test]
fn c75_a_pool_that_nobody_checked_hands_out_no_address_from_before() {
    let scene = pv();
    let pool: AtomicPool<'_, _, 2> =
        AtomicPool::new(&scene.allocator, &build(exchanged(4000).reserve(4))).unwrap();
    let object = pool.alloc().unwrap();
    let page = page_of(&object, 0);
    drop(object);
    let before = move_page(&scene, page);
    let exhausted = PoolError::Exhausted { capacity: 0, in_use: 0, moved: 4, limit: 8 };
    assert_eq!(pool.alloc().unwrap_err(), exhausted);
    assert!(exhausted.to_string().contains("refill"), "{exhausted}");
    assert_eq!(pool.refill(), Ok(4));
    assert_eq!(pool.alloc().unwrap().check_in_place(), Ok(()));
    scene.platform.guest().forge(page, before);
    drop(pool);
    scene.is_balanced();
}
