//! Pools, from which several vCPUs allocate at the same time.

use loom::cell::UnsafeCell;
use xen_contig::dma::{
    Constraints, Device, Pool, PoolBuilder, PoolConfig, PoolError, PoolErrorKind, PoolObject,
    Retain, Zeroing,
};
use xen_contig::paging::GuestMemory;

use crate::scene::{Kernel, Lasting, LoomScene, explore, join, spawn};

/// The size of an object in bytes: one page, so that each chunk has one object.
const SIZE: u64 = 4096;

/// A pool, and a cell for each page, by which loom checks accesses.
struct PoolScene {
    pool: Lasting<Pool<'static, Kernel>>,
    device: Lasting<Device<'static, Kernel>>,
    contents: Lasting<Contents>,
    scene: LoomScene,
}

/// A cell for each page. Loom fails the test if two accesses to a cell have no order.
///
/// That happens if an object has two owners, or if an owner does not see the accesses of the owner
/// before.
struct Contents {
    linear: usize,
    pages: Vec<UnsafeCell<u64>>,
}

// SAFETY: loom checks each access to a cell, and fails the test if two of them race.
unsafe impl Sync for Contents {}

impl Contents {
    fn touch(&self, object: &PoolObject<'_, Kernel>) {
        let page = (object.as_ptr().addr().get() - self.linear) / SIZE as usize;
        // SAFETY: loom fails the test before an access that races with another.
        self.pages[page].with_mut(|content| unsafe { *content += 1 });
    }
}

impl PoolScene {
    fn new(config: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Self {
        let scene = LoomScene::with_record_memory(Retain::default());
        let builder = PoolConfig::builder("explored", SIZE).zeroing(Zeroing::Whatever);
        let config = config(builder).build().expect("the limits do not contradict each other");
        let device = Device::new(scene.allocator.get(), "explored", &Constraints::default());
        let device = Lasting::new(device.expect("a new guest has free frames"));
        let pool = Pool::new(device.get(), config).expect("a new guest has free frames");
        let pages = (0..scene.guest.frames()).map(|_| UnsafeCell::new(0)).collect();
        let linear = scene.guest.pointer(xen_contig::addr::Pfn::new(0)).addr();
        let contents = Lasting::new(Contents { linear, pages });
        Self { pool: Lasting::new(pool), device, contents, scene }
    }

    /// Returns how many objects the pool has, and how many are in use.
    fn usage(&self) -> (u64, u64) {
        let statistics = self.pool.statistics();
        (statistics.objects, statistics.in_use)
    }

    /// Drops the pool, and checks that it frees every frame, also of its records.
    fn end(self) {
        drop(self.pool);
        assert_eq!(self.device.live(), 0);
        drop(self.device);
        self.scene.check_balance();
    }
}

/// Checks the figures of a pool that has no object.
fn check_exhausted(error: &PoolError) {
    let PoolErrorKind::Exhausted { objects, in_use, limit, .. } = error.kind() else {
        panic!("{error}")
    };
    assert!(in_use <= objects && objects <= limit, "{error}");
}

/// Threads allocate and drop. An object has one owner at a time, and no object is lost.
fn contend(objects: u64, threads: usize, rounds: usize) {
    let scene = PoolScene::new(|config| config.reserve(objects).limit(objects));
    let (pool, contents) = (scene.pool.get(), scene.contents.get());
    let work = move || {
        for _ in 0..rounds {
            match pool.alloc_atomic() {
                Ok(object) => contents.touch(&object),
                Err(error) => check_exhausted(&error),
            }
        }
    };
    let workers: Vec<_> = (1..threads).map(|_| spawn(work)).collect();
    work();
    workers.into_iter().for_each(join);
    assert_eq!(scene.usage(), (objects, 0));
    scene.end();
}

#[test]
fn one_object_has_one_owner_at_a_time() {
    explore(3, || contend(1, 2, 2));
}

#[test]
fn two_objects_serve_three() {
    explore(2, || contend(2, 3, 1));
}

/// A thread that drops an object gets one again, whatever other threads do.
#[test]
fn a_dropped_object_is_available_at_once() {
    explore(3, || {
        let scene = PoolScene::new(|config| config.reserve(2).limit(2));
        let (pool, contents) = (scene.pool.get(), scene.contents.get());
        let work = move || {
            for _ in 0..2 {
                contents
                    .touch(&pool.alloc_atomic().expect("the pool has one object for each thread"));
            }
        };
        let other = spawn(work);
        work();
        join(other);
        assert_eq!(scene.usage(), (2, 0));
        scene.end();
    });
}

/// One thread refills while the other allocates. It sees the new chunk complete or not at all.
#[test]
fn a_chunk_is_visible_only_when_it_is_complete() {
    explore(3, || {
        let scene = PoolScene::new(|config| config.reserve(1).limit(2));
        let (pool, contents) = (scene.pool.get(), scene.contents.get());
        let kept = pool.alloc_atomic().expect("the pool starts with one object");
        contents.touch(&kept);
        let taker = spawn(move || match pool.alloc_atomic() {
            Ok(object) => {
                contents.touch(&object);
                true
            }
            Err(error) => {
                check_exhausted(&error);
                false
            }
        });
        assert_eq!(pool.refill(), Ok(1));
        let mine = pool.alloc_atomic();
        let served = join(taker);
        assert_eq!(scene.usage(), (2, 1 + u64::from(mine.is_ok())), "served: {served}");
        assert!(served || mine.is_ok(), "one of the two got the new object");
        drop((kept, mine));
        scene.end();
    });
}

/// One thread adds the first chunk while the other reads.
///
/// The chunk comes with the first block of records. The reader sees the block complete or not at all.
#[test]
fn a_block_of_records_is_visible_only_when_it_is_complete() {
    explore(3, || {
        let scene = PoolScene::new(|config| config.limit(1));
        let (pool, contents) = (scene.pool.get(), scene.contents.get());
        let reader = spawn(move || {
            let statistics = pool.statistics();
            assert!(statistics.in_use <= statistics.objects && statistics.record_frames <= 1);
            match pool.alloc_atomic() {
                Ok(object) => contents.touch(&object),
                Err(error) => check_exhausted(&error),
            }
        });
        match pool.alloc() {
            Ok(object) => contents.touch(&object),
            Err(error) => check_exhausted(&error),
        }
        join(reader);
        assert_eq!((scene.usage(), pool.statistics().record_frames), ((1, 0), 1));
        scene.end();
    });
}

/// Two threads grow an empty pool with a limit of two chunks. Each may add a block of records. A
/// thread without an object gets the error of the limit, and every frame is returned.
#[test]
fn two_threads_that_grow_a_pool_each_add_a_chunk_or_get_an_error() {
    // The records of the device have interleavings of their own. With two preemptions it takes many minutes.
    explore(1, || {
        let scene = PoolScene::new(|config| config.limit(2));
        let (pool, contents) = (scene.pool.get(), scene.contents.get());
        let work = move || match pool.alloc() {
            Ok(object) => contents.touch(&object),
            Err(error) => check_exhausted(&error),
        };
        let other = spawn(work);
        work();
        work();
        join(other);
        let (objects, in_use) = scene.usage();
        assert!((1..=2).contains(&objects) && in_use == 0, "{objects}");
        assert!((1..=2).contains(&pool.statistics().record_frames));
        scene.end();
    });
}
