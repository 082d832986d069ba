//! The adapter for `virtio-drivers`: that crate's block driver and a model device, which uses machine
//! addresses.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::mpsc::TryRecvError;
use std::sync::{Mutex, OnceLock};

use fake_xen::{FakeGuest, GuestBuilder};
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal};
use xen_contig::adapters::virtio_drivers::{StaticDevice, XenHal};
use xen_contig::addr::{Order, PAGE_SIZE};
use xen_contig::dma::{BufferKind, Constraints, Device, FailureCause};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::host::{FRAMES, HostScene, Kernel, PageAligned};

/// Defines a `StaticDevice` for one test, so that no two tests share memory.
macro_rules! device {
    ($scene:expr) => {{
        static SCENE: OnceLock<HostScene> = OnceLock::new();
        enum TestedDevice {}
        // SAFETY: `device` always returns the same device, and no test maps registers.
        unsafe impl StaticDevice for TestedDevice {
            type Platform = Kernel;

            fn device() -> &'static Device<'static, Kernel> {
                SCENE.get().unwrap().device
            }

            unsafe fn mmio_phys_to_virt(_address: u64, _size: usize) -> NonNull<u8> {
                unreachable!("the model device has no registers")
            }
        }
        let scene = *SCENE.get_or_init(|| $scene);
        (scene, std::marker::PhantomData::<XenHal<TestedDevice>>)
    }};
}

fn pv() -> FakeGuest {
    FakeGuest::new(FRAMES)
}

/// A block device with one queue. It serves the queue when the driver notifies it.
struct ModelDisk<'s> {
    scene: HostScene,
    sectors: &'s Mutex<Vec<u8>>,
    status: DeviceStatus,
    size: u32,
    rings: Option<[u64; 3]>,
    served: u16,
}

impl<'s> ModelDisk<'s> {
    fn new(scene: HostScene, sectors: &'s Mutex<Vec<u8>>) -> Self {
        let status = DeviceStatus::empty();
        Self { scene, sectors, status, size: 0, rings: None, served: 0 }
    }

    fn number<const N: usize>(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.scene.device_reads(at, N));
        u64::from_le_bytes(bytes)
    }

    /// Serves one chain of descriptors. Returns how many bytes it wrote.
    fn serve(&self, table: u64, head: u64) -> u32 {
        let (mut readable, mut writable, mut next) = (Vec::new(), Vec::new(), Some(head));
        let mut seen = HashSet::new();
        while let Some(index) = next {
            assert!(seen.insert(index), "the chain of descriptors has a cycle at {index}");
            let entry = table + index * 16;
            let (at, len) = (self.number::<8>(entry), self.number::<4>(entry + 8));
            let flags = self.number::<2>(entry + 12);
            assert!(at != 0 && flags & 4 == 0, "an indirect descriptor or address 0");
            match flags & 2 {
                0 => readable.extend(self.scene.device_reads(at, len as usize)),
                _ => writable.push((at, len as usize)),
            }
            next = (flags & 1 != 0).then(|| self.number::<2>(entry + 14));
        }
        let kind = u32::from_le_bytes(readable[..4].try_into().unwrap());
        let sector = u64::from_le_bytes(readable[8..16].try_into().unwrap());
        let from = sector as usize * SECTOR_SIZE;
        let (status, data) =
            writable.split_last().expect("the chain has a descriptor for the status");
        let mut written = 1;
        let mut sectors = self.sectors.lock().unwrap();
        match kind {
            0 => {
                let mut from = from;
                for (at, len) in data {
                    self.scene.device_writes(*at, &sectors[from..from + len]);
                    from += len;
                    written += *len as u32;
                }
            }
            1 => sectors[from..from + readable.len() - 16].copy_from_slice(&readable[16..]),
            // The identity is shorter than the buffer. The device does not write the other bytes.
            8 => {
                self.scene.device_writes(data[0].0, b"xen-contig\0");
                written += 11;
            }
            kind => panic!("request {kind}"),
        }
        assert_eq!(status.1, 1);
        self.scene.device_writes(status.0, &[0]);
        written
    }
}

impl Transport for ModelDisk<'_> {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        1 << 32
    }

    fn write_driver_features(&mut self, _features: u64) {}

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        16
    }

    fn notify(&mut self, queue: u16) {
        let [table, driver, device] = self.rings.expect("the driver has set up the queue");
        assert_eq!(queue, 0);
        while u64::from(self.served) != self.number::<2>(driver + 2) {
            let slot = u64::from(self.served) % u64::from(self.size);
            let head = self.number::<2>(driver + 4 + slot * 2);
            let written = self.serve(table, head);
            let used = [(head as u32).to_le_bytes(), written.to_le_bytes()].concat();
            self.scene.device_writes(device + 4 + slot * 8, &used);
            self.served = self.served.wrapping_add(1);
            self.scene.device_writes(device + 2, &self.served.to_le_bytes());
        }
    }

    fn get_status(&self) -> DeviceStatus {
        self.status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.status = status;
    }

    fn set_guest_page_size(&mut self, size: u32) {
        assert_eq!(size as usize, PAGE_SIZE);
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, _queue: u16, size: u32, table: u64, driver: u64, device: u64) {
        self.size = size;
        self.rings = Some([table, driver, device]);
    }

    fn queue_unset(&mut self, _queue: u16) {
        self.rings = None;
    }

    fn queue_used(&mut self, _queue: u16) -> bool {
        self.rings.is_some()
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut config = [0; 64];
        config[..8].copy_from_slice(&64_u64.to_le_bytes());
        Ok(T::read_from_bytes(&config[offset..offset + size_of::<T>()])
            .expect("the slice has the size of T"))
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> Result<(), Error> {
        Err(Error::Unsupported)
    }
}

/// Returns bytes that differ from place to place.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 256) as u8).collect()
}

fn drive_a_disk<H: Hal>(scene: HostScene) {
    let sectors = Mutex::new(pattern(64 * SECTOR_SIZE));
    let mut disk = VirtIOBlk::<H, _>::new(ModelDisk::new(scene, &sectors)).unwrap();
    assert_eq!(disk.capacity(), 64);
    // Buffers on the heap lie outside the linear mapping. These are longer than a page.
    let mut heap = vec![0; 20 * SECTOR_SIZE];
    disk.read_blocks(3, &mut heap).unwrap();
    assert_eq!(heap, pattern(64 * SECTOR_SIZE)[3 * SECTOR_SIZE..23 * SECTOR_SIZE]);
    heap.reverse();
    disk.write_blocks(40, &heap).unwrap();
    assert_eq!(sectors.lock().unwrap()[40 * SECTOR_SIZE..60 * SECTOR_SIZE], heap);
    // Buffers in the linear mapping: one within a page, and one over two pages that are not contiguous
    // in the machine.
    let (run, pointer) = scene.take_linear(2);
    for offset in [512, PAGE_SIZE - 512] {
        // SAFETY: `run` owns both frames, and the slice lies within them.
        let sectors = unsafe { std::slice::from_raw_parts_mut(pointer.add(offset), 1024) };
        disk.read_blocks(5, sectors).unwrap();
        assert_eq!(sectors, &pattern(7 * SECTOR_SIZE)[5 * SECTOR_SIZE..]);
    }
    scene.give(run);
    // Bytes that the device does not write stay as they were.
    let mut identity = [0x55; 20];
    assert_eq!(disk.device_id(&mut identity).unwrap(), 10);
    assert_eq!(identity, *b"xen-contig\0\x55\x55\x55\x55\x55\x55\x55\x55\x55");
    drop(disk);
    scene.check_balance();
}

#[test]
fn a_disk_is_driven_in_a_pv_guest() {
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    run(hal, scene);
}

#[test]
fn a_disk_with_a_short_mask_is_driven() {
    let low = Constraints::builder().mask(FRAMES * PAGE_SIZE as u64 - 1).build().unwrap();
    let (scene, hal) = device!(HostScene::new(pv(), low));
    run(hal, scene);
}

#[test]
fn a_disk_is_driven_in_a_translated_guest() {
    let guest = GuestBuilder::new(FRAMES).translated().build();
    let (scene, hal) = device!(HostScene::new(guest, Constraints::default()));
    scene.take_calls();
    run(hal, scene);
    assert_eq!(scene.take_calls(), 0, "a translated guest's memory is contiguous for the device");
}

fn run<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
    drive_a_disk::<H>(scene);
}

#[test]
fn pages_are_zeroed_contiguous_and_freed_by_address() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        for pages in [1, 2, 3, 16] {
            let (paddr, vaddr) = H::dma_alloc(pages, BufferDirection::Both);
            assert!(paddr != 0 && vaddr.addr().get().is_multiple_of(PAGE_SIZE));
            let bytes = pages * PAGE_SIZE;
            assert_eq!(scene.device_reads(paddr, bytes), vec![0; bytes]);
            scene.device_writes(paddr, &pattern(bytes));
            // SAFETY: `dma_alloc` returned this buffer of `pages` pages, and the model device is idle.
            let content = unsafe { std::slice::from_raw_parts(vaddr.as_ptr(), bytes) };
            assert_eq!(content, pattern(bytes));
            // SAFETY: the first call frees the pages as they were allocated. The second call names
            // addresses that are free, which the adapter reports as an error.
            let (known, unknown) = unsafe {
                (H::dma_dealloc(paddr, vaddr, pages), H::dma_dealloc(paddr, vaddr, pages))
            };
            assert!(known == 0 && unknown == -22);
            scene.check_balance();
        }
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    test(hal, scene);
}

#[test]
fn a_failed_allocation_is_an_error_of_the_driver() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let both = BufferDirection::Both;
        for pages in [0, 1 << 20, usize::MAX] {
            assert_eq!(H::dma_alloc(pages, both).0, 0);
        }
        scene.guest().fragment(Order::new(1).unwrap());
        assert_eq!(H::dma_alloc(2, both).0, 0);
        scene.guest().relieve();
        scene.check_balance();

        let sectors = Mutex::new(Vec::new());
        scene.guest().fragment(Order::new(0).unwrap());
        let _all: Vec<_> = std::iter::from_fn(|| scene.take_frame()).collect();
        let disk = VirtIOBlk::<H, _>::new(ModelDisk::new(scene, &sectors));
        assert_eq!(disk.err(), Some(Error::DmaError));
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    test(hal, scene);
}

#[test]
fn a_contiguous_buffer_is_shared_in_place() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let (run, pointer) = scene.take_linear(8);
        let first = run.first();
        let slice = |offset: usize, len: usize| {
            let start = NonNull::new(pointer.wrapping_add(offset)).unwrap();
            NonNull::slice_from_raw_parts(start, len)
        };
        let share = |offset, len| {
            // SAFETY: `run` owns the eight frames, and the slice lies within them.
            let paddr = unsafe { H::share(slice(offset, len), BufferDirection::Both) };
            (paddr, scene.device.live())
        };
        let unshare = |paddr, offset, len| {
            // SAFETY: the arguments are those of `share`.
            unsafe { H::unshare(paddr, slice(offset, len), BufferDirection::Both) };
            assert_eq!(scene.device.live(), 0);
        };
        let page = PAGE_SIZE as u64;
        let within = scene.mfn(first) * page + 100;
        for (offset, len, lives) in [(100, 1, 0), (100, PAGE_SIZE - 100, 0), (100, PAGE_SIZE, 1)] {
            let (paddr, live) = share(offset, len);
            assert_eq!(live, lives, "{offset} {len}");
            assert_eq!(paddr == within, lives == 0);
            unshare(paddr, offset, len);
        }
        assert_ne!(
            scene.mfn(first.add(1)),
            scene.mfn(first) + 1,
            "the test needs scattered frames"
        );

        // The pages of a coherent buffer are contiguous in the machine, so any part is shared in place.
        let (paddr, vaddr) = H::dma_alloc(4, BufferDirection::Both);
        let inside = NonNull::slice_from_raw_parts(vaddr, 4 * PAGE_SIZE);
        // SAFETY: `dma_alloc` returned these pages, and `unshare` has the arguments of `share`.
        unsafe {
            assert_eq!(H::share(inside, BufferDirection::Both), paddr);
            H::unshare(paddr, inside, BufferDirection::Both);
        }
        assert_eq!(scene.device.live(), 1, "`unshare` must not free an allocated buffer");
        // SAFETY: the addresses and the length are those of the allocation.
        assert_eq!(unsafe { H::dma_dealloc(paddr, vaddr, 4) }, 0);
        scene.give(run);
        scene.check_balance();
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    test(hal, scene);
}

#[test]
fn a_bounce_buffer_is_copied_in_the_direction_of_the_data() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        for direction in [
            BufferDirection::DriverToDevice,
            BufferDirection::DeviceToDriver,
            BufferDirection::Both,
        ] {
            let mut content = pattern(700);
            let buffer = NonNull::from(content.as_mut_slice());
            // SAFETY: `buffer` is a live vector, and nothing else accesses it.
            let paddr = unsafe { H::share(buffer, direction) };
            assert_eq!(scene.device_reads(paddr, 700), pattern(700));
            scene.device_writes(paddr + 600, &[0xee; 50]);
            // SAFETY: the arguments are those of `share`.
            unsafe { H::unshare(paddr, buffer, direction) };
            let mut expected = pattern(700);
            if direction != BufferDirection::DriverToDevice {
                expected[600..650].fill(0xee);
            }
            assert_eq!(content, expected, "{direction:?}");
            scene.check_balance();
        }
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    test(hal, scene);
}

/// The trait has no error, so `share` returns an address that no memory has, and the report has the cause.
#[test]
fn sharing_without_a_bounce_buffer_hands_out_no_memory() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let mut long = vec![7_u8; 8193];
        let long = NonNull::from(long.as_mut_slice());
        // The length of a raw slice can be anything.
        let endless = NonNull::slice_from_raw_parts(long.cast::<u8>(), isize::MAX as usize);
        for (buffer, direction) in [
            (long, BufferDirection::DriverToDevice),
            (long, BufferDirection::DeviceToDriver),
            (long, BufferDirection::Both),
            (endless, BufferDirection::Both),
        ] {
            // SAFETY: a live vector, and nothing else accesses it. More bytes than it has are not accessed,
            // because they are more than any buffer has.
            let paddr = unsafe { H::share(buffer, direction) };
            assert_eq!(paddr, u64::MAX - 4095);
            // SAFETY: the arguments are those of `share`.
            unsafe { H::unshare(paddr, buffer, direction) };
        }
        // SAFETY: the vector lives, and nothing else accesses it.
        assert_eq!(unsafe { long.as_ref() }, [7; 8193]);
        let counts = *scene.device.report().counts();
        assert_eq!((counts.failures_by(FailureCause::Request), counts.failures()), (4, 4));
        assert_eq!((counts.direct_mappings, counts.bounced_mappings), (0, 0));
        scene.check_balance();
    }
    let short = Constraints::builder().max_segment(8192).build().unwrap();
    let (scene, hal) = device!(HostScene::new(pv(), short));
    test(hal, scene);
}

#[test]
fn threads_that_share_get_their_own_bytes() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        std::thread::scope(|scope| {
            for me in [0x11, 0x22] {
                scope.spawn(move || {
                    for round in 0..5_000 {
                        let mut content = vec![me; 100 + round % 500];
                        let buffer = NonNull::from(content.as_mut_slice());
                        // SAFETY: the vector is live and belongs to this thread. `unshare` has the
                        // arguments of `share`.
                        unsafe {
                            let paddr = H::share(buffer, BufferDirection::Both);
                            let there = scene.device_reads(paddr, buffer.len());
                            assert!(there.iter().all(|byte| *byte == me));
                            scene.device_writes(paddr + 99, &[me + 1]);
                            H::unshare(paddr, buffer, BufferDirection::Both);
                        }
                        assert_eq!((content[98], content[99]), (me, me + 1));
                    }
                });
            }
        });
        scene.check_balance();
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    test(hal, scene);
}

#[test]
fn c75_buffers_of_drivers_are_checked_after_a_restore() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let both = BufferDirection::Both;
        let queue = H::dma_alloc(3, both);
        let (mut small, mut large) = (PageAligned([1; 100]), PageAligned([2; 6000]));
        let [small, large] = [&mut small.0[..], &mut large.0[..]].map(NonNull::from);
        // SAFETY: two arrays, live until they are unshared.
        let shared = [small, large].map(|buffer| unsafe { H::share(buffer, both) });
        assert_eq!((scene.device.live(), scene.device.check_in_place()), (3, Ok(())));

        // Moves the last page of the queue and of two bounce buffers, one after the other.
        for (paddr, pages, len, kind) in [
            (queue.0, 3, 3 * PAGE_SIZE, BufferKind::Raw),
            (shared[0], 1, 100, BufferKind::Bounce),
            (shared[1], 2, 6000, BufferKind::Bounce),
        ] {
            let page = (pages - 1) * PAGE_SIZE as u64;
            let back = scene.move_page(paddr + page);
            let found: Vec<_> = scene.device.moved_buffers().collect();
            let report = scene.device.check_in_place().unwrap_err();
            assert_eq!((report.buffers, report.first), (1, found[0]), "{report}");
            let (buffer, moved) = (found[0].buffer, found[0].moved);
            assert_eq!((buffer.dma.get(), buffer.len, buffer.kind), (paddr, len as u64, kind));
            assert_eq!((moved.offset, moved.device_address.get()), (page, paddr + page));
            back();
        }
        let moved = [queue.0, shared[1]].map(|paddr| scene.move_page(paddr));
        assert_eq!(scene.device.check_in_place().map_err(|moved| moved.buffers), Err(2));
        moved.into_iter().for_each(|back| back());
        assert_eq!(scene.device.check_in_place(), Ok(()));
        // SAFETY: the arguments are those of `share` and `dma_alloc`.
        unsafe {
            H::unshare(shared[0], small, both);
            H::unshare(shared[1], large, both);
            H::dma_dealloc(queue.0, queue.1, 3);
        }
        assert_eq!(scene.device.moved_buffers().count(), 0, "freed buffers are not checked");
        scene.check_balance();
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    test(hal, scene);
}

/// A thread checks all the time while a driver shares and unshares. The driver always finds its buffer,
/// and the check never combines the values of two buffers.
#[test]
fn c75_a_check_does_not_disturb_drivers() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let (done, stop) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while stop.try_recv() == Err(TryRecvError::Empty) {
                    assert_eq!(scene.device.check_in_place(), Ok(()));
                }
            });
            // Dropping it stops the thread, at the end and also if an assertion below fails.
            let _done = done;
            for round in 0..5_000 {
                // The lengths differ, so the record's values change.
                let mut content = [7; 1024];
                let buffer = NonNull::from(&mut content[..1 + round % 2 * 1000]);
                // SAFETY: a live array. `unshare` has the arguments of `share`.
                unsafe {
                    let paddr = H::share(buffer, BufferDirection::Both);
                    H::unshare(paddr, buffer, BufferDirection::Both);
                }
                assert_eq!(
                    scene.device.live(),
                    0,
                    "round {round}: the bounce buffer was not freed"
                );
            }
        });
        scene.check_balance();
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default()));
    test(hal, scene);
}
