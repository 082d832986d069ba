//! The `DmaOp` of the crate `dma-api`.
//!
//! ```
//! use dma_api::{DeviceDma, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDomainId, DmaError};
//! use xen_contig::dma::Device;
//! use xen_contig::platform::Platform;
//!
//! /// A ring of 256 words for a device with 32 address bits.
//! fn ring<P: Platform + Sync>(nic: &'static Device<'static, P>) -> Result<(), DmaError> {
//!     let reach = DmaConstraints::new(0xffff_ffff);
//!     let info = DmaDeviceInfo::new(DmaDomainId::Direct, DmaCoherency::Coherent, reach);
//!     let device = DeviceDma::new(info, nic);
//!     let mut ring = device.coherent_array_zero::<u32>(256)?;
//!     ring.set_cpu(0, 1);
//!     let _register = ring.dma_addr();
//!     Ok(())
//! }
//! ```
//!
//! That crate makes Rust references to memory that a device may write, against rule
//! [M5](crate::rules#M5). Its documentation requires of its users that the device does not access the
//! memory while they hold a reference.
//!
//! * The constraints of a call and the limits of the [`Device`] both apply: the stricter one of each
//!   kind. A boundary must be a power of two; otherwise the call fails as if no memory was available. The
//!   alignment of the device's limits applies to coherent memory alone.
//! * On x86 all memory is coherent, so both kinds of allocation return coherent buffers. Each takes
//!   whole pages. Use a [`Pool`](crate::dma::Pool) for many small buffers.
//! * An alignment holds for the processor's address and for the device's. Above the page size, the first
//!   needs a linear mapping that begins at a multiple of it. A mapping can ask for a page at most.
//!
//! No method panics, whatever a driver passes. The interface has few errors; the
//! [`report`](Device::report) of the device counts failures by their causes.

use core::alloc::Layout;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use dma_api::{DmaAllocHandle, DmaConstraints, DmaDirection, DmaError, DmaMapHandle, DmaOp};

use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::dma::{Constraints, ConstraintsBuilder, Device, Direction, Request};
use crate::platform::Platform;

/// Returns the constraints of a call as limits, but for the alignment.
fn limits_of(call: &DmaConstraints) -> ConstraintsBuilder {
    let max_segment = call.max_segment_size.map_or(u64::MAX, |bytes| bytes as u64);
    let limits = Constraints::builder().mask(call.addr_mask).max_segment(max_segment);
    match call.boundary {
        Some(boundary) => limits.boundary(boundary as u64),
        None => limits,
    }
}

fn allocate<P: Platform>(
    device: &Device<'_, P>,
    call: DmaConstraints,
    layout: Layout,
) -> Option<DmaAllocHandle> {
    if layout.size() == 0 {
        // The crate never frees an empty allocation, so it must not take any memory.
        let nothing = NonNull::new(core::ptr::without_provenance_mut(layout.align()))?;
        // SAFETY: the handle has no bytes, so nothing accesses memory through it.
        return Some(unsafe { DmaAllocHandle::new(nothing, nothing, 0.into(), layout) });
    }
    let limits = limits_of(&call)
        .align(call.align.max(layout.align()) as u64)
        .frame_align(layout.align() as u64)
        .build()
        .map_err(|error| device.refused(error.into()))
        .ok()?;
    let request = Request::new(layout.size() as u64).tag("dma-api").within(&limits);
    let (dma, pointer) = device.alloc_raw(request).ok()?;
    if !pointer.addr().get().is_multiple_of(layout.align()) {
        // The linear mapping begins at an address without this alignment. `alloc_raw` has just returned
        // these two addresses, so this cannot fail.
        let _freed = device.free_raw(dma, pointer);
        return None;
    }
    // SAFETY: `pointer` and `dma` are the two addresses of one mapped buffer. The record owns the buffer
    // until it is freed by these addresses, so nothing else accesses it ([M1](crate::rules#M1)).
    Some(unsafe { DmaAllocHandle::new(pointer, pointer, dma.get().into(), layout) })
}

fn release<P: Platform>(device: &Device<'_, P>, handle: &DmaAllocHandle) -> Result<(), DmaError> {
    if handle.size() == 0 {
        return Ok(());
    }
    let dma = DmaAddr::new(handle.dma_addr().as_u64());
    device.free_raw(dma, handle.as_ptr()).map_err(|_| DmaError::CoherentReleaseFailed)
}

impl<P: Platform + Sync + 'static> DmaOp for Device<'static, P> {
    fn page_size(&self) -> usize {
        PAGE_SIZE
    }

    unsafe fn alloc_contiguous(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        allocate(self, constraints, layout)
    }

    unsafe fn dealloc_contiguous(&self, handle: DmaAllocHandle) {
        // The method of the trait returns no error. `release` fails if no record has these addresses, and
        // then there is nothing to free.
        let _unknown = release(self, &handle);
    }

    unsafe fn alloc_coherent(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        allocate(self, constraints, layout)
    }

    unsafe fn dealloc_coherent(&self, handle: DmaAllocHandle) -> Result<(), DmaError> {
        release(self, &handle)
    }

    /// Maps the bytes in place if possible, otherwise by a bounce buffer.
    ///
    /// A bounce buffer starts as a copy in every direction. So bytes that the device does not write
    /// stay as they were.
    unsafe fn map_streaming(
        &self,
        constraints: DmaConstraints,
        addr: NonNull<u8>,
        size: NonZeroUsize,
        direction: DmaDirection,
    ) -> Result<DmaMapHandle, DmaError> {
        let layout = Layout::from_size_align(size.get(), constraints.align.max(1))?;
        let limits = limits_of(&constraints).streaming_align(layout.align() as u64).build();
        let limits = limits.map_err(|error| {
            self.refused_mapping(error.into());
            DmaError::NoMemory
        })?;
        let bytes = NonNull::slice_from_raw_parts(addr, size.get());
        let direction = match direction {
            DmaDirection::ToDevice => Direction::ToDevice,
            DmaDirection::FromDevice => Direction::FromDevice,
            DmaDirection::Bidirectional => Direction::Bidirectional,
        };
        // SAFETY: `map_streaming` requires that `addr` is valid for `size` bytes until it is unmapped.
        let mapped = unsafe { self.map_raw(bytes, direction, &limits) };
        let mapped = mapped.map_err(|_| DmaError::NoMemory)?;
        // SAFETY: `map_streaming` requires that the caller's buffer stays valid until it is unmapped. The
        // record owns the bounce buffer until then.
        Ok(unsafe { DmaMapHandle::new(addr, mapped.dma.get().into(), layout, mapped.bounce) })
    }

    unsafe fn unmap_streaming(&self, handle: DmaMapHandle) {
        let dma = DmaAddr::new(handle.dma_addr().as_u64());
        let bytes = NonNull::slice_from_raw_parts(handle.as_ptr(), handle.size());
        // SAFETY: nothing is copied: the crate has copied what the device wrote.
        unsafe { self.unmap_raw(dma, bytes, false) };
    }
}
