//! Buffers of a [`DeviceMemory`] that several vCPUs take and free.
//!
//! Some vCPUs name false addresses.

use core::cell::Cell;
use core::ptr::NonNull;
use std::thread_local;

use hypercall::Mfn;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};
use xen_contig::adapters::virtio_drivers::{StaticDevice, XenHal};
use xen_contig::adapters::{DeviceMemory, LiveSlot};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{Constraints, Pool, PoolConfig, Retain};

use crate::scene::{Kernel, Lasting, LoomScene, explore, join, spawn};

type Bounce = Pool<'static, Kernel>;
type Driver = XenHal<LoomDevice>;

const BOTH: BufferDirection = BufferDirection::Both;

/// The size in bytes of a buffer that fits in an object of the pool.
const SMALL: usize = 8;
/// The size in bytes of a buffer that does not fit.
///
/// Its bounce buffer is a page of the allocator.
const LARGE: usize = 16;

thread_local! {
    /// The memory of this execution. Loom runs all threads of an execution on one thread of the host.
    static MEMORY: Cell<Option<&'static DeviceMemory<Kernel>>> = const { Cell::new(None) };
}

enum LoomDevice {}

// SAFETY: `memory` returns the same memory throughout an execution, and no driver maps registers.
unsafe impl StaticDevice for LoomDevice {
    type Platform = Kernel;

    fn memory() -> &'static DeviceMemory<Kernel> {
        MEMORY.get().expect("the scenario has set it up")
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("no driver maps registers")
    }
}

/// The memory of a device and its parts. The order of the fields is the order of their drop.
struct LoomMemory {
    memory: Lasting<DeviceMemory<Kernel>>,
    _slots: Lasting<Vec<LiveSlot<Kernel>>>,
    _pool: Lasting<Bounce>,
    scene: LoomScene,
    /// The frames that are not in a buffer while drivers have none.
    free: u64,
}

impl LoomMemory {
    fn new(slots: usize) -> Self {
        Self::with(Retain::default(), slots)
    }

    fn with(retain: Retain, slots: usize) -> Self {
        let scene = LoomScene::with_record_memory(retain);
        let any = Constraints::default();
        let config = PoolConfig::builder("bounce", SMALL as u64).reserve(2).limit(2).build();
        let pool = Bounce::new(
            scene.allocator.get(),
            config.expect("the limits do not contradict each other"),
        );
        let pool = Lasting::new(pool.expect("a new guest has free frames"));
        let slots = Lasting::new((0..slots).map(|_| LiveSlot::new()).collect::<Vec<_>>());
        let memory = DeviceMemory::new(scene.allocator.get(), &any, slots.get());
        let memory =
            memory.expect("the limits do not contradict each other").with_bounce(pool.get());
        let (memory, free) = (Lasting::new(memory), scene.frames_outside_buffers());
        MEMORY.set(Some(memory.get()));
        Self { memory, _slots: slots, _pool: pool, scene, free }
    }

    /// Checks that drivers have no buffer, and that no buffer was lost or freed twice.
    fn end(self) {
        assert_eq!(self.memory.live(), 0, "a freed buffer still has a slot");
        assert_eq!(self.scene.frames_outside_buffers(), self.free);
        drop((self.memory, self._slots, self._pool));
        self.scene.check_balance();
    }
}

fn share(content: &mut [u8]) -> PhysAddr {
    // SAFETY: every scenario keeps the array until it has unshared it, and the adapter bounces it. So
    // no access between sharing and unsharing can conflict.
    unsafe { Driver::share(NonNull::from(content), BOTH) }
}

fn unshare(paddr: PhysAddr, content: &mut [u8]) {
    // SAFETY: the reference keeps the array valid and unshared during the call. Some scenarios name an
    // address that is not shared; the adapter then accesses nothing.
    unsafe { Driver::unshare(paddr, NonNull::from(content), BOTH) };
}

fn allocate(pages: usize) -> Allocated {
    let (paddr, pointer) = Driver::dma_alloc(pages, BOTH);
    Allocated(paddr, pointer)
}

/// The addresses of allocated memory, which one thread sends to another.
#[derive(Clone, Copy)]
struct Allocated(PhysAddr, NonNull<u8>);

// SAFETY: no thread accesses memory by the pointer. It only names the memory when it is freed.
unsafe impl Send for Allocated {}

/// A shared buffer, which one thread sends to another.
#[derive(Clone, Copy)]
struct SentBuffer(NonNull<[u8]>);

// SAFETY: one thread alone finds the buffer's slot and writes to the buffer. No other thread accesses
// it before that thread is joined.
unsafe impl Send for SentBuffer {}

impl SentBuffer {
    /// Returns the addresses by which a faulty driver frees the shared buffer.
    fn as_allocated(self, paddr: PhysAddr) -> Allocated {
        Allocated(paddr, self.0.cast())
    }

    fn unshare(self, paddr: PhysAddr) {
        // SAFETY: the buffer lives until all threads of the scenario are joined. Some scenarios name an
        // address that is not shared; the adapter then accesses nothing.
        unsafe { Driver::unshare(paddr, self.0, BOTH) };
    }
}

/// Frees allocated memory. Returns false if no allocation has these addresses.
fn free(Allocated(paddr, pointer): Allocated) -> bool {
    // SAFETY: the scenarios do not access allocated memory. Some name addresses that are not allocated;
    // the adapter refuses them.
    unsafe { Driver::dma_dealloc(paddr, pointer, 1) == 0 }
}

/// Writes `byte` over the whole page, as the device does.
fn device_fills(memory: &LoomMemory, paddr: PhysAddr, byte: u8) {
    let mfn = Mfn::new(paddr / PAGE_SIZE as u64);
    let pfn = memory.scene.guest.pfn(mfn).expect("the guest owns the frame");
    memory.scene.guest.fill(pfn, u64::from_ne_bytes([byte; 8]));
}

/// Two drivers allocate and free, with a slot for each. Both are served.
#[test]
fn two_allocate_and_free() {
    explore(2, || {
        let memory = LoomMemory::new(2);
        let work = || {
            let memory = allocate(1);
            assert_ne!(memory.0, 0, "each driver has a slot, and memory is available");
            assert!(free(memory), "the memory was just allocated");
        };
        let other = spawn(work);
        work();
        join(other);
        memory.end();
    });
}

/// Two drivers share, with a slot for each and a pool of two objects. Each reads its own bytes again.
#[test]
fn two_share_and_unshare() {
    explore(2, || {
        let memory = LoomMemory::new(2);
        let work = |byte: u8| {
            let mut content = [byte; SMALL];
            let paddr = share(&mut content);
            content.fill(0);
            unshare(paddr, &mut content);
            assert_eq!(content, [byte; SMALL], "the bytes of the bounce buffer");
        };
        let other = spawn(move || work(1));
        work(2);
        join(other);
        memory.end();
    });
}

/// Two drivers allocate and free with one slot. A driver without a slot gets address 0, and neither
/// driver frees the other's memory.
#[test]
fn one_slot_serves_one_at_a_time() {
    explore(2, || {
        let memory = LoomMemory::new(1);
        let work = || {
            let memory = allocate(1);
            assert_eq!(memory.0 != 0, free(memory), "memory is freed if it was allocated");
            memory.0 != 0
        };
        let other = spawn(work);
        let mine = work();
        assert!(join(other) || mine, "at least one driver got the slot");
        memory.end();
    });
}

/// Two vCPUs free the same memory. One of them gets an error.
#[test]
fn a_double_free_frees_once() {
    explore(3, || {
        let memory = LoomMemory::new(2);
        let (twice, kept) = (allocate(1), allocate(1));
        let other = spawn(move || free(twice));
        let mine = free(twice);
        assert!(mine != join(other), "exactly one vCPU frees the memory");
        assert_eq!(memory.memory.live(), 1, "the other buffer stays");
        assert!(free(kept));
        memory.end();
    });
}

/// A faulty driver frees and unshares for the wrong purpose and by false addresses.
///
/// Meanwhile the owner frees and unshares correctly.
#[test]
fn a_free_for_the_wrong_purpose_frees_nothing() {
    explore(2, || {
        let memory = LoomMemory::new(2);
        let memory_of_one = allocate(1);
        let mut content = [1; SMALL];
        let buffer = SentBuffer(NonNull::from(&mut content[..]));
        let shared = share(&mut content);
        let other = spawn(move || {
            let mut nothing = [7; SMALL];
            unshare(memory_of_one.0, &mut nothing);
            unshare(shared + 1, &mut nothing);
            unshare(shared, &mut nothing);
            assert_eq!(nothing, [7; SMALL], "the bytes of a buffer that was not shared");
            free(buffer.as_allocated(shared))
        });
        content.fill(0);
        unshare(shared, &mut content);
        assert_eq!(content, [1; SMALL], "the owner gets its bytes");
        assert!(free(memory_of_one), "the owner frees its memory");
        assert!(!join(other));
        memory.end();
    });
}

/// A driver unshares twice. After the second call found the slot, the slot may get another buffer with
/// another address. That buffer stays with its owner.
#[test]
fn a_stale_unshare_does_not_take_a_later_buffer() {
    explore(3, || {
        let memory = LoomMemory::new(2);
        let (mut small, mut large) = ([1; SMALL], [2; LARGE]);
        let stale = share(&mut small);
        let buffer = SentBuffer(NonNull::from(&mut small[..]));
        let other = spawn(move || buffer.unshare(stale));
        buffer.unshare(stale);
        let later = share(&mut large);
        assert_ne!(stale, later);
        join(other);
        assert_eq!(memory.memory.live(), 1, "the stale call took the later buffer");
        device_fills(&memory, later, 9);
        unshare(later, &mut large);
        assert_eq!(large, [9; LARGE]);
        memory.end();
    });
}

/// A driver unshares twice, while the owner of the later buffer unshares it. The owner finds its slot.
#[test]
fn a_stale_unshare_does_not_hide_a_later_buffer() {
    explore(3, || {
        let memory = LoomMemory::new(1);
        let (mut small, mut large) = ([1; SMALL], [2; LARGE]);
        let stale = share(&mut small);
        let buffer = SentBuffer(NonNull::from(&mut small[..]));
        let other = spawn(move || buffer.unshare(stale));
        while memory.memory.live() > 0 {
            buffer.unshare(stale);
            loom::thread::yield_now();
        }
        let later = share(&mut large);
        device_fills(&memory, later, 9);
        unshare(later, &mut large);
        assert_eq!(large, [9; LARGE], "the owner's call did not find its buffer");
        join(other);
        memory.end();
    });
}

/// One vCPU checks the buffers while another unshares and shares.
///
/// The check ([C75](xen_contig::conformance#C75)) finds that no buffer moved, so it never combines the
/// values of two buffers.
#[test]
fn a_check_sees_whole_buffers() {
    explore(3, || {
        let memory = LoomMemory::new(1);
        let device = memory.memory.get();
        let (mut small, mut large) = ([1; SMALL], [2; LARGE]);
        let first = share(&mut small);
        let checker = spawn(|| assert_eq!(device.check_in_place(), Ok(())));
        unshare(first, &mut small);
        let second = share(&mut large);
        unshare(second, &mut large);
        join(checker);
        memory.end();
    });
}

/// One vCPU checks while another frees a buffer and returns its memory to Xen.
#[test]
fn a_check_does_not_report_a_freed_buffer_as_moved() {
    explore(2, || {
        let memory = LoomMemory::with(Retain::NOTHING, 1);
        let device = memory.memory.get();
        let pages = allocate(2);
        let checker = spawn(|| assert_eq!(device.check_in_place(), Ok(())));
        assert!(free(pages));
        memory.scene.allocator.trim(u64::MAX);
        join(checker);
        memory.end();
    });
}
