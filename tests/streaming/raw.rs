//! Mappings that drivers hold by their addresses alone.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use xen_contig::addr::Mfn;
use xen_contig::dma::{AllocError, Constraints, Direction, FailureCause, MapError, Request, Sleep};
use xen_contig::platform::Platform;

use crate::memory::DriverMemory;
use crate::scene::{PAGE, StreamingScene};

const BOTH: Direction = Direction::Bidirectional;

#[test]
fn a_caller_that_must_not_sleep_takes_no_frame_for_the_record_of_a_mapping() {
    let scene = StreamingScene::new(2048, |pv| pv);
    let device = scene.device(Constraints::default());
    let asleep = Constraints::builder().sleep(Sleep::MustNot).build().unwrap();
    let frames = device.record_frames();
    let any = Constraints::default();
    let fill_reserve = || drop(scene.allocator.alloc_coherent(16 * PAGE, &any).unwrap());
    let mut all = Vec::new();
    let records = loop {
        match device.alloc_coherent(Request::new(PAGE).sleep(Sleep::MustNot)) {
            Ok(buffer) => all.push(buffer),
            Err(AllocError::MustNotSleep) => fill_reserve(),
            Err(error) => break error,
        }
    };
    // The bounce buffer has memory, but no record.
    fill_reserve();
    assert!(matches!(records, AllocError::RecordsFull { .. }), "{records}");
    let memory = DriverMemory::heap(1);
    // SAFETY: nothing accesses the memory, and no device exists.
    let refused = unsafe { device.map_raw(memory.range(0, 64), BOTH, &asleep) };
    let expected = MapError::NoBounceMemory { bytes: 64, error: records };
    assert_eq!((refused, device.record_frames()), (Err(expected), frames));
    let counts = *device.report().counts();
    assert_eq!((counts.failures_by(FailureCause::Records), counts.bounced_mappings), (2, 0));
    drop(all);
    drop(device);
    scene.check_balance(0);
}

#[test]
fn all_frames_of_a_lost_bounce_buffer_are_counted() {
    let scene = StreamingScene::new(512, |pv| pv);
    let device = scene.device(Constraints::default());
    let memory = DriverMemory::heap(2);
    // SAFETY: nothing accesses the memory, and no device exists.
    let mapped = unsafe { device.map_raw(memory.range(PAGE / 2, PAGE), BOTH, device.limits()) };
    assert!(mapped.unwrap().bounce.is_some());
    assert_eq!(device.close().unwrap_err().buffers, 1);
    // Half of each page was mapped.
    assert_eq!(Platform::accounts(&scene.platform).forgotten(), 2);
}

#[test]
fn a_mapping_without_a_record_is_not_bounced_first() {
    let scene = StreamingScene::new(2048, |pv| pv);
    let device = scene.device(Constraints::default());
    let frames = device.record_frames();
    let mut all = Vec::new();
    while device.record_frames() == frames {
        all.push(device.alloc_coherent(PAGE).unwrap());
    }
    // The last buffer began a frame of records. As many more buffers fill it.
    for _ in 1..all.len() - 1 {
        all.push(device.alloc_coherent(PAGE).unwrap());
    }
    assert_eq!(device.record_frames(), frames + 1);
    let memory = DriverMemory::heap(1);
    scene.take_calls();
    scene.platform.deny_takes(true);
    // SAFETY: nothing accesses the memory, and no device exists.
    let refused = unsafe { device.map_raw(memory.range(0, 64), BOTH, device.limits()) };
    let error = AllocError::NoRecordMemory { frames: 1 };
    assert_eq!(refused, Err(MapError::NoBounceMemory { bytes: 64, error }));
    scene.platform.deny_takes(false);
    let counts = *device.report().counts();
    assert_eq!((counts.bounced_mappings, counts.live_mappings, counts.failures()), (0, 0, 1));
    drop(all);
    drop(device);
    scene.check_balance(0);
}

/// Both threads run until the mappings are done, whatever the frame was at each of them.
#[test]
fn a_page_that_loses_its_frame_during_the_call_is_not_backed() {
    let scene = StreamingScene::new(512, |pv| pv);
    let device = scene.device(Constraints::default());
    let memory = DriverMemory::scattered(&scene, 1);
    let pfn = memory.first_frame(&scene);
    let (mfn, nothing) = (scene.guest().mfn(pfn).unwrap(), Mfn::new(u64::MAX));
    let done = AtomicBool::new(false);
    let results: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                scene.guest().forge(pfn, nothing);
                scene.guest().forge(pfn, mfn);
            }
        });
        // SAFETY: nothing accesses the memory, and no device exists.
        let map = || unsafe { device.map_raw(memory.range(0, 64), BOTH, device.limits()) };
        let results = (0..20_000).map(|_| map()).collect();
        done.store(true, Relaxed);
        results
    });
    let (mapped, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let lost = Err(MapError::NotBacked { offset: 0, pfn });
    assert!(failed.iter().all(|it| *it == lost), "{failed:?}");
    let counts = *device.report().counts();
    let (mapped, failed) = (mapped.len() as u64, failed.len() as u64);
    assert_eq!((counts.direct_mappings, counts.live_mappings), (mapped, mapped));
    assert_eq!(counts.failures(), failed);
}
