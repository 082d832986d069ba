//! The `Hal` of the crate `virtio-drivers`.
//!
//! That trait has static functions, so a type of the embedder's says where the memory is:
//!
//! ```
//! # use fake_xen::FakePlatform;
//! # type MyKernel = &'static FakePlatform;
//! use core::ptr::NonNull;
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
//! /// The virtio devices of this kernel.
//! enum Virtio {}
//!
//! // SAFETY: there is one memory, and registers are mapped where the bus driver maps them.
//! unsafe impl StaticDevice for Virtio {
//!     type Platform = MyKernel;
//!
//!     fn memory() -> &'static DeviceMemory<MyKernel> {
//!         MEMORY.get().expect("set up before any driver")
//!     }
//!
//!     unsafe fn mmio_phys_to_virt(address: u64, size: usize) -> NonNull<u8> {
//!         // Ask Xen for a mapping of the registers here.
//! #       unimplemented!("{address} {size}")
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
//! `kernel/src/virtio/` in the repository is all of this on a real Xen: the bus, the registers, and a
//! disk.

use core::marker::PhantomData;
use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use super::DeviceMemory;
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::platform::Platform;

const _: () = assert!(virtio_drivers::PAGE_SIZE == PAGE_SIZE, "both speak of the same pages");

/// What `dma_dealloc` answers for addresses at which nothing is allocated: `EINVAL`.
const UNKNOWN: i32 = -22;

/// Names the memory that [`XenHal`] hands out.
///
/// # Safety
/// [`mmio_phys_to_virt`](Self::mmio_phys_to_virt) does what [`Hal::mmio_phys_to_virt`] asks of an
/// implementor, and [`memory`](Self::memory) always answers the same.
pub unsafe trait StaticDevice {
    /// The embedding kernel.
    type Platform: Platform + 'static;

    /// The memory. Its `static` has to be set up before a driver is made.
    fn memory() -> &'static DeviceMemory<Self::Platform>;

    /// Where a register block of the device is mapped.
    ///
    /// # Safety
    /// As for [`Hal::mmio_phys_to_virt`].
    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8>;
}

/// A `Hal` on the memory that `S` names.
///
/// * Queues are coherent buffers, freed by the two addresses that `dma_alloc` returned.
/// * A buffer is [shared in place](DeviceMemory::translate) where that can be, and bounced
///   otherwise. A bounce buffer begins as a copy of the driver's, whatever the direction, so that a
///   device which writes less than it may leaves the rest as it was, as without bouncing.
/// * `share` of an empty buffer, which the trait forbids, returns the lowest address that the device
///   can drive. No byte may be accessed there.
///
/// # Panics
/// `share` has no way to report that there is no memory for a bounce buffer, and no address would be a
/// safe answer. So it panics with the length and the limit that was exceeded, if
/// * all slots of the [`DeviceMemory`] are in use: have one for each buffer that the drivers' queues
///   take, bounced or allocated;
/// * the buffer is longer than one segment of the device, or than the longest extent that Xen permits
///   this domain: have drivers take such buffers from `dma_alloc`;
/// * there is no free memory: set up [a pool](DeviceMemory::with_bounce).
#[derive(Debug)]
pub struct XenHal<S>(PhantomData<S>);

// SAFETY: a coherent buffer is mapped, page-aligned, zeroed and nobody else's
// ([M1](crate::rules#M1)), until it is freed by the one who has its address; the registers are the
// business of `StaticDevice`.
unsafe impl<S: StaticDevice> Hal for XenHal<S> {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = S::memory();
        let bytes = (pages as u64).saturating_mul(PAGE_SIZE as u64);
        match memory.alloc(bytes, memory.constraints()) {
            Ok((dma, pointer)) => (dma.get(), pointer),
            // The trait's word for "no memory" is address 0, which is never one of ours.
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
        // SAFETY: a register block, by the caller's word.
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
        // SAFETY: valid, and nobody writes to it during this call, by the caller's word.
        let content = unsafe { buffer.as_ref() };
        let fill = |bounce: &mut super::lent::Memory<_>| bounce.write(content);
        match memory.bounce(buffer, memory.constraints(), fill) {
            Ok((dma, _)) => dma.get(),
            Err(error) => panic!("no bounce buffer of {} bytes: {error}", content.len()),
        }
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        // What is no bounce buffer was shared in place, and there is nothing to undo.
        let bounce = S::memory().unbounce(DmaAddr::new(paddr), buffer.cast());
        let Some(bounce) = bounce else { return };
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: valid, and nobody else uses it during this call, by the caller's word. The
            // device wrote to the bounce buffer, never here.
            bounce.read(unsafe { buffer.as_mut() });
        }
    }
}
