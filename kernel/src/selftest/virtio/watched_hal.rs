//! A `Hal` that records every address that the driver gets.

use core::marker::PhantomData;
use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};
use xen_contig::adapters::virtio_drivers::{NO_ADDRESS, StaticDevice, XenHal};
use xen_contig::addr::{DmaAddr, PAGE_SIZE};

use crate::drivers::memory::{self, Kernel, allocator};
use crate::selftest::drivers::watch::{self, AddressKind};

fn note<S: StaticDevice<Platform = Kernel>>(
    how: AddressKind,
    dma: PhysAddr,
    buffer: NonNull<[u8]>,
    exchanged: u64,
) {
    watch::note(how, DmaAddr::new(dma), buffer, S::device().limits(), exchanged);
}

/// The adapter's `Hal`, which records its results.
pub struct Watched<S>(PhantomData<S>);

// SAFETY: each method passes its arguments to the adapter's method and returns its result
// unchanged.
unsafe impl<S: StaticDevice<Platform = Kernel>> Hal for Watched<S> {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let before = allocator().stats().exchanged;
        let (dma, pointer) = XenHal::<S>::dma_alloc(pages, direction);
        if dma != 0 {
            let pages = NonNull::slice_from_raw_parts(pointer, pages * PAGE_SIZE);
            note::<S>(AddressKind::Allocated, dma, pages, before);
        } else {
            memory::print_reports();
        }
        (dma, pointer)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: by the contract of `Hal::dma_dealloc`, which both functions have, the memory came
        // from `dma_alloc`.
        unsafe { XenHal::<S>::dma_dealloc(paddr, vaddr, pages) }
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: by the contract of `Hal::mmio_phys_to_virt`, which both functions have, the
        // address is that of device registers.
        unsafe { XenHal::<S>::mmio_phys_to_virt(paddr, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let (before, live) = (allocator().stats().exchanged, S::device().live());
        // SAFETY: by the contract of `Hal::share`, which both functions have, the buffer stays
        // valid until `unshare`.
        let dma = unsafe { XenHal::<S>::share(buffer, direction) };
        if dma == NO_ADDRESS {
            memory::print_reports();
        }
        let how =
            if S::device().live() > live { AddressKind::Bounced } else { AddressKind::InPlace };
        note::<S>(how, dma, buffer, before);
        dma
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // SAFETY: by the contract of `Hal::unshare`, which both functions have, the buffer was
        // shared at this address.
        unsafe { XenHal::<S>::unshare(paddr, buffer, direction) }
    }
}
