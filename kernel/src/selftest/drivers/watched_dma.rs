//! A `DmaOp` that records every address that the driver gets. On request, it refuses an allocation and calls a
//! function whenever memory is freed.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::marker::PhantomData;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use dma_api::{
    DeviceDma, DmaAllocHandle, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDirection,
    DmaDomainId, DmaError, DmaMapHandle, DmaOp,
};
use spin::Mutex;
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::addr::DmaAddr;

use super::watch::{AddressKind, note};
use crate::drivers::memory::{self, Kernel, allocator};

/// The adapter's `DmaOp` for the devices of `S`, which records its results.
pub struct WatchedDma<S>(PhantomData<fn() -> S>);

/// The content of the memory that a driver freed first since [`forget`].
static FIRST_FREED: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// The number of allocations that succeed before one is refused.
static SUCCESSES: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Called before memory is freed.
static ON_FREE: Mutex<fn()> = Mutex::new(ignore);

const fn ignore() {}

/// Forgets what drivers have freed, refuses no allocation, and calls no function when memory is freed.
pub fn forget() {
    *FIRST_FREED.lock() = None;
    SUCCESSES.store(usize::MAX, Ordering::Relaxed);
    *ON_FREE.lock() = ignore;
}

/// Refuses one allocation, after `successes` that succeed. Calls `on_free` before memory is freed. Both last
/// until [`forget`].
pub fn refuse_after(successes: usize, on_free: fn()) {
    SUCCESSES.store(successes, Ordering::Relaxed);
    *ON_FREE.lock() = on_free;
}

/// Returns true if this allocation is refused. Later ones succeed.
fn is_refused() -> bool {
    let next = |left: usize| Some(left.wrapping_sub(1));
    SUCCESSES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) == Ok(0)
}

/// Returns the content of the memory that a driver freed first since [`forget`].
pub fn first_freed() -> Option<Vec<u8>> {
    FIRST_FREED.lock().take()
}

/// Returns the memory of the devices of `S`, for a driver on `dma-api`.
pub fn device_dma<S: StaticDevice<Platform = Kernel> + 'static>() -> DeviceDma {
    let reach = DmaConstraints::new(S::device().limits().mask());
    let info = DmaDeviceInfo::new(DmaDomainId::Direct, DmaCoherency::Coherent, reach);
    DeviceDma::new(info, &WatchedDma::<S>(PhantomData))
}

impl<S: StaticDevice<Platform = Kernel>> WatchedDma<S> {
    fn allocated(handle: Option<DmaAllocHandle>, before: u64) -> Option<DmaAllocHandle> {
        if handle.is_none() {
            memory::print_reports();
        }
        let one = handle?;
        let memory = NonNull::slice_from_raw_parts(one.as_ptr(), one.size());
        let (dma, reach) = (DmaAddr::new(one.dma_addr().as_u64()), S::device().limits());
        note(AddressKind::Allocated, dma, memory, reach, before);
        Some(one)
    }

    fn freeing(handle: &DmaAllocHandle) {
        let on_free = *ON_FREE.lock();
        on_free();
        let mut first = FIRST_FREED.lock();
        if first.is_none() {
            // SAFETY: the driver frees the memory, so neither the driver nor the device accesses it any
            // more, and it is mapped until the adapter frees it.
            let bytes =
                unsafe { core::slice::from_raw_parts(handle.as_ptr().as_ptr(), handle.size()) };
            *first = Some(bytes.to_vec());
        }
    }
}

impl<S: StaticDevice<Platform = Kernel> + 'static> DmaOp for WatchedDma<S> {
    fn page_size(&self) -> usize {
        S::device().page_size()
    }

    unsafe fn alloc_contiguous(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        if is_refused() {
            return None;
        }
        let before = allocator().stats().exchanged;
        // SAFETY: both functions have the same contract.
        Self::allocated(unsafe { S::device().alloc_contiguous(constraints, layout) }, before)
    }

    unsafe fn dealloc_contiguous(&self, handle: DmaAllocHandle) {
        Self::freeing(&handle);
        // SAFETY: both functions have the same contract.
        unsafe { S::device().dealloc_contiguous(handle) }
    }

    unsafe fn alloc_coherent(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        if is_refused() {
            return None;
        }
        let before = allocator().stats().exchanged;
        // SAFETY: both functions have the same contract.
        Self::allocated(unsafe { DmaOp::alloc_coherent(S::device(), constraints, layout) }, before)
    }

    unsafe fn dealloc_coherent(&self, handle: DmaAllocHandle) -> Result<(), DmaError> {
        Self::freeing(&handle);
        // SAFETY: both functions have the same contract.
        unsafe { S::device().dealloc_coherent(handle) }
    }

    unsafe fn map_streaming(
        &self,
        constraints: DmaConstraints,
        addr: NonNull<u8>,
        size: NonZeroUsize,
        direction: DmaDirection,
    ) -> Result<DmaMapHandle, DmaError> {
        let before = allocator().stats().exchanged;
        // SAFETY: both functions have the same contract.
        let one = unsafe { S::device().map_streaming(constraints, addr, size, direction) }?;
        let how = match one.bounce_ptr() {
            Some(_) => AddressKind::Bounced,
            None => AddressKind::InPlace,
        };
        let memory = NonNull::slice_from_raw_parts(addr, size.get());
        let dma = DmaAddr::new(one.dma_addr().as_u64());
        note(how, dma, memory, S::device().limits(), before);
        Ok(one)
    }

    unsafe fn unmap_streaming(&self, handle: DmaMapHandle) {
        // SAFETY: both functions have the same contract.
        unsafe { S::device().unmap_streaming(handle) }
    }
}
