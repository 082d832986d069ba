//! Device addresses that a restore makes ambiguous.
//!
//! Each driver still frees its own memory and no other.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::OnceLock;

use dma_api::{
    DeviceDma, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDirection, DmaDomainId, DmaError,
};
use fake_xen::FakeGuest;
use hypercall::{Mfn, Pfn};
use virtio_drivers::{BufferDirection, Hal};
use xen_contig::adapters::virtio_drivers::{StaticDevice, XenHal};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{Constraints, Device};
use xen_contig::frames::FrameRun;

use super::host::{FRAMES, HostScene, Kernel, PageAligned};

const BOTH: BufferDirection = BufferDirection::Both;

macro_rules! device {
    ($scene:expr) => {{
        static SCENE: OnceLock<HostScene> = OnceLock::new();
        enum IdentityDevice {}
        // SAFETY: `device` always returns the same device, and no test maps registers.
        unsafe impl StaticDevice for IdentityDevice {
            type Platform = Kernel;

            fn device() -> &'static Device<'static, Kernel> {
                SCENE.get().unwrap().device
            }

            unsafe fn mmio_phys_to_virt(_address: u64, _size: usize) -> NonNull<u8> {
                unreachable!("no test maps registers")
            }
        }
        let scene = *SCENE.get_or_init(|| $scene);
        (scene, PhantomData::<XenHal<IdentityDevice>>)
    }};
}

fn scene() -> HostScene {
    HostScene::new(FakeGuest::new(FRAMES), Constraints::default())
}

/// Returns the guest frame at a device address.
fn frame_at(scene: HostScene, dma: u64) -> Pfn {
    scene.guest().pfn(Mfn::new(dma / PAGE_SIZE as u64)).unwrap()
}

/// Takes all free frames. The first run is near `pfn`, so the reserve already has room for its record.
/// The next allocation then needs no other frame.
fn take_all(scene: HostScene, pfn: Pfn) -> (FrameRun, Vec<FrameRun>) {
    const FRAMES_PER_RECORD_PAGE: u64 = 256;
    scene.trim();
    let mut all: Vec<_> = std::iter::from_fn(|| scene.take_frame()).collect();
    let part = |pfn: Pfn| pfn.number() / FRAMES_PER_RECORD_PAGE;
    let near = all.iter().position(|run| part(run.first()) == part(pfn)).unwrap();
    (all.swap_remove(near), all)
}

/// Device 1 has a queue. A restore swaps its machine frame with that of a free guest frame. Device 2
/// then gets the address that device 1 had, and is torn down.
#[test]
fn freeing_a_reused_address_frees_the_new_memory_and_not_the_old() {
    fn test<H: Hal>(_: PhantomData<H>, scene: HostScene) {
        let (old_address, old_pointer) = H::dma_alloc(1, BOTH);
        let old_frame = frame_at(scene, old_address);
        let (free, _others) = take_all(scene, old_frame);
        let free_frame = free.first();
        scene.swap_backing(old_frame, free_frame);
        scene.give(free);
        assert_eq!(scene.device.check_in_place().map_err(|moved| moved.buffers), Err(1));

        let (new_address, new_pointer) = H::dma_alloc(1, BOTH);
        assert_eq!(new_address, old_address, "the restore made the address ambiguous");
        // SAFETY: neither pair of addresses belongs to one allocation, so the adapter refuses both.
        let wrong = unsafe {
            [
                H::dma_dealloc(new_address, NonNull::dangling(), 1),
                H::dma_dealloc(new_address + PAGE_SIZE as u64, new_pointer, 1),
            ]
        };
        assert_eq!(wrong, [-22, -22], "both addresses must match");
        // SAFETY: the addresses and the length are those of the allocation.
        assert_eq!(unsafe { H::dma_dealloc(new_address, new_pointer, 1) }, 0);
        scene.trim();
        let reused = scene.take_frame().unwrap();
        assert_eq!(reused.first(), free_frame, "the frame of device 2 is free");
        assert!(scene.take_frame().is_none(), "device 1 still has its frame");
        // SAFETY: the addresses and the length are those of the allocation.
        assert_eq!(unsafe { H::dma_dealloc(old_address, old_pointer, 1) }, 0);
        scene.trim();
        let mut freed = std::iter::from_fn(|| scene.take_frame());
        assert!(freed.any(|run| run.first() == old_frame));
        assert_eq!(scene.device.live(), 0);
    }
    let (scene, hal) = device!(scene());
    test(hal, scene);
}

/// The same with bounce buffers: of two drivers, then of one driver that shares the same buffer again
/// without having unshared it.
#[test]
fn unsharing_a_reused_address_copies_from_the_new_bounce_buffer() {
    fn test<H: Hal>(_: PhantomData<H>, scene: HostScene) {
        let (mut first, mut second) = (PageAligned([1; 64]), PageAligned([2; 64]));
        let [first, second] =
            [&mut first, &mut second].map(|bytes| NonNull::from(&mut bytes.0[..]));
        for again in [second, first] {
            // SAFETY: a live array, and nothing else accesses it.
            let stale = unsafe { H::share(first, BOTH) };
            let stale_frame = frame_at(scene, stale);
            let (free, others) = take_all(scene, stale_frame);
            scene.swap_backing(stale_frame, free.first());
            scene.give(free);
            // SAFETY: a live array, and nothing else accesses it.
            let shared = unsafe { H::share(again, BOTH) };
            assert_eq!(shared, stale, "the restore made the address ambiguous");
            scene.device_writes(shared, &[9; 64]);
            // SAFETY: the arguments are those of both calls of `share`, the later one first.
            unsafe {
                H::unshare(shared, again, BOTH);
                assert_eq!(again.as_ref(), [9; 64], "`unshare` copies the device's bytes");
                assert_eq!(scene.device.live(), 1, "the stale buffer stays");
                H::unshare(stale, first, BOTH);
            }
            assert_eq!(scene.device.live(), 0);
            others.into_iter().for_each(|run| scene.give(run));
        }
    }
    let (scene, hal) = device!(scene());
    test(hal, scene);
}

/// Memory shared in place has no record. A stale bounce buffer at its address is another driver's.
#[test]
fn unsharing_in_place_takes_no_stale_bounce_buffer() {
    fn test<H: Hal>(_: PhantomData<H>, scene: HostScene) {
        let mut content = PageAligned([1; 64]);
        let bytes = NonNull::from(&mut content.0[..]);
        // SAFETY: a live array, and nothing else accesses it.
        let stale = unsafe { H::share(bytes, BOTH) };
        let (run, pointer) = scene.take_linear(1);
        scene.swap_backing(frame_at(scene, stale), run.first());
        let inside = NonNull::slice_from_raw_parts(NonNull::new(pointer).unwrap(), 64);
        // SAFETY: `run` owns the frame, and `unshare` has the arguments of `share`.
        unsafe {
            pointer.write_bytes(5, 64);
            assert_eq!(H::share(inside, BOTH), stale);
            H::unshare(stale, inside, BOTH);
            assert_eq!(inside.as_ref(), [5; 64]);
        }
        assert_eq!(scene.device.live(), 1, "the bounce buffer is the other driver's");
        // SAFETY: the arguments are those of `share`.
        unsafe { H::unshare(stale, bytes, BOTH) };
        assert_eq!(scene.device.live(), 0);
        scene.give(run);
    }
    let (scene, hal) = device!(scene());
    test(hal, scene);
}

#[test]
fn an_empty_slice_is_shared_without_a_panic() {
    fn test<H: Hal>(_: PhantomData<H>, scene: HostScene) {
        let mut nothing: [u8; 0] = [];
        let nothing = NonNull::from(&mut nothing[..]);
        // SAFETY: the slice has no bytes, so nothing accesses memory.
        let address = unsafe { H::share(nothing, BOTH) };
        assert_eq!(address, PAGE_SIZE as u64, "the lowest address in reach, and never 0");
        // SAFETY: the arguments are those of `share`.
        unsafe { H::unshare(address, nothing, BOTH) };
        scene.check_balance();
    }
    let (scene, hal) = device!(scene());
    test(hal, scene);
}

#[test]
fn dma_api_returns_an_error_instead_of_a_panic() {
    let short = Constraints::builder().max_segment(4096).build().unwrap();
    let scene = HostScene::new(FakeGuest::new(FRAMES), short);
    let reach = DmaConstraints::new(u64::MAX);
    let info = DmaDeviceInfo::new(DmaDomainId::Direct, DmaCoherency::Coherent, reach);
    let device = DeviceDma::new(info, scene.device);
    let mut long = vec![0_u8; 4097];
    let error = device.map_streaming_slice(&mut long, 1, DmaDirection::Bidirectional).err();
    assert_eq!(error, Some(DmaError::NoMemory));
    scene.check_balance();
}
