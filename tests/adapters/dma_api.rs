//! The adapter for `dma-api`, tested by the types of that crate.

use dma_api::{
    CpuDmaBuffer, DeviceDma, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDirection,
    DmaDomainId, DmaError, DmaOp,
};
use fake_xen::{FakeGuest, GuestBuilder};
use xen_contig::addr::{Order, PAGE_SIZE};
use xen_contig::dma::{Constraints, FailureCause};

use super::host::{FRAMES, HostScene};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u32,
}

const LOW: u64 = FRAMES * PAGE_SIZE as u64 - 1;

fn pv() -> HostScene {
    HostScene::new(FakeGuest::new(FRAMES), Constraints::default())
}

fn device(scene: &HostScene, reach: DmaConstraints) -> DeviceDma {
    device_of(scene, reach, DmaCoherency::Coherent)
}

fn device_of(scene: &HostScene, reach: DmaConstraints, coherency: DmaCoherency) -> DeviceDma {
    DeviceDma::new(DmaDeviceInfo::new(DmaDomainId::Direct, coherency, reach), scene.device)
}

const ANY: DmaConstraints = DmaConstraints::new(u64::MAX);

#[test]
fn the_device_sees_arrays_and_boxes() {
    let translated = GuestBuilder::new(FRAMES).translated().build();
    for scene in [pv(), HostScene::new(translated, Constraints::default())] {
        for coherency in [DmaCoherency::Coherent, DmaCoherency::NonCoherent] {
            let device = device_of(&scene, DmaConstraints::new(u64::MAX), coherency);
            assert_eq!(device.page_size(), PAGE_SIZE);
            let mut ring = device.coherent_array_zero_with_align::<Descriptor>(600, 64).unwrap();
            assert!(ring.iter_cpu().all(|descriptor| descriptor == Descriptor::default()));
            ring.set_cpu(599, Descriptor { addr: 1, len: 2, flags: 3 });
            let seen = scene.device_reads(ring.dma_addr().as_u64() + 599 * 16, 16);
            assert_eq!(seen, [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
            scene.device_writes(ring.dma_addr().as_u64() + 300 * 16, &[9]);
            assert_eq!(ring.read_cpu(300).unwrap().addr, 9);

            let both = DmaDirection::Bidirectional;
            let mut words = device.contiguous_array_zero::<u32>(5000, both).unwrap();
            words.write_for_device(5000, |words| words[4999] = 0x0102_0304);
            assert_eq!(scene.device_reads(words.dma_addr().as_u64() + 19996, 4), [4, 3, 2, 1]);
            let mut status = device.contiguous_box_zero::<u64>(both).unwrap();
            status.write_cpu(7);
            assert_eq!(scene.device_reads(status.dma_addr().as_u64(), 8)[0], 7);
            assert_eq!(scene.device.live(), 3);
            ring.try_release().unwrap();
            drop((words, status));
            scene.check_balance();
        }
    }
}

#[test]
fn constraints_of_the_call_and_of_the_memory_both_apply() {
    let own = Constraints::builder().mask(LOW).boundary(1 << 16).build().unwrap();
    let scene = HostScene::new(FakeGuest::new(FRAMES), own);
    for reach in [
        ANY,
        DmaConstraints::new(LOW / 2),
        ANY.with_align(1 << 15),
        ANY.with_boundary(1 << 14),
        ANY.with_max_segment_size(9000),
    ] {
        let device = device(&scene, reach);
        let array = device.contiguous_array_zero::<u8>(9000, DmaDirection::ToDevice).unwrap();
        let (start, end) = (array.dma_addr().as_u64(), array.dma_addr().as_u64() + 8999);
        assert!(end <= LOW.min(reach.addr_mask) && start.is_multiple_of(reach.align as u64));
        let boundary = reach.boundary.unwrap_or(1 << 16) as u64;
        assert_eq!(start / boundary, end / boundary, "{reach:?}");
        drop(array);
        scene.check_balance();
    }
    // A boundary that is not a power of two, and limits that 9000 bytes cannot meet.
    for reach in [ANY.with_boundary(10_000), ANY.with_boundary(4096), ANY.with_max_segment_size(1)]
    {
        let array = device(&scene, reach).contiguous_array_zero::<u8>(9000, DmaDirection::ToDevice);
        assert_eq!(array.err(), Some(DmaError::NoMemory));
        scene.check_balance();
    }
}

#[test]
fn an_alignment_above_a_page_holds_for_device_and_processor() {
    let scene = pv();
    let array = device(&scene, ANY).coherent_array_zero_with_align::<u8>(1 << 15, 1 << 15).unwrap();
    assert!(array.dma_addr().as_u64().is_multiple_of(1 << 15));
    assert!(array.as_ptr().addr().get().is_multiple_of(1 << 15));
    drop(array);
    scene.check_balance();
}

/// The search for memory knows the processor's alignment: it is not checked afterwards, by luck.
#[test]
fn every_alignment_up_to_four_mib_is_served() {
    for translated in [false, true] {
        let builder = GuestBuilder::new(FRAMES).max_order(10);
        let guest = if translated { builder.translated().build() } else { builder.build() };
        let scene = HostScene::new(guest, Constraints::default());
        for align in (0..=22).map(|bits| 1 << bits) {
            for bytes in [1, 4096, 20_000] {
                let device = device(&scene, ANY);
                let array = device.coherent_array_zero_with_align::<u8>(bytes, align);
                let array = array.unwrap_or_else(|error| panic!("{bytes} {align:#x}: {error:?}"));
                assert!(array.dma_addr().as_u64().is_multiple_of(align as u64), "{align:#x}");
                assert!(array.as_ptr().addr().get().is_multiple_of(align), "{align:#x}");
            }
        }
        scene.check_balance();
    }
}

/// The alignment of a device's coherent memory is not one of the memory that drivers map.
#[test]
fn a_small_buffer_of_an_aligned_device_is_mapped_in_place() {
    let own = Constraints::builder().align(4096).build().unwrap();
    let scene = HostScene::new(FakeGuest::new(FRAMES), own);
    let (run, pointer) = scene.take_linear(1);
    // SAFETY: `run` owns the frame, and the slice lies within it.
    let slice = unsafe { std::slice::from_raw_parts_mut(pointer.add(48), 16) };
    let device = device(&scene, ANY);
    let map = device.map_streaming_slice(slice, 1, DmaDirection::ToDevice).unwrap();
    assert!(map.bounce_ptr().is_none());
    drop(map);
    let counts = *scene.device.report().counts();
    assert_eq!((counts.direct_mappings, counts.direct_bytes, counts.bounced_mappings), (1, 16, 0));
    scene.give(run);
    scene.check_balance();
}

#[test]
fn an_empty_array_takes_no_memory() {
    let scene = pv();
    for _ in 0..20 {
        drop(device(&scene, ANY).coherent_array_zero::<u64>(0).unwrap());
    }
    scene.check_balance();
}

#[test]
fn missing_memory_is_an_error() {
    let scene = pv();
    let device = device(&scene, ANY);
    scene.guest().fragment(Order::new(1).unwrap());
    assert_eq!(device.coherent_array_zero::<u8>(8192).err(), Some(DmaError::NoMemory));
    assert_eq!(device.coherent_array_zero::<u8>(1 << 31).err(), Some(DmaError::NoMemory));
    let mut long = vec![7_u8; 8192];
    let direction = DmaDirection::ToDevice;
    let error = device.map_streaming_slice(&mut long, 1, direction).err();
    assert_eq!(error, Some(DmaError::NoMemory));
    let counts = *scene.device.report().counts();
    let [request, xen] =
        [FailureCause::Request, FailureCause::Xen].map(|cause| counts.failures_by(cause));
    assert_eq!((request, xen, counts.failures()), (1, 2, 3), "{counts:?}");
    scene.guest().relieve();
    scene.check_balance();
}

#[test]
fn constraints_that_contradict_themselves_are_counted() {
    let scene = pv();
    let device = device(&scene, ANY.with_boundary(10_000));
    let mut bytes = [7_u8; 64];
    let direction = DmaDirection::ToDevice;
    assert_eq!(device.coherent_array_zero::<u8>(64).err(), Some(DmaError::NoMemory));
    let mapped = device.map_streaming_slice(&mut bytes, 1, direction);
    assert_eq!(mapped.err(), Some(DmaError::NoMemory));
    let counts = *scene.device.report().counts();
    assert_eq!((counts.requests, counts.failures_by(FailureCause::Request)), (1, 2), "{counts:?}");
    scene.check_balance();
}

#[test]
fn a_second_release_is_refused() {
    let scene = pv();
    let layout = std::alloc::Layout::from_size_align(64, 64).unwrap();
    // SAFETY: the first call frees the handle. The later calls name addresses that are free, which the
    // adapter refuses without accessing them.
    unsafe {
        let handle = DmaOp::alloc_coherent(scene.device, ANY, layout).unwrap();
        assert_eq!(scene.device.dealloc_coherent(handle), Ok(()));
        let again = scene.device.dealloc_coherent(handle);
        assert_eq!(again, Err(DmaError::CoherentReleaseFailed));
        scene.device.dealloc_contiguous(handle);
    }
    scene.check_balance();
}

#[test]
fn a_contiguous_buffer_is_mapped_in_place() {
    let scene = pv();
    let (run, pointer) = scene.take_linear(2);
    let device = device(&scene, ANY);
    for (offset, len, align, bounced) in [
        (0, 4096, 1, false),
        (64, 64, 64, false),
        (32, 64, 64, true),
        (4000, 200, 1, true),
        (4096, 4096, 4096, false),
    ] {
        // SAFETY: `run` owns both frames, and the slice lies within them.
        let slice = unsafe { std::slice::from_raw_parts_mut(pointer.add(offset), len) };
        slice.fill(0x11);
        let map = device.map_streaming_slice(slice, align, DmaDirection::Bidirectional).unwrap();
        assert_eq!(map.bounce_ptr().is_some(), bounced, "{offset} {len}");
        assert!(map.dma_addr().as_u64().is_multiple_of(align as u64));
        map.prepare_for_device(0..len);
        assert_eq!(scene.device_reads(map.dma_addr().as_u64(), len), vec![0x11; len]);
        scene.device_writes(map.dma_addr().as_u64() + 10, &[0x22; 5]);
        map.complete_for_cpu(0..len);
        drop(map);
        // SAFETY: `run` owns both frames, and the slice lies within them. The map is dropped.
        let slice = unsafe { std::slice::from_raw_parts(pointer.add(offset), len) };
        assert_eq!((slice[9], &slice[10..15], slice[15]), (0x11, &[0x22; 5][..], 0x11));
    }
    scene.give(run);
    scene.check_balance();
}

#[test]
fn bytes_that_the_device_does_not_write_stay() {
    let scene = pv();
    let device = device(&scene, DmaConstraints::new(LOW));
    let mut backing = [0x33_u8; 100];
    let direction = DmaDirection::FromDevice;
    let map = device.map_streaming_slice_for_device(&mut backing, 1, direction).unwrap();
    assert!(map.bounce_ptr().is_some(), "the stack is not in the linear mapping");
    scene.device_writes(map.dma_addr().as_u64(), &[0x44; 60]);
    let (first, last) = map.read_from_device(100, |bytes| (bytes[0], bytes[99]));
    assert_eq!((first, last), (0x44, 0x33));
    drop(map);
    assert_eq!((backing[59], backing[60]), (0x44, 0x33));
    scene.check_balance();
}

#[test]
fn an_owned_buffer_goes_to_the_device_and_back() {
    let scene = pv();
    let device = device(&scene, ANY);
    let len = 6000.try_into().unwrap();
    let mut buffer = CpuDmaBuffer::new_zero(&device, len, 1, DmaDirection::Bidirectional).unwrap();
    buffer.copy_from_slice_cpu(&[5; 6000]);
    let prepared = buffer.prepare_for_device();
    let at = prepared.dma_addr().as_u64();
    // SAFETY: the test itself is the device, and accesses the buffer until `complete_after_quiesce`.
    let in_flight = unsafe { prepared.into_in_flight() };
    assert_eq!(scene.device_reads(at, 6000), [5; 6000]);
    scene.device_writes(at + 5999, &[6]);
    // SAFETY: the device's last access is done.
    let completed = unsafe { in_flight.complete_after_quiesce() };
    let mut bytes = [0; 6000];
    completed.copy_to_slice_cpu(&mut bytes);
    assert_eq!(bytes[5998..], [5, 6]);
    drop(completed);
    scene.check_balance();
}

#[test]
fn threads_that_map_at_the_same_time_lose_nothing() {
    let scene = HostScene::new(FakeGuest::new(FRAMES), Constraints::default());
    let mapped = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for me in 1..=4_u64 {
            let (scene, mapped) = (&scene, &mapped);
            scope.spawn(move || {
                let device = device(scene, ANY);
                for _ in 0..5_000 {
                    let mut word = [me];
                    let direction = DmaDirection::FromDevice;
                    let map = device.map_streaming_slice(&mut word, 8, direction).unwrap();
                    map.complete_for_cpu(0..8);
                    assert_eq!(map.read_cpu(0), Some(me));
                    mapped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(mapped.into_inner(), 4 * 5_000);
    scene.check_balance();
}
