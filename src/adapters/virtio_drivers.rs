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
//! use xen_contig::dma::{AllocError, Allocator, Constraints, Device};
//!
//! static DISK: Once<Device<'static, MyKernel>> = Once::new();
//!
//! fn set_up(allocator: &'static Allocator<MyKernel>) -> Result<(), AllocError> {
//!     let disk = Device::new(allocator, "disk", &Constraints::default())?;
//!     DISK.call_once(|| disk);
//!     Ok(())
//! }
//!
//! /// Where this kernel has mapped the registers of all devices, uncached.
//! const REGISTERS: usize = 0xffff_c000_0000_0000;
//!
//! /// The virtio devices of this kernel.
//! enum Virtio {}
//!
//! // SAFETY: `device` always returns the same device, and the registers are mapped at `REGISTERS`.
//! unsafe impl StaticDevice for Virtio {
//!     type Platform = MyKernel;
//!
//!     fn device() -> &'static Device<'static, MyKernel> {
//!         DISK.get().expect("set up before any driver")
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

use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::dma::{Constraints, Device, Direction, Request};
use crate::platform::Platform;

const _: () =
    assert!(virtio_drivers::PAGE_SIZE == PAGE_SIZE, "both crates have the same page size");

/// The result of `dma_dealloc` for addresses that no allocation has: `-EINVAL`.
const UNKNOWN: i32 = -22;

/// The address that [`XenHal`] hands out where there is none: of the last page, which no machine has.
///
/// No memory is at it, so a device that accesses it reads and writes none. It fails the request, or stops
/// until it is reset.
pub const NO_ADDRESS: PhysAddr = !0xfff;

/// Names the device whose memory [`XenHal`] hands out.
///
/// # Safety
/// [`mmio_phys_to_virt`](Self::mmio_phys_to_virt) meets the requirements of
/// [`Hal::mmio_phys_to_virt`], and [`device`](Self::device) always returns the same device.
pub unsafe trait StaticDevice {
    /// The embedding kernel.
    type Platform: Platform + 'static;

    /// Returns the device. The embedder sets it up before it makes a driver.
    fn device() -> &'static Device<'static, Self::Platform>;

    /// Returns where a register block of the device is mapped.
    ///
    /// # Safety
    /// The requirements of [`Hal::mmio_phys_to_virt`].
    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8>;
}

/// A `Hal` on the device that `S` names.
///
/// * Queues are coherent buffers, which are freed by the two addresses that `dma_alloc` returned.
/// * A buffer is shared in place if the device can access it there, and bounced otherwise
///   ([`Device::map_raw`]). A bounce buffer starts as a copy of the driver's buffer in every direction. So
///   bytes that the device does not write stay as they were.
/// * `share` of an empty buffer, which the trait forbids, returns the lowest address that the device
///   can drive. No byte may be accessed there.
/// * The trait has no error for `share`. Where no bounce buffer is available it returns [`NO_ADDRESS`], and
///   the device's [`report`](Device::report) counts the failure with its cause. `unshare` of that address
///   does nothing.
///
/// No method panics, whatever a driver passes.
#[derive(Debug)]
pub struct XenHal<S>(PhantomData<S>);

// SAFETY: a coherent buffer is mapped, page-aligned and zeroed. Its record owns it until the driver
// frees it by its addresses, so nothing else accesses it ([M1](crate::rules#M1)). `StaticDevice`
// requires that its implementor maps the registers as `Hal` does.
unsafe impl<S: StaticDevice> Hal for XenHal<S> {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let bytes = (pages as u64).saturating_mul(PAGE_SIZE as u64);
        match S::device().alloc_raw(Request::new(bytes).tag("virtio queue")) {
            Ok((dma, pointer)) => (dma.get(), pointer),
            // The trait reads address 0 as "no memory". `alloc_raw` never returns address 0.
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, _pages: usize) -> i32 {
        match S::device().free_raw(DmaAddr::new(paddr), vaddr) {
            Ok(()) => 0,
            Err(_) => UNKNOWN,
        }
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: `Hal::mmio_phys_to_virt` requires that the address is a register block of the device.
        unsafe { S::mmio_phys_to_virt(paddr, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let device = S::device();
        if buffer.is_empty() {
            return device.limits().lowest().max(PAGE_SIZE as u64);
        }
        let direction = match direction {
            BufferDirection::DriverToDevice => Direction::ToDevice,
            BufferDirection::DeviceToDriver => Direction::FromDevice,
            BufferDirection::Both => Direction::Bidirectional,
        };
        // SAFETY: `Hal::share` requires that the buffer is valid, and that nothing else accesses it until it
        // is unshared.
        let mapped = unsafe { device.map_raw(buffer, direction, &Constraints::default()) };
        mapped.map_or(NO_ADDRESS, |mapping| mapping.dma.get())
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        if paddr == NO_ADDRESS || buffer.is_empty() {
            return;
        }
        let is_written = direction != BufferDirection::DriverToDevice;
        // SAFETY: `Hal::unshare` requires that the buffer is valid, and that nothing else accesses it during
        // this call. The device has the bounce buffer's address alone.
        unsafe { S::device().unmap_raw(DmaAddr::new(paddr), buffer, is_written) };
    }
}
