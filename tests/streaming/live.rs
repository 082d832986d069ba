//! The live mappings of a device, by its report and when it is closed.

use xen_contig::dma::{Constraints, Device, Direction};

use crate::memory::DriverMemory;
use crate::scene::{KINDS, Kernel, PAGE, StreamingScene};

fn live(device: &Device<'_, Kernel>) -> u64 {
    device.report().counts().live_mappings
}

#[test]
fn live_mappings_are_counted_until_they_end() {
    let none = Constraints::default();
    for scene in KINDS.map(|kind| StreamingScene::new(1024, kind)) {
        let device = scene.device(none);
        let memories =
            [(DriverMemory::contiguous(&scene, 1, &none), true), (DriverMemory::heap(1), false)];
        for (memory, direct) in &memories {
            let (bytes, direction) = (memory.range(0, 100), Direction::Bidirectional);
            let list = [bytes];
            // SAFETY: the memory outlives the mapping, and nothing accesses it meanwhile.
            let mapping = unsafe { device.map(bytes, direction) }.unwrap();
            assert_eq!((live(&device), mapping.is_direct()), (1, *direct));
            // SAFETY: the memory outlives the mapping, and nothing accesses it meanwhile.
            let mapped = unsafe { device.map_list(&list, direction) };
            assert_eq!((live(&device), mapped.is_ok()), (2, true));
            drop(mapped);
            assert_eq!(live(&device), 1);
            // SAFETY: the memory outlives the mapping, and nothing accesses it until it is unmapped.
            let raw = unsafe { device.map_raw(bytes, direction, &none) }.unwrap();
            assert_eq!((live(&device), raw.bounce.is_none()), (2, *direct));
            let text = device.report().to_string();
            assert!(text.ends_with("\n  live mappings: 2"), "{text}");
            drop(mapping);
            assert_eq!(live(&device), 1);
            for left in [0, 0] {
                // SAFETY: nothing accesses the memory. The second time nothing is unmapped.
                unsafe { device.unmap_raw(raw.dma, bytes, true) };
                assert_eq!(live(&device), left);
            }
            // SAFETY: nothing is mapped.
            let refused = unsafe { device.map(memory.range(0, 0), direction) };
            assert!(refused.is_err() && live(&device) == 0);
        }
        assert_eq!(device.close(), Ok(()));
        drop(memories);
        scene.check_balance(0);
    }
}

#[test]
fn closing_a_device_counts_the_mappings_that_did_not_end() {
    let (none, direction) = (Constraints::default(), Direction::ToDevice);
    let scene = StreamingScene::new(1024, KINDS[0]);
    let memory = DriverMemory::contiguous(&scene, 1, &none);
    let device = scene.device(none);
    // SAFETY: the memory outlives the device, and nothing accesses it meanwhile.
    let mapping = unsafe { device.map(memory.range(0, 100), direction) };
    std::mem::forget(mapping.unwrap());
    // SAFETY: the memory outlives the device, and nothing accesses it meanwhile.
    unsafe { device.map_raw(memory.range(200, PAGE - 200), direction, &none) }.unwrap();
    let error = device.close().unwrap_err();
    assert_eq!((error.buffers, error.mappings, error.first), (0, 2, None));
    let text = "device streaming was closed with 2 live mappings: drop or unmap them before";
    assert_eq!(error.to_string(), text);

    let heap = DriverMemory::heap(1);
    let device = scene.device(none);
    // SAFETY: the memory outlives the device, and nothing accesses it meanwhile.
    let raw = unsafe { device.map_raw(heap.range(0, 100), direction, &none) }.unwrap();
    let error = device.close().unwrap_err();
    assert_eq!((error.buffers, error.mappings), (1, 1));
    let text = format!(
        "device streaming was closed with 1 live mapping: drop or unmap it before; and with 1 buffer of \
         100 bytes, whose memory is lost: free it before; the first is bounce: 100 bytes at {}",
        raw.dma
    );
    assert_eq!(error.to_string(), text);
    drop(memory);
    scene.check_balance(1);
}
