//! Typed memory of drivers, on the model: what the device sees, byte by byte.

#![forbid(unsafe_code)]

use bytemuck::{Pod, Zeroable};
use fake_xen::{FakePlatform, GuestBuilder};
use xen_contig::addr::{DmaAddr, PAGE_SIZE};
use xen_contig::dma::{
    AllocError, Allocator, Be, BufferError, Coherent, CoherentBuffer, Constraints, Device, DmaCell,
    Le, Pool, PoolConfig, Request, Retain, Word,
};
use xen_contig::field;
use xen_contig::paging::GuestMemory;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// A descriptor with fields of each width, in both orders.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Descriptor {
    address: Le<u64>,
    len: Be<u32>,
    flags: Le<u16>,
    next: Be<u16>,
    tag: Be<u64>,
    status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Status {
    code: u8,
    odd: [u8; 3],
    written: Le<u32>,
}

/// A descriptor whose bytes are 1, 2, and so on.
fn numbered() -> Descriptor {
    bytemuck::cast::<[u8; 32], _>(std::array::from_fn(|index| index as u8 + 1))
}

/// A value of an odd size, whose elements begin at any address.
type Odd = [u8; 13];

struct Scene {
    kernel: Kernel,
    dma: Allocator<Kernel>,
}

impl Scene {
    fn new() -> Self {
        Self::of(GuestBuilder::new(1024).real_memory())
    }

    fn of(guest: GuestBuilder) -> Self {
        let kernel: Kernel = Box::leak(Box::new(FakePlatform::new(guest.build())));
        kernel.guest().paint();
        Self { kernel, dma: Allocator::new(kernel, Retain::default()) }
    }

    fn buffer(&self, size: u64) -> CoherentBuffer<'_, Kernel> {
        self.dma.alloc_coherent(size, &Constraints::default()).unwrap()
    }

    fn slice<T: Pod>(&self, count: usize) -> Coherent<'_, Kernel, [T]> {
        self.dma.alloc_coherent_slice(count, &Constraints::default()).unwrap().share()
    }

    /// What the device reads.
    fn seen<const N: usize>(&self, at: DmaAddr) -> [u8; N] {
        let mut bytes = [0; N];
        self.kernel.guest().dma_read(at, &mut bytes);
        bytes
    }
}

#[test]
fn the_device_sees_each_field_in_its_order() {
    let scene = Scene::new();
    let value =
        scene.dma.alloc_coherent_box::<Descriptor>(&Constraints::default()).unwrap().share();
    let cell = value.cell();
    field!(cell, Descriptor, address).store(Le::new(0x0102_0304_0506_0708));
    field!(cell, Descriptor, len).store(Be::new(0x1112_1314));
    field!(cell, Descriptor, flags).store(Le::new(0x2122));
    field!(cell, Descriptor, next).store(Be::new(0x3132));
    field!(cell, Descriptor, tag).store(Be::new(0x4142_4344_4546_4748));
    field!(cell, Descriptor, status.code).store(0x51);
    field!(cell, Descriptor, status.odd).write([0x61, 0x62, 0x63]);
    field!(cell, Descriptor, status.written).store(Le::new(0x7172_7374));
    let expected: [u8; 32] = [
        8, 7, 6, 5, 4, 3, 2, 1, // Le<u64>
        0x11, 0x12, 0x13, 0x14, 0x22, 0x21, 0x31, 0x32, // Be<u32>, Le<u16>, Be<u16>
        0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, // Be<u64>
        0x51, 0x61, 0x62, 0x63, 0x74, 0x73, 0x72, 0x71, // u8, [u8; 3], Le<u32>
    ];
    assert_eq!(scene.seen(value.dma_addr()), expected);
    assert_eq!(cell.read(), bytemuck::cast(expected));
}

#[test]
fn the_driver_reads_what_the_device_wrote() {
    let scene = Scene::new();
    let ring = scene.slice::<Descriptor>(3);
    let bytes: [u8; 32] = bytemuck::cast(numbered());
    scene.kernel.guest().dma_write(ring.dma_addr_at(1).unwrap(), &bytes);
    let cells: Vec<_> = ring.cells().map(DmaCell::read).collect();
    assert_eq!(cells, [Zeroable::zeroed(), numbered(), Zeroable::zeroed()]);
    let cell = ring.at(1).unwrap();
    assert_eq!(field!(cell, Descriptor, address).load().get(), 0x0807_0605_0403_0201);
    assert_eq!(field!(cell, Descriptor, len).load().get(), 0x090a_0b0c);
    assert_eq!(field!(cell, Descriptor, status).read().odd, [26, 27, 28]);
}

#[test]
fn values_of_odd_sizes_lie_side_by_side() {
    let scene = Scene::new();
    let count = 2 * PAGE_SIZE / 13;
    let values = scene.slice::<Odd>(count);
    let value = |index: usize| -> Odd { std::array::from_fn(|byte| (index * 13 + byte) as u8 | 1) };
    for (index, cell) in values.cells().enumerate() {
        cell.write(value(index));
    }
    for index in 0..count {
        assert_eq!(values.at(index).unwrap().read(), value(index), "value {index}");
        assert_eq!(scene.seen(values.dma_addr_at(index).unwrap()), value(index), "value {index}");
    }
}

#[test]
fn a_value_past_the_last_is_refused() {
    let scene = Scene::new();
    let ring = scene.slice::<Descriptor>(5);
    assert_eq!(ring.len(), 5);
    ring.at(4).unwrap().write(numbered());
    assert_eq!(ring.dma_addr_at(4).unwrap().get(), ring.dma_addr().get() + 4 * 32);
    for index in [5, 6, usize::MAX / 32, usize::MAX / 32 + 1, usize::MAX] {
        let refused = ring.at(index).err();
        assert_eq!(refused, Some(BufferError::NoElement { index, count: 5 }));
        assert_eq!(ring.dma_addr_at(index), None);
    }
    assert_eq!(ring.cells().count(), 5);
    // The buffer ends within its page, which has room for more.
    assert_eq!(scene.seen(DmaAddr::new(ring.dma_addr().get() + 5 * 32)), [0; 32]);

    let table = scene.dma.alloc_coherent_box::<[Le<u16>; 7]>(&Constraints::default()).unwrap();
    let table = table.share();
    table.cell().at(6).unwrap().store(Le::new(9));
    assert_eq!(table.cell().read()[6].get(), 9);
    let refused = table.cell().at(7).err();
    assert_eq!(refused, Some(BufferError::NoElement { index: 7, count: 7 }));
}

#[test]
fn what_was_filled_by_references_is_what_the_device_gets() {
    let scene = Scene::new();
    let mut ring =
        scene.dma.alloc_coherent_slice::<Descriptor>(200, &Constraints::default()).unwrap();
    assert_eq!(ring.len(), 200);
    assert!(ring.iter().all(|descriptor| *descriptor == Zeroable::zeroed()), "not zeroed");
    ring.fill(numbered());
    ring[199].status.code = 7;
    assert_eq!(format!("{ring:?}"), "CoherentBox(6400 bytes)");
    let ring = ring.share();
    let last: [u8; 32] = scene.seen(ring.dma_addr_at(199).unwrap());
    assert_eq!(last[..24], bytemuck::bytes_of(&numbered())[..24]);
    assert_eq!(last[24], 7);
    assert_eq!(ring.at(0).unwrap().read(), numbered());

    let mut one = scene.dma.alloc_coherent_box::<Status>(&Constraints::default()).unwrap();
    one.written = Le::new(5);
    assert_eq!(one.code, 0);
    let one = one.share();
    assert_eq!(scene.seen(one.dma_addr()), [0, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(one.check_in_place(), Ok(()));
}

#[test]
fn a_buffer_becomes_values_that_fill_it_exactly() {
    let scene = Scene::new();
    let mut buffer = scene.buffer(96);
    buffer.write(32, bytemuck::bytes_of(&numbered())).unwrap();
    let address = buffer.dma_addr();
    let ring = buffer.into_typed_slice::<Descriptor>().unwrap();
    assert_eq!((ring.len(), ring.dma_addr()), (3, address));
    assert_eq!(ring.at(1).unwrap().read(), numbered());
    assert_eq!(
        scene.buffer(32).into_typed::<Descriptor>().unwrap().cell().read(),
        Zeroable::zeroed()
    );

    for len in [31, 33, 64] {
        let refused = scene.buffer(len).into_typed::<Descriptor>().err();
        assert_eq!(refused, Some(BufferError::WrongSize { len, size: 32 }));
    }
    for len in [31, 33, 4095] {
        let refused = scene.buffer(len).into_typed_slice::<Descriptor>().err();
        assert_eq!(refused, Some(BufferError::WrongSize { len, size: 32 }));
    }
    drop(ring);
    scene.dma.trim(u64::MAX);
    scene.kernel.guest().check_whole();
    assert_eq!(scene.dma.stats().idle, 0);
}

#[test]
fn an_impossible_number_of_values_is_refused() {
    let scene = Scene::new();
    let any = Constraints::default();
    let refused = |count| scene.dma.alloc_coherent_slice::<Descriptor>(count, &any).err();
    assert_eq!(refused(0), Some(AllocError::ZeroSize));
    // 32 times this is 32 without an overflow check.
    for count in [usize::MAX, usize::MAX / 32 + 2] {
        assert!(matches!(refused(count), Some(AllocError::TooLarge { size: u64::MAX, .. })));
    }
}

#[test]
fn a_device_records_its_values_and_keeps_their_limits() {
    let scene = Scene::new();
    let limits = Constraints::builder().mask((1 << 22) - 1).build().unwrap();
    let device = Device::new(&scene.dma, "nic", &limits).unwrap();
    let status = device.alloc_coherent_box::<Status>("status").unwrap().share();
    let request = Request::tagged("ring").align(2 * PAGE);
    let mut ring = device.alloc_coherent_slice::<Descriptor>(200, request).unwrap();
    assert_eq!((ring.len(), ring[199]), (200, Zeroable::zeroed()));
    ring[199] = numbered();
    let ring = ring.share();
    assert_eq!(ring.at(199).unwrap().read(), numbered());
    assert!(ring.dma_addr().get().is_multiple_of(2 * PAGE) && ring.dma_addr().get() < 1 << 22);
    let mut live: Vec<_> =
        device.report().live().map(|buffer| (buffer.tag, buffer.len, buffer.dma)).collect();
    live.sort_unstable_by_key(|(tag, ..)| *tag);
    assert_eq!(live, [("ring", 6400, ring.dma_addr()), ("status", 8, status.dma_addr())]);

    let too_many = device.alloc_coherent_slice::<Descriptor>(usize::MAX / 32 + 2, "too many").err();
    assert!(matches!(too_many, Some(AllocError::TooLarge { size: u64::MAX, .. })));
    let none = device.alloc_coherent_slice::<Descriptor>(0, "none").err();
    assert_eq!(none, Some(AllocError::ZeroSize));
    drop((ring, status));
    assert_eq!(device.close(), Ok(()));
}

#[test]
fn values_have_their_addresses_in_each_segment() {
    let scene = Scene::new();
    let scattered = Constraints::builder().max_segment(PAGE).max_segments(8).build().unwrap();
    let values = scene.dma.alloc_coherent_slice::<Le<u32>>(5000, &scattered).unwrap().share();
    assert!(values.segments().count() > 1);
    for (index, cell) in values.cells().enumerate() {
        cell.store(Le::new(index as u32));
    }
    for index in [0, 1023, 1024, 4999] {
        let seen: [u8; 4] = scene.seen(values.dma_addr_at(index).unwrap());
        assert_eq!(u32::from_le_bytes(seen) as usize, index);
    }
}

#[test]
fn buffers_and_objects_take_words_in_both_orders() {
    let scene = Scene::new();
    let mut buffer = scene.buffer(16);
    buffer.store(0, Be::new(0x0102_u16)).unwrap();
    buffer.store(8, Le::new(0x0304_u16)).unwrap();
    assert_eq!((buffer.load(0), buffer.load(8)), (Ok(1_u8), Ok(4_u8)));
    assert_eq!(buffer.load(0), Ok(Be::new(0x0102_u16)));

    let device = Device::new(&scene.dma, "any", &Constraints::default()).unwrap();
    let pool = Pool::new(&device, PoolConfig::builder("words", 24).build().unwrap()).unwrap();
    let mut object = pool.alloc().unwrap();
    object.store(8, Be::new(0x0102_0304_u32)).unwrap();
    assert_eq!(object.load(8), Ok(Be::new(0x0102_0304_u32)));
    let mut bytes = [0; 4];
    object.read(8, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
}

/// Cells work without pointers that the host can follow: all accesses are those of `GuestMemory`.
#[test]
fn cells_access_memory_as_the_kernel_does() {
    fn twice<M: GuestMemory, T: Word>(cell: DmaCell<'_, M, T>, value: T) -> T {
        cell.store(value);
        cell.load()
    }
    let scene = Scene::of(GuestBuilder::new(1024).translated());
    let value =
        scene.dma.alloc_coherent_box::<Descriptor>(&Constraints::default()).unwrap().share();
    assert_eq!(twice(field!(value.cell(), Descriptor, tag), Be::new(77)).get(), 77);
    value.cell().write(numbered());
    assert_eq!(value.cell().read(), numbered());
}
