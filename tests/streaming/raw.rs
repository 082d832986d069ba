//! Mappings that drivers hold by their addresses alone.

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
    assert_eq!(device.report().counts().failures_by(FailureCause::Records), 2);
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
