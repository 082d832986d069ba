//! What drivers have of a [`DeviceMemory`], taken and given back by several vCPUs, and by drivers that
//! give back what is not theirs.

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

/// Bytes of a bounce buffer that the pool has, and of one that it has not: that is a page of its own.
const SMALL: usize = 8;
const LARGE: usize = 16;

thread_local! {
    /// The memory of this execution, whose threads are all one to the host.
    static MEMORY: Cell<Option<&'static DeviceMemory<Kernel>>> = const { Cell::new(None) };
}

enum LoomDevice {}

// SAFETY: the same memory for as long as an execution lasts, and no registers.
unsafe impl StaticDevice for LoomDevice {
    type Platform = Kernel;

    fn memory() -> &'static DeviceMemory<Kernel> {
        MEMORY.get().expect("set up by the scenario")
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("no driver here has registers")
    }
}

/// Memory of a device, with room to remember so many buffers. Fields are dropped from the top down.
struct LoomMemory {
    memory: Lasting<DeviceMemory<Kernel>>,
    _slots: Lasting<Vec<LiveSlot<Kernel>>>,
    _pool: Lasting<Bounce>,
    scene: LoomScene,
    /// Frames that no buffer holds while drivers have nothing.
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
        let pool = Bounce::new(scene.allocator.get(), config.expect("no contradiction"));
        let pool = Lasting::new(pool.expect("a fresh guest"));
        let slots = Lasting::new((0..slots).map(|_| LiveSlot::new()).collect::<Vec<_>>());
        let memory = DeviceMemory::new(scene.allocator.get(), &any, slots.get());
        let memory = memory.expect("no contradiction").with_bounce(pool.get());
        let (memory, free) = (Lasting::new(memory), scene.unheld());
        MEMORY.set(Some(memory.get()));
        Self { memory, _slots: slots, _pool: pool, scene, free }
    }

    /// Drivers have nothing any more, and nothing was lost or given back twice.
    fn ends_empty(self) {
        assert_eq!(self.memory.live(), 0, "a buffer that was given back is still remembered");
        assert_eq!(self.scene.unheld(), self.free);
        drop((self.memory, self._slots, self._pool));
        self.scene.is_balanced();
    }
}

fn share(content: &mut [u8]) -> PhysAddr {
    // SAFETY: the caller's, who does not touch it in between.
    unsafe { Driver::share(NonNull::from(content), BOTH) }
}

fn unshare(paddr: PhysAddr, content: &mut [u8]) {
    // SAFETY: as above. An address that was not shared, or no longer is, is what some drivers here
    // give: nothing is to come of that.
    unsafe { Driver::unshare(paddr, NonNull::from(content), BOTH) };
}

fn allocate(pages: usize) -> Allocated {
    let (paddr, pointer) = Driver::dma_alloc(pages, BOTH);
    Allocated(paddr, pointer)
}

/// Memory that was allocated, sent from one thread to another.
#[derive(Clone, Copy)]
struct Allocated(PhysAddr, NonNull<u8>);

// SAFETY: the pointer is only handed back to the allocator.
unsafe impl Send for Allocated {}

/// A buffer that a driver shares, sent from one thread to another.
#[derive(Clone, Copy)]
struct SentBuffer(NonNull<[u8]>);

// SAFETY: of all threads that unshare the buffer one finds it and writes to it, and no other looks.
unsafe impl Send for SentBuffer {}

impl SentBuffer {
    /// What a confused driver frees instead of unsharing it.
    fn taken_for_allocated(self, paddr: PhysAddr) -> Allocated {
        Allocated(paddr, self.0.cast())
    }

    fn unshare(self, paddr: PhysAddr) {
        // SAFETY: the buffer lives until all threads of the scenario are joined. Some drivers give an
        // address that was not shared, or no longer is: nothing is to come of that.
        unsafe { Driver::unshare(paddr, self.0, BOTH) };
    }
}

/// Whether there was something to free.
fn free(Allocated(paddr, pointer): Allocated) -> bool {
    // SAFETY: as for `unshare`.
    unsafe { Driver::dma_dealloc(paddr, pointer, 1) == 0 }
}

/// A device writes over the page.
fn device_fills(memory: &LoomMemory, paddr: PhysAddr, byte: u8) {
    let mfn = Mfn::new(paddr / PAGE_SIZE as u64);
    let pfn = memory.scene.guest.pfn(mfn).expect("a device is given what is the guest's");
    memory.scene.guest.fill(pfn, u64::from_ne_bytes([byte; 8]));
}

/// Two drivers with a slot each: both are served, neither sees the other's, and each can give back
/// what it has.
#[test]
fn two_allocate_and_free() {
    explore(2, || {
        let memory = LoomMemory::new(2);
        let work = || {
            let memory = allocate(1);
            assert_ne!(memory.0, 0, "a slot for each, and memory enough");
            assert!(free(memory), "what was just allocated");
        };
        let other = spawn(work);
        work();
        join(other);
        memory.ends_empty();
    });
}

/// Two drivers that share: each has its own content back, with a slot each and a pool of two.
#[test]
fn two_share_and_unshare() {
    explore(2, || {
        let memory = LoomMemory::new(2);
        let work = |byte: u8| {
            let mut content = [byte; SMALL];
            let paddr = share(&mut content);
            content.fill(0);
            unshare(paddr, &mut content);
            assert_eq!(content, [byte; SMALL], "what the device was given");
        };
        let other = spawn(move || work(1));
        work(2);
        join(other);
        memory.ends_empty();
    });
}

/// One allocates and frees, the other shares and unshares, and there is one slot: whoever finds it
/// taken is told, and nobody gives back what the other has.
#[test]
fn one_slot_serves_one_at_a_time() {
    explore(2, || {
        let memory = LoomMemory::new(1);
        let work = || {
            let memory = allocate(1);
            assert_eq!(memory.0 != 0, free(memory), "freed if it was there");
            memory.0 != 0
        };
        let other = spawn(work);
        let mine = work();
        assert!(join(other) || mine, "one found it free");
        memory.ends_empty();
    });
}

/// Of two who free the same, one is told that there is nothing.
#[test]
fn a_double_free_frees_once() {
    explore(3, || {
        let memory = LoomMemory::new(2);
        let (twice, kept) = (allocate(1), allocate(1));
        let other = spawn(move || free(twice));
        let mine = free(twice);
        assert!(mine != join(other), "freed once, and by one of them");
        assert_eq!(memory.memory.live(), 1, "the other buffer is not touched");
        assert!(free(kept));
        memory.ends_empty();
    });
}

/// A driver frees what it has unshared, unshares what it has allocated, and unshares what it never
/// had, while another gives the same back as it should.
#[test]
fn what_is_given_back_for_another_purpose_stays() {
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
            assert_eq!(nothing, [7; SMALL], "nothing was shared there");
            free(buffer.taken_for_allocated(shared))
        });
        content.fill(0);
        unshare(shared, &mut content);
        assert_eq!(content, [1; SMALL], "the proper one found it");
        assert!(free(memory_of_one), "and so did this one");
        assert!(!join(other));
        memory.ends_empty();
    });
}

/// One unshares twice. Between its looking for the slot and taking it, the slot may come to hold
/// something else, by another address: that stays, for as long as its owner has it.
#[test]
fn a_stale_unshare_does_not_take_what_came_later() {
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
        assert_eq!(memory.memory.live(), 1, "it was taken from its owner");
        device_fills(&memory, later, 9);
        unshare(later, &mut large);
        assert_eq!(large, [9; LARGE]);
        memory.ends_empty();
    });
}

/// The same, and the owner of what came later gives it back at that very moment: it finds it.
#[test]
fn a_stale_unshare_is_in_nobodys_way() {
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
        assert_eq!(large, [9; LARGE], "its owner was told that there is no such buffer");
        join(other);
        memory.ends_empty();
    });
}

/// A check of what drivers have ([C75](xen_contig::conformance#C75)) beside one who gives back and
/// takes: nothing has moved, and figures of two buffers are never put together.
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
        memory.ends_empty();
    });
}

/// The same beside a trim that returns the buffer's memory to Xen as soon as it is freed.
#[test]
fn a_check_does_not_take_what_is_given_back_for_moved() {
    explore(2, || {
        let memory = LoomMemory::with(Retain::NOTHING, 1);
        let device = memory.memory.get();
        let pages = allocate(2);
        let checker = spawn(|| assert_eq!(device.check_in_place(), Ok(())));
        assert!(free(pages));
        memory.scene.allocator.trim(u64::MAX);
        join(checker);
        memory.ends_empty();
    });
}
