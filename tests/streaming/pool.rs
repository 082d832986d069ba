//! Bounce memory from a pool.

use std::ptr::NonNull;

use xen_contig::dma::{
    AllocError, Constraints, Device, Direction, MapError, Mapper, Pool, PoolConfig, Sleep, Zeroing,
};

use crate::memory::{DriverMemory, load, noise, store};
use crate::random::Random;
use crate::scene::{KINDS, Kernel, KernelMapping, ModelDevice, PAGE, StreamingScene};

fn must_not_sleep() -> Constraints {
    Constraints::builder().sleep(Sleep::MustNot).max_segments(4).build().unwrap()
}

/// Makes a pool of `objects` objects of `pages` pages.
fn pool<'d>(device: &'d Device<'_, Kernel>, pages: u64, objects: u64) -> Pool<'d, Kernel> {
    let config = PoolConfig::builder("bounce", pages * PAGE).zeroing(Zeroing::Whatever);
    let config = config.reserve(objects).limit(objects).build().unwrap();
    Pool::new(device, config).unwrap()
}

fn map<'d>(
    mapper: &Mapper<'d, Kernel>,
    range: NonNull<[u8]>,
) -> Result<KernelMapping<'d>, MapError> {
    // SAFETY: the range is memory of the test, which does not access it while the device may.
    unsafe { mapper.map(range, Direction::Bidirectional) }
}

#[test]
fn a_pool_serves_callers_that_must_not_sleep() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let unlimited = scene.device(Constraints::default());
        let pool = pool(&unlimited, 2, 2);
        scene.allocator.trim(u64::MAX);
        let device = scene.device(must_not_sleep());
        let mapper = device.mapper().with_pool(&pool);
        let memory = DriverMemory::heap(4);
        let (one, two) = (memory.range(4000, 4096), memory.range(0, 7));
        for range in [one, two] {
            store(&[range], 0, &noise(&mut Random(3), range.len() as u64));
        }
        scene.take_calls();
        let mappings = [one, two].map(|range| map(&mapper, range).unwrap());
        assert_eq!(pool.statistics().in_use, 2);
        for (mapping, range) in mappings.iter().zip([one, two]) {
            let model = ModelDevice::new(scene.guest(), mapping);
            assert!(model.reads(0..mapping.len()) == load(&[range]));
            model.writes(3, b"xyz");
            assert_eq!(mapping.check_in_place(), Ok(()));
        }
        let error = map(&mapper, memory.range(9000, 1)).unwrap_err();
        let expected = AllocError::MustNotSleep;
        assert_eq!(error, MapError::NoBounceMemory { bytes: PAGE, error: expected });
        assert!(error.is_transient());
        drop(mappings);
        assert_eq!((pool.statistics().in_use, scene.take_calls()), (0, 0));
        assert_eq!([load(&[one])[3..6].to_vec(), load(&[two])[3..6].to_vec()], [b"xyz"; 2]);
        // An object is too short for three pages.
        assert!(map(&mapper, memory.range(1, 2 * PAGE)).is_err());
        assert_eq!(pool.statistics().in_use, 0);
    }
}

#[test]
fn a_device_sees_nothing_of_the_mapping_before() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let unlimited = scene.device(Constraints::default());
        let pool = pool(&unlimited, 1, 1);
        let device = scene.device(must_not_sleep());
        let mapper = device.mapper().with_pool(&pool);
        let memory = DriverMemory::heap(1);
        let whole = memory.range(0, PAGE);
        store(&[whole], 0, &[0xaa; PAGE as usize]);
        drop(map(&mapper, whole).unwrap());
        let mapping = map(&mapper, memory.range(100, 5)).unwrap();
        let start = mapping.segments().next().unwrap().dma.frame();
        let mut page = [1; PAGE as usize];
        scene.guest().dma_read(xen_contig::addr::DmaAddr::of(start), &mut page);
        let expected = |at: usize| if (100..105).contains(&at) { 0xaa } else { 0 };
        assert!(page.iter().enumerate().all(|(at, byte)| *byte == expected(at)));
    }
}

#[test]
fn an_object_that_the_device_does_not_take_is_not_used() {
    for kind in KINDS {
        let scene = StreamingScene::new(1024, kind);
        let memory = DriverMemory::heap(2);
        let unlimited = scene.device(Constraints::default());
        for (limits, pages) in [
            // Above the mask, below the lowest address, and across a boundary.
            (Constraints::builder().mask(0xffff), 1),
            (Constraints::builder().lowest(1 << 32), 1),
            (Constraints::builder().boundary(4096).max_segments(1), 2),
        ] {
            let pool = pool(&unlimited, pages, 1);
            let device = scene.device(limits.sleep(Sleep::MustNot).build().unwrap());
            let mapper = device.mapper().with_pool(&pool);
            let error = map(&mapper, memory.range(10, pages * 4000)).unwrap_err();
            assert!(
                matches!(error, MapError::NoBounceMemory { .. } | MapError::TooLong { .. }),
                "{error}"
            );
            assert_eq!(pool.statistics().in_use, 0);
        }
    }
}
