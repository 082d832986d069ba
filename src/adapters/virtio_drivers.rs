//! The `Hal` of the crate `virtio-drivers`.
//!
//! That trait has static functions, so a type of the embedder names the memory:
//!
//! ```
//! # use fake_xen::FakePlatform;
//! # type MyKernel = &'static FakePlatform;
//! use core::ptr::{self, NonNull};
//! use spin::Once;
//! use virtio_drivers::{Error, device::blk::VirtIOBlk, transport::Transport};
//! use xen_contig::adapters::virtio_drivers::{StaticDevice, XenHal};
//! use xen_contig::adapters::{DeviceMemory, LiveSlot};
//! use xen_contig::dma::{Allocator, Constraints};
//!
//! static SLOTS: [LiveSlot<MyKernel>; 64] = [const { LiveSlot::new() }; 64];
//! static MEMORY: Once<DeviceMemory<MyKernel>> = Once::new();
//!
//! fn set_up(allocator: &'static Allocator<MyKernel>) {
//!     let memory = DeviceMemory::new(allocator, &Constraints::default(), &SLOTS);
//!     MEMORY.call_once(|| memory.expect("no constraints, no contradiction"));
//! }
//!
//! /// Where this kernel has mapped the registers of all devices, uncached.
//! const REGISTERS: usize = 0xffff_c000_0000_0000;
//!
//! /// The virtio devices of this kernel.
//! enum Virtio {}
//!
//! // SAFETY: `memory` always returns the same memory, and the registers are mapped at `REGISTERS`.
//! unsafe impl StaticDevice for Virtio {
//!     type Platform = MyKernel;
//!
//!     fn memory() -> &'static DeviceMemory<MyKernel> {
//!         MEMORY.get().expect("set up before any driver")
//!     }
//!
//!     unsafe fn mmio_phys_to_virt(address: u64, _size: usize) -> NonNull<u8> {
//!         let registers = REGISTERS + address as usize;
//!         NonNull::new(ptr::with_exposed_provenance_mut(registers)).expect("above address 0")
//!     }
//! }
//!
//! fn first_sector(transport: impl Transport) -> Result<[u8; 512], Error> {
//!     let mut disk = VirtIOBlk::<XenHal<Virtio>, _>::new(transport)?;
//!     let mut sector = [0; 512];
//!     disk.read_blocks(0, &mut sector)?;
//!     Ok(sector)
//! }
//! ```
//! `kernel/src/virtio/` in the repository is a complete example that runs on a real Xen: the bus, the
//! registers and a disk.

use core::marker::PhantomData;
use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use super::DeviceMemory;
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::platform::Platform;

const _: () =
    assert!(virtio_drivers::PAGE_SIZE == PAGE_SIZE, "both crates have the same page size");

/// The result of `dma_dealloc` for addresses that no allocation has: `-EINVAL`.
const UNKNOWN: i32 = -22;

/// Names the memory that [`XenHal`] hands out.
///
/// # Safety
/// [`mmio_phys_to_virt`](Self::mmio_phys_to_virt) meets the requirements of
/// [`Hal::mmio_phys_to_virt`], and [`memory`](Self::memory) always returns the same memory.
pub unsafe trait StaticDevice {
    /// The embedding kernel.
    type Platform: Platform + 'static;

    /// Returns the memory of the device. The embedder sets it up before it makes a driver.
    fn memory() -> &'static DeviceMemory<Self::Platform>;

    /// Returns where a register block of the device is mapped.
    ///
    /// # Safety
    /// The requirements of [`Hal::mmio_phys_to_virt`].
    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8>;
}

/// A `Hal` on the memory that `S` names.
///
/// * Queues are coherent buffers, which are freed by the two addresses that `dma_alloc` returned.
/// * A buffer is [shared in place](DeviceMemory::translate) if the device can access it there, and
///   bounced otherwise. A bounce buffer starts as a copy of the driver's buffer in every direction. So
///   bytes that the device does not write stay as they were.
/// * `share` of an empty buffer, which the trait forbids, returns the lowest address that the device
///   can drive. No byte may be accessed there.
///
/// # Panics
/// The trait has no error for `share`, and no address would be safe to return without a bounce buffer.
/// So `share` panics with the length and the limit that was exceeded, if
/// * all slots of the [`DeviceMemory`] are in use: make one slot for each buffer that the queues of the
///   drivers can hold, bounced or allocated;
/// * the buffer is longer than one segment of the device, or longer than any extent that Xen permits
///   this domain: let drivers allocate such buffers by `dma_alloc`;
/// * no memory is free: set up [a pool](DeviceMemory::with_bounce).
#[derive(Debug)]
pub struct XenHal<S>(PhantomData<S>);

// SAFETY: a coherent buffer is mapped, page-aligned and zeroed. Its slot owns it until the driver
// frees it by its addresses, so nothing else accesses it ([M1](crate::rules#M1)). `StaticDevice`
// requires that its implementor maps the registers as `Hal` does.
unsafe impl<S: StaticDevice> Hal for XenHal<S> {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = S::memory();
        let bytes = (pages as u64).saturating_mul(PAGE_SIZE as u64);
        match memory.alloc(bytes, memory.constraints()) {
            Ok((dma, pointer)) => (dma.get(), pointer),
            // The trait reads address 0 as "no memory". `DeviceMemory` never hands out address 0.
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, _pages: usize) -> i32 {
        match S::memory().free(DmaAddr::new(paddr), vaddr) {
            Ok(()) => 0,
            Err(_) => UNKNOWN,
        }
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: `Hal::mmio_phys_to_virt` requires that the address is a register block of the device.
        unsafe { S::mmio_phys_to_virt(paddr, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let memory = S::memory();
        if buffer.is_empty() {
            return memory.constraints().lowest();
        }
        if let Some(dma) = memory.translate(buffer, memory.constraints()) {
            return dma.get();
        }
        // SAFETY: `Hal::share` requires that the buffer is valid, and that nothing writes to it during
        // this call.
        let content = unsafe { buffer.as_ref() };
        let fill = |bounce: &mut super::driver_memory::DriverMemory<_>| bounce.write(content);
        match memory.bounce(buffer, memory.constraints(), fill) {
            Ok((dma, _)) => dma.get(),
            Err(error) => panic!("no bounce buffer of {} bytes: {error}", content.len()),
        }
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        // Without a bounce buffer the buffer was shared in place, and there is nothing to undo.
        let bounce = S::memory().unbounce(DmaAddr::new(paddr), buffer.cast());
        let Some(bounce) = bounce else { return };
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: `Hal::unshare` requires that the buffer is valid, and that nothing else
            // accesses it during this call. The device has the bounce buffer's address alone.
            bounce.read(unsafe { buffer.as_mut() });
        }
    }
}
