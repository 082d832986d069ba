//! `virtio-drivers` on the adapter: its own block driver against a device that has machine
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
use xen_contig::adapters::{AdapterError, DeviceMemory, MovedBuffer, Purpose};
use xen_contig::addr::{Order, PAGE_SIZE};
use xen_contig::dma::{Constraints, Stats};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::host::{FRAMES, HostScene, Kernel};

/// A `StaticDevice` of the test's own, so that tests keep apart.
macro_rules! device {
    ($scene:expr) => {{
        static SCENE: OnceLock<HostScene> = OnceLock::new();
        enum Device {}
        // SAFETY: always the same memory, and no test has registers.
        unsafe impl StaticDevice for Device {
            type Platform = Kernel;

            fn memory() -> &'static DeviceMemory<Kernel> {
                SCENE.get().unwrap().memory
            }

            unsafe fn mmio_phys_to_virt(_address: u64, _size: usize) -> NonNull<u8> {
                unreachable!("the transport has no registers")
            }
        }
        let scene = *SCENE.get_or_init(|| $scene);
        (scene, std::marker::PhantomData::<XenHal<Device>>)
    }};
}

fn pv() -> FakeGuest {
    FakeGuest::new(FRAMES)
}

/// A block device with one queue, which it serves when it is notified.
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

    /// Serves one chain of descriptors; answers how many bytes it wrote.
    fn serve(&self, table: u64, head: u64) -> u32 {
        let (mut readable, mut writable, mut next) = (Vec::new(), Vec::new(), Some(head));
        let mut seen = HashSet::new();
        while let Some(index) = next {
            assert!(seen.insert(index), "a chain has an end");
            let entry = table + index * 16;
            let (at, len) = (self.number::<8>(entry), self.number::<4>(entry + 8));
            let flags = self.number::<2>(entry + 12);
            assert!(at != 0 && flags & 4 == 0, "no indirect descriptors were offered");
            match flags & 2 {
                0 => readable.extend(self.scene.device_reads(at, len as usize)),
                _ => writable.push((at, len as usize)),
            }
            next = (flags & 1 != 0).then(|| self.number::<2>(entry + 14));
        }
        let kind = u32::from_le_bytes(readable[..4].try_into().unwrap());
        let sector = u64::from_le_bytes(readable[8..16].try_into().unwrap());
        let from = sector as usize * SECTOR_SIZE;
        let (status, data) = writable.split_last().expect("a status");
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
            // An identity that is shorter than the buffer: the rest is not written.
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
        let [table, driver, device] = self.rings.expect("a queue");
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
        Ok(T::read_from_bytes(&config[offset..offset + size_of::<T>()]).expect("as long"))
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> Result<(), Error> {
        Err(Error::Unsupported)
    }
}

/// Content that is another at every place.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 256) as u8).collect()
}

fn drives_a_disk<H: Hal>(scene: HostScene) {
    let sectors = Mutex::new(pattern(64 * SECTOR_SIZE));
    let mut disk = VirtIOBlk::<H, _>::new(ModelDisk::new(scene, &sectors)).unwrap();
    assert_eq!(disk.capacity(), 64);
    // On the stack and the heap: outside the linear mapping, and longer than a page.
    let mut heap = vec![0; 20 * SECTOR_SIZE];
    disk.read_blocks(3, &mut heap).unwrap();
    assert_eq!(heap, pattern(64 * SECTOR_SIZE)[3 * SECTOR_SIZE..23 * SECTOR_SIZE]);
    heap.reverse();
    disk.write_blocks(40, &heap).unwrap();
    assert_eq!(sectors.lock().unwrap()[40 * SECTOR_SIZE..60 * SECTOR_SIZE], heap);
    // In the linear mapping: a page of its own, and two that are no neighbours in the machine.
    let (run, pointer) = scene.linear(2);
    for offset in [512, PAGE_SIZE - 512] {
        // SAFETY: two frames that are the test's.
        let sectors = unsafe { std::slice::from_raw_parts_mut(pointer.add(offset), 1024) };
        disk.read_blocks(5, sectors).unwrap();
        assert_eq!(sectors, &pattern(7 * SECTOR_SIZE)[5 * SECTOR_SIZE..]);
    }
    scene.give(run);
    // Of what the device does not write, nothing changes.
    let mut identity = [0x55; 20];
    assert_eq!(disk.device_id(&mut identity).unwrap(), 10);
    assert_eq!(identity, *b"xen-contig\0\x55\x55\x55\x55\x55\x55\x55\x55\x55");
    drop(disk);
    scene.is_balanced();
}

#[test]
fn a_disk_is_driven_in_a_pv_guest() {
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default(), 64));
    run(hal, scene);
}

#[test]
fn a_disk_that_reaches_little_is_driven_too() {
    let low = Constraints::builder().mask(FRAMES * PAGE_SIZE as u64 - 1).build().unwrap();
    let (scene, hal) = device!(HostScene::new(pv(), low, 64));
    run(hal, scene);
}

#[test]
fn a_disk_is_driven_with_a_pool_of_bounce_buffers() {
    let (scene, hal) = device!(HostScene::with_pool(pv(), Constraints::default(), 64));
    run(hal, scene);
}

#[test]
fn a_disk_is_driven_in_a_translated_guest() {
    let guest = GuestBuilder::new(FRAMES).translated().build();
    let (scene, hal) = device!(HostScene::new(guest, Constraints::default(), 64));
    scene.calls();
    run(hal, scene);
    assert_eq!(scene.calls(), 0, "what a translated guest has is contiguous for the device");
}

fn run<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
    drives_a_disk::<H>(scene);
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
            // SAFETY: the pages are the test's.
            let content = unsafe { std::slice::from_raw_parts(vaddr.as_ptr(), bytes) };
            assert_eq!(content, pattern(bytes));
            // SAFETY: as it was allocated; and again, which is refused by number.
            let (known, unknown) = unsafe {
                (H::dma_dealloc(paddr, vaddr, pages), H::dma_dealloc(paddr, vaddr, pages))
            };
            assert!(known == 0 && unknown == -22);
            scene.is_balanced();
        }
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default(), 1));
    test(hal, scene);
}

#[test]
fn what_cannot_be_allocated_is_an_error_of_the_driver() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let both = BufferDirection::Both;
        for pages in [0, 1 << 20, usize::MAX] {
            assert_eq!(H::dma_alloc(pages, both).0, 0);
        }
        scene.guest().fragment(Order::new(1).unwrap());
        assert_eq!(H::dma_alloc(2, both).0, 0);
        scene.guest().relieve();
        let (first, second) = (H::dma_alloc(1, both), H::dma_alloc(1, both));
        assert!(first.0 != 0 && second.0 != 0);
        scene.calls();
        assert_eq!(H::dma_alloc(2, both).0, 0, "no slot is left");
        assert_eq!(scene.calls(), 0, "and Xen is not asked in vain");
        // SAFETY: as they were allocated.
        unsafe {
            H::dma_dealloc(first.0, first.1, 1);
            H::dma_dealloc(second.0, second.1, 1);
        }
        scene.is_balanced();

        let sectors = Mutex::new(Vec::new());
        scene.guest().fragment(Order::new(0).unwrap());
        let _all: Vec<_> = std::iter::from_fn(|| scene.take_frame()).collect();
        let disk = VirtIOBlk::<H, _>::new(ModelDisk::new(scene, &sectors));
        assert_eq!(disk.err(), Some(Error::DmaError));
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default(), 2));
    test(hal, scene);
}

#[test]
fn sharing_is_in_place_where_the_machine_allows_it() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let (run, pointer) = scene.linear(8);
        let first = run.first();
        let slice = |offset: usize, len: usize| {
            let start = NonNull::new(pointer.wrapping_add(offset)).unwrap();
            NonNull::slice_from_raw_parts(start, len)
        };
        let share = |offset, len| {
            // SAFETY: eight frames that are the test's.
            let paddr = unsafe { H::share(slice(offset, len), BufferDirection::Both) };
            (paddr, scene.memory.live())
        };
        let unshare = |paddr, offset, len| {
            // SAFETY: as it was shared.
            unsafe { H::unshare(paddr, slice(offset, len), BufferDirection::Both) };
            assert_eq!(scene.memory.live(), 0);
        };
        let page = PAGE_SIZE as u64;
        let within = scene.mfn(first) * page + 100;
        for (offset, len, lives) in [(100, 1, 0), (100, PAGE_SIZE - 100, 0), (100, PAGE_SIZE, 1)] {
            let (paddr, live) = share(offset, len);
            assert_eq!(live, lives, "{offset} {len}");
            assert_eq!(paddr == within, lives == 0);
            unshare(paddr, offset, len);
        }
        assert_ne!(scene.mfn(first.add(1)), scene.mfn(first) + 1, "the guest is scattered");

        // Pages of a coherent buffer are neighbours in the machine: shared in place, at any place.
        let (paddr, vaddr) = H::dma_alloc(4, BufferDirection::Both);
        let inside = NonNull::slice_from_raw_parts(vaddr, 4 * PAGE_SIZE);
        // SAFETY: the pages are the test's.
        unsafe {
            assert_eq!(H::share(inside, BufferDirection::Both), paddr);
            H::unshare(paddr, inside, BufferDirection::Both);
        }
        assert_eq!(scene.memory.live(), 1, "what was allocated is not taken for a bounce buffer");
        // SAFETY: as it was allocated.
        assert_eq!(unsafe { H::dma_dealloc(paddr, vaddr, 4) }, 0);
        scene.give(run);
        scene.is_balanced();
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default(), 4));
    test(hal, scene);
}

#[test]
fn a_bounce_buffer_is_copied_the_way_the_data_goes() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        for direction in [
            BufferDirection::DriverToDevice,
            BufferDirection::DeviceToDriver,
            BufferDirection::Both,
        ] {
            let mut content = pattern(700);
            let buffer = NonNull::from(content.as_mut_slice());
            // SAFETY: a vector of the test's.
            let paddr = unsafe { H::share(buffer, direction) };
            assert_eq!(scene.device_reads(paddr, 700), pattern(700));
            scene.device_writes(paddr + 600, &[0xee; 50]);
            // SAFETY: as it was shared.
            unsafe { H::unshare(paddr, buffer, direction) };
            let mut expected = pattern(700);
            if direction != BufferDirection::DriverToDevice {
                expected[600..650].fill(0xee);
            }
            assert_eq!(content, expected, "{direction:?}");
            scene.is_balanced();
        }
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default(), 1));
    test(hal, scene);
}

#[test]
fn small_buffers_bounce_out_of_the_pool() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let buffers = |stats: Stats| stats.from_reserve + stats.adopted + stats.exchanged;
        let before = buffers(scene.stats());
        let content: Vec<Vec<u8>> = (1..=9).map(|index| vec![index; 512]).collect();
        let shared: Vec<u64> = content
            .iter()
            .map(|bytes| {
                // SAFETY: a vector of the test's, which nobody writes to.
                unsafe {
                    H::share(NonNull::from(bytes.as_slice()), BufferDirection::DriverToDevice)
                }
            })
            .collect();
        let after = buffers(scene.stats());
        assert_eq!(after, before + 1, "eight from the pool, the ninth not");
        for (paddr, bytes) in shared.into_iter().zip(&content) {
            assert_eq!(scene.device_reads(paddr, 512), *bytes);
            let buffer = NonNull::from(bytes.as_slice());
            // SAFETY: as it was shared.
            unsafe { H::unshare(paddr, buffer, BufferDirection::DriverToDevice) };
        }
        scene.is_balanced();
    }
    let low = Constraints::builder().mask(FRAMES * PAGE_SIZE as u64 - 1).build().unwrap();
    let (scene, hal) = device!(HostScene::with_pool(pv(), low, 16));
    test(hal, scene);
}

#[test]
#[should_panic(expected = "no bounce buffer of 3 bytes: all 1 slots")]
fn sharing_without_a_slot_is_loud() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, _scene: HostScene) {
        let content = [1, 2, 3];
        for _ in 0..2 {
            // SAFETY: an array of the test's.
            unsafe { H::share(NonNull::from(&content[..]), BufferDirection::DriverToDevice) };
        }
    }
    let (scene, hal) = device!(HostScene::new(pv(), Constraints::default(), 1));
    test(hal, scene);
}

#[test]
fn threads_share_through_few_slots_and_get_their_own_back() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        std::thread::scope(|scope| {
            for me in [0x11, 0x22] {
                scope.spawn(move || {
                    for round in 0..5_000 {
                        let mut content = vec![me; 100 + round % 500];
                        let buffer = NonNull::from(content.as_mut_slice());
                        // SAFETY: a vector of this thread's, unshared as it was shared.
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
        scene.is_balanced();
    }
    let (scene, hal) = device!(HostScene::with_pool(pv(), Constraints::default(), 3));
    test(hal, scene);
}

#[test]
fn c75_what_drivers_have_is_checked_after_a_restore() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let both = BufferDirection::Both;
        let queue = H::dma_alloc(3, both);
        let mut small = [1_u8; 100];
        let mut large = vec![2_u8; 6000];
        let [small, large] = [&mut small[..], &mut large[..]].map(NonNull::from);
        // SAFETY: an array and a vector of the test's.
        let shared = [small, large].map(|buffer| unsafe { H::share(buffer, both) });
        assert_eq!((scene.memory.live(), scene.memory.check_in_place()), (3, Ok(())));

        // The last page of each: of the queue, of a bounce buffer of the pool's, of one of its own.
        for (paddr, pages, len, purpose) in [
            (queue.0, 3, 3 * PAGE_SIZE, Purpose::Allocated),
            (shared[0], 1, 512, Purpose::Bounce),
            (shared[1], 2, 6000, Purpose::Bounce),
        ] {
            let page = (pages - 1) * PAGE_SIZE as u64;
            let back = scene.move_page(paddr + page);
            let found: Vec<_> = scene.memory.moved_buffers().collect();
            let report = scene.memory.check_in_place().unwrap_err();
            assert_eq!(report, AdapterError::Moved { buffers: 1, first: found[0] }, "{report}");
            let MovedBuffer { dma, len: bytes, purpose: lent_for, moved } = found[0];
            assert_eq!((dma.get(), bytes, lent_for), (paddr, len as u64, purpose));
            assert_eq!((moved.offset, moved.told.get()), (page, paddr + page));
            back();
        }
        let moved = [queue.0, shared[1]].map(|paddr| scene.move_page(paddr));
        let report = scene.memory.check_in_place();
        assert!(matches!(report, Err(AdapterError::Moved { buffers: 2, .. })), "{report:?}");
        moved.into_iter().for_each(|back| back());
        assert_eq!(scene.memory.check_in_place(), Ok(()));
        // SAFETY: as they were shared and allocated.
        unsafe {
            H::unshare(shared[0], small, both);
            H::unshare(shared[1], large, both);
            H::dma_dealloc(queue.0, queue.1, 3);
        }
        assert_eq!(scene.memory.moved_buffers().count(), 0, "what nobody has is of no concern");
        scene.is_balanced();
    }
    let (scene, hal) = device!(HostScene::with_pool(pv(), Constraints::default(), 4));
    test(hal, scene);
}

/// Who checks hinders nobody: what is freed meanwhile is found, and what is found belongs together.
#[test]
fn c75_a_check_hinders_no_driver() {
    fn test<H: Hal>(_hal: std::marker::PhantomData<H>, scene: HostScene) {
        let (done, stop) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while stop.try_recv() == Err(TryRecvError::Empty) {
                    assert_eq!(scene.memory.check_in_place(), Ok(()));
                }
            });
            // Dropped at the end, and also where a check fails.
            let _done = done;
            for round in 0..20_000 {
                // One out of the pool, the next not, so that a slot holds now this, now that.
                let mut content = [7; 1024];
                let buffer = NonNull::from(&mut content[..1 + round % 2 * 1000]);
                // SAFETY: an array of the test's, unshared as it was shared.
                unsafe {
                    let paddr = H::share(buffer, BufferDirection::Both);
                    H::unshare(paddr, buffer, BufferDirection::Both);
                }
                assert_eq!(scene.memory.live(), 0, "round {round}: it was not taken back");
            }
        });
        scene.is_balanced();
    }
    let (scene, hal) = device!(HostScene::with_pool(pv(), Constraints::default(), 2));
    test(hal, scene);
}
