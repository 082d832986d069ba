//! Objects of pools, taken and given by several vCPUs.

use loom::cell::UnsafeCell;
use xen_contig::dma::{
    AtomicPool, Constraints, GiveBack, Pool, PoolConfig, PoolError, PoolObject, Zeroing,
};

use crate::scene::{Kernel, Lasting, LoomScene, explore, join, spawn};

type Objects<const CHUNKS: usize> = AtomicPool<'static, Kernel, CHUNKS>;

/// A page for each object and for each chunk.
const SIZE: u64 = 4096;

fn config(reserve: u64, limit: u64) -> PoolConfig {
    let whatever = Constraints::builder().zeroing(Zeroing::Whatever).build().unwrap();
    let builder = PoolConfig::builder(SIZE).chunk(SIZE).constraints(whatever);
    builder.reserve(reserve).limit(limit).build().unwrap()
}

/// The content of every object, as loom knows it: it objects to two who use one at a time, and to
/// one who uses it without having seen what its last owner did.
struct Contents(Vec<UnsafeCell<u64>>);

impl Contents {
    fn new(scene: &LoomScene) -> Lasting<Self> {
        let frames = scene.guest.frames();
        Lasting::new(Self((0..frames).map(|_| UnsafeCell::new(0)).collect()))
    }

    fn touch(&self, object: &PoolObject<'_, Kernel>) {
        let page = object.as_ptr().as_ptr() as u64 - fake_xen::LINEAR;
        // SAFETY: that nobody else does is what loom is asked.
        self.0[(page / SIZE) as usize].with_mut(|content| unsafe { *content += 1 });
    }
}

// SAFETY: as above.
unsafe impl Sync for Contents {}

/// No object has two owners, each owner sees what the last one did, none is lost, and what the pool
/// says of itself can be.
fn storm<const CHUNKS: usize>(reserve: u64, limit: u64, threads: usize, rounds: usize) {
    let scene = LoomScene::new(GiveBack::Keep);
    let contents = Contents::new(&scene);
    let pool: Objects<CHUNKS> =
        AtomicPool::new(scene.allocator.get(), &config(reserve, limit)).unwrap();
    let pool = Lasting::new(pool);
    let (objects, all) = (pool.get(), contents.get());
    let work = move || {
        for _ in 0..rounds {
            match objects.alloc() {
                Ok(object) => all.touch(&object),
                Err(exhausted) => is_possible(&exhausted),
            }
        }
    };
    let workers: Vec<_> = (1..threads).map(|_| spawn(work)).collect();
    work();
    workers.into_iter().for_each(join);
    assert_eq!((pool.in_use(), pool.capacity()), (0, reserve));
    drop(pool);
    scene.is_balanced();
}

fn is_possible(exhausted: &PoolError) {
    let PoolError::Exhausted { capacity, in_use, limit, .. } = *exhausted else {
        panic!("{exhausted}")
    };
    assert!(in_use <= capacity && capacity <= limit, "{exhausted}");
}

#[test]
fn one_object_has_one_owner_at_a_time() {
    explore(3, || storm::<1>(1, 1, 2, 2));
}

#[test]
fn two_objects_serve_three() {
    explore(2, || storm::<2>(2, 2, 3, 1));
}

/// One refills while the others take: the new chunk is seen whole or not at all.
#[test]
fn a_chunk_is_seen_when_it_is_complete() {
    explore(3, || {
        let scene = LoomScene::new(GiveBack::Keep);
        let contents = Contents::new(&scene);
        let pool: Objects<2> = AtomicPool::new(scene.allocator.get(), &config(1, 2)).unwrap();
        let pool = Lasting::new(pool);
        let (objects, all) = (pool.get(), contents.get());
        let kept = objects.alloc().expect("the reserve");
        all.touch(&kept);
        let taker = spawn(move || match objects.alloc() {
            Ok(object) => {
                all.touch(&object);
                true
            }
            Err(exhausted) => {
                is_possible(&exhausted);
                false
            }
        });
        assert_eq!(objects.refill(), Ok(1));
        let mine = objects.alloc();
        let served = join(taker);
        let taken = 1 + u64::from(mine.is_ok());
        assert_eq!((pool.in_use(), pool.capacity()), (taken, 2), "served: {served}");
        assert!(served || mine.is_ok(), "of two, one got the new one");
        drop((kept, mine));
        drop(pool);
        scene.is_balanced();
    });
}

/// Two at the end of a growing pool, with room for one chunk more: whoever gets nothing is told
/// that there may be no more, and both chunks are given back.
#[test]
fn two_that_grow_a_pool_add_a_chunk_each_or_are_told() {
    explore(2, || {
        let scene = LoomScene::new(GiveBack::Keep);
        let contents = Contents::new(&scene);
        let pool: Pool<'static, Kernel, 2> =
            Pool::new(scene.allocator.get(), &config(0, 2)).unwrap();
        let pool = Lasting::new(pool);
        let (objects, all) = (pool.get(), contents.get());
        let work = move || match objects.alloc() {
            Ok(object) => all.touch(&object),
            Err(exhausted @ PoolError::Exhausted { .. }) => is_possible(&exhausted),
            Err(error) => panic!("{error}"),
        };
        let other = spawn(work);
        work();
        work();
        join(other);
        assert_eq!(pool.in_use(), 0);
        drop(pool);
        scene.is_balanced();
    });
}
