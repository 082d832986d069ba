//! Streaming mappings, whose bounce memory several vCPUs take from one pool.

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use xen_contig::dma::{
    AllocError, Constraints, Device, Direction, MapError, Pool, PoolConfig, Retain, Sleep, Zeroing,
};

use crate::scene::{Kernel, Lasting, LoomScene, explore, join, spawn};

const PAGE: u64 = 4096;

/// A device, a pool of bounce memory, and a cell for each machine frame, by which loom checks accesses.
struct MappingScene {
    pool: Lasting<Pool<'static, Kernel>>,
    device: Lasting<Device<'static, Kernel>>,
    frames: Lasting<FrameCells>,
    scene: LoomScene,
}

/// Loom fails the test if two accesses to a cell have no order: if a bounce page has two owners, or an owner
/// does not see the accesses of the owner before.
struct FrameCells(Vec<UnsafeCell<u64>>);

// SAFETY: loom checks each access to a cell, and fails the test if two of them race.
unsafe impl Sync for FrameCells {}

impl MappingScene {
    fn new(objects: u64) -> Self {
        let scene = LoomScene::with_record_memory(Retain::default());
        let config = PoolConfig::builder("bounce", PAGE).zeroing(Zeroing::Whatever);
        let config = config.reserve(objects).limit(objects).build().expect("a sound pool");
        let device = Device::new(scene.allocator.get(), "explored", &Constraints::default());
        let device = Lasting::new(device.expect("a new guest has free frames"));
        let pool = Pool::new(device.get(), config).expect("a new guest has free frames");
        // The reserve then has nothing that could serve in place of the pool.
        scene.allocator.trim(u64::MAX);
        let frames = (0..scene.guest.xen().machine_frames()).map(|_| UnsafeCell::new(0)).collect();
        Self { pool: Lasting::new(pool), device, frames: Lasting::new(FrameCells(frames)), scene }
    }
}

/// Maps memory outside of the guest, lets the device write to it, and unmaps it. Returns true if there was
/// bounce memory.
fn map_once(
    device: &'static Device<'static, Kernel>,
    pool: &'static Pool<'static, Kernel>,
    frames: &'static FrameCells,
    value: u8,
) -> bool {
    let mut memory = [value; 24];
    let bytes = NonNull::from(&mut memory[..]);
    let mapper = device.mapper().with_pool(pool).sleep(Sleep::MustNot);
    // SAFETY: the memory outlives the mapping, and nothing accesses it meanwhile.
    match unsafe { mapper.map(bytes, Direction::Bidirectional) } {
        Ok(mapping) => {
            let segment = mapping.segments().next().expect("a mapping has a segment");
            let frame = (segment.dma.get() / PAGE) as usize;
            // SAFETY: loom fails the test before an access that races with another.
            frames.0[frame].with_mut(|content| unsafe { *content += 1 });
            drop(mapping);
            assert_eq!(memory, [value; 24], "the bytes of this thread came back");
            true
        }
        Err(MapError::NoBounceMemory { error: AllocError::MustNotSleep, .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn contend(objects: u64, rounds: u8) {
    let scene = MappingScene::new(objects);
    let (pool, device, frames) = (scene.pool.get(), scene.device.get(), scene.frames.get());
    let work = move |value| (0..rounds).any(|round| map_once(device, pool, frames, value + round));
    let other = spawn(move || work(10));
    let mine = work(20);
    let served = join(other);
    assert!(mine || served, "one of two threads gets the only object");
    assert!(objects == 1 || mine && served, "each of two threads gets one of two objects");
    let statistics = scene.pool.statistics();
    assert_eq!((statistics.objects, statistics.in_use), (objects, 0));
    let counts = *scene.device.report().counts();
    assert!(counts.bounced_mappings >= 1 && counts.direct_mappings == 0, "{counts:?}");
    assert_eq!(counts.live_mappings, 0);
    drop((scene.pool, scene.device));
    scene.scene.check_balance();
}

#[test]
fn two_threads_bounce_to_one_object() {
    explore(3, || contend(1, 2));
}

#[test]
fn two_threads_bounce_to_two_objects() {
    explore(2, || contend(2, 1));
}
