//! Buffers of a [`Device`] that several vCPUs take, free and report.
//!
//! Some vCPUs name false addresses.

use core::cell::Cell;
use core::ptr::NonNull;
use std::thread_local;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};
use xen_contig::adapters::virtio_drivers::{StaticDevice, XenHal};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{Constraints, Device, Request, Retain, Sleep};

use crate::scene::{Kernel, Lasting, LoomScene, explore, join, spawn};

type Driver = XenHal<LoomDevice>;

const BOTH: BufferDirection = BufferDirection::Both;
const PAGE: u64 = PAGE_SIZE as u64;

/// The sizes in bytes of two buffers of a driver's own, which are bounced.
const SMALL: usize = 8;
const LARGE: usize = 16;

thread_local! {
    /// The device of this execution. Loom runs all threads of an execution on one thread of the host.
    static DEVICE: Cell<Option<&'static Device<'static, Kernel>>> = const { Cell::new(None) };
}

enum LoomDevice {}

// SAFETY: `device` returns the same device throughout an execution, and no driver maps registers.
unsafe impl StaticDevice for LoomDevice {
    type Platform = Kernel;

    fn device() -> &'static Device<'static, Kernel> {
        DEVICE.get().expect("the scenario has set it up")
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("no driver maps registers")
    }
}

/// A device and its guest. The order of the fields is the order of their drop.
struct DeviceScene {
    device: Lasting<Device<'static, Kernel>>,
    scene: LoomScene,
    /// The frames that are not in a buffer while drivers have none.
    free: u64,
}

impl DeviceScene {
    fn new() -> Self {
        Self::with(Retain::default())
    }

    fn with(retain: Retain) -> Self {
        let scene = LoomScene::with_record_memory(retain);
        let device = Device::new(scene.allocator.get(), "explored", &Constraints::default());
        let device = Lasting::new(device.expect("a new guest has free frames"));
        DEVICE.set(Some(device.get()));
        let free = scene.frames_outside_buffers();
        Self { device, scene, free }
    }

    /// Checks that drivers have no buffer, and that no buffer was lost or freed twice.
    fn end(self) {
        assert_eq!(self.device.live(), 0, "a freed buffer still has a record");
        assert_eq!(self.scene.frames_outside_buffers(), self.free);
        drop(self.device);
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

/// Two drivers allocate and free. Both are served.
#[test]
fn two_allocate_and_free() {
    explore(1, || {
        let scene = DeviceScene::new();
        let work = || {
            let memory = allocate(1);
            assert_ne!(memory.0, 0, "memory is available");
            assert!(free(memory), "the memory was just allocated");
        };
        let other = spawn(work);
        work();
        join(other);
        scene.end();
    });
}

/// Two drivers share. Each reads its own bytes again.
#[test]
fn two_share_and_unshare() {
    explore(1, || {
        let scene = DeviceScene::new();
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
        scene.end();
    });
}

/// Two vCPUs free the same memory. One of them gets an error.
#[test]
fn a_double_free_frees_once() {
    explore(2, || {
        let scene = DeviceScene::new();
        let (twice, kept) = (allocate(1), allocate(1));
        let other = spawn(move || free(twice));
        let mine = free(twice);
        assert!(mine != join(other), "exactly one vCPU frees the memory");
        assert_eq!(scene.device.live(), 1, "the other buffer stays");
        assert!(free(kept));
        scene.end();
    });
}

/// A faulty driver frees and unshares for the wrong purpose and by false addresses.
///
/// Meanwhile the owner frees and unshares correctly.
#[test]
fn a_free_for_the_wrong_purpose_frees_nothing() {
    explore(1, || {
        let scene = DeviceScene::new();
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
        scene.end();
    });
}

/// A driver unshares twice. After the second call found the record, it may get another buffer with another
/// address. That buffer stays with its owner.
#[test]
fn a_stale_unshare_does_not_take_a_later_buffer() {
    explore(1, || {
        let scene = DeviceScene::new();
        let (mut small, mut large) = ([1; SMALL], [2; LARGE]);
        let stale = share(&mut small);
        let buffer = SentBuffer(NonNull::from(&mut small[..]));
        let other = spawn(move || buffer.unshare(stale));
        buffer.unshare(stale);
        let later = share(&mut large);
        join(other);
        assert_eq!(scene.device.live(), 1, "the stale call took the later buffer");
        large.fill(0);
        unshare(later, &mut large);
        assert_eq!(large, [2; LARGE]);
        scene.end();
    });
}

/// One vCPU checks while another frees a buffer and returns its memory to Xen.
#[test]
fn a_check_does_not_report_a_freed_buffer_as_moved() {
    explore(2, || {
        let scene = DeviceScene::with(Retain::NOTHING);
        let device = scene.device.get();
        let pages = allocate(2);
        let checker = spawn(|| assert_eq!(device.check_in_place(), Ok(())));
        assert!(free(pages));
        scene.scene.allocator.trim(u64::MAX);
        join(checker);
        scene.end();
    });
}

/// One vCPU reports while another frees a buffer, and allocates one with another tag and length in the same
/// record. Each buffer has its own tag in the report.
#[test]
fn a_report_never_mixes_two_buffers() {
    explore(1, || {
        let scene = DeviceScene::new();
        let device = scene.device.get();
        let first = device.alloc_coherent(Request::new(2 * PAGE).tag("two pages"));
        let reporter = spawn(|| {
            for buffer in device.report().live() {
                let expected = if buffer.tag == "two pages" { 2 * PAGE } else { PAGE };
                assert_eq!(buffer.len, expected, "{buffer}");
                assert!(["two pages", "one"].contains(&buffer.tag), "{buffer}");
            }
        });
        drop(first.expect("a new guest has free frames"));
        let second = device.alloc_coherent(Request::new(PAGE).tag("one"));
        drop(second.expect("the guest has free frames"));
        join(reporter);
        scene.end();
    });
}

/// Two vCPUs allocate where they must not sleep, and one splits its buffer. No record is used twice.
#[test]
fn no_record_is_used_twice() {
    explore(1, || {
        let scene = DeviceScene::new();
        let device = scene.device.get();
        drop(device.alloc_coherent(4 * PAGE).expect("a new guest has free frames"));
        let one = || device.alloc_coherent(Request::new(PAGE).sleep(Sleep::MustNot)).ok();
        let other = spawn(move || one().map(|buffer| buffer.dma_addr()));
        let pages = device.alloc_coherent(Request::new(2 * PAGE).sleep(Sleep::MustNot));
        if let Ok(mut pages) = pages {
            let part = pages.split_off(PAGE).expect("a record is free");
            assert!(device.live() >= 2, "both parts are recorded");
            drop((pages, part));
        }
        join(other);
        scene.end();
    });
}
