//! The `DmaOp` of the crate `dma-api`.
//!
//! ```
//! use dma_api::{DeviceDma, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDomainId, DmaError};
//! use xen_contig::adapters::DeviceMemory;
//! use xen_contig::platform::Platform;
//!
//! /// A ring of 256 words for a device with 32 address bits.
//! fn ring<P: Platform + Sync>(memory: &'static DeviceMemory<P>) -> Result<(), DmaError> {
//!     let reach = DmaConstraints::new(0xffff_ffff);
//!     let info = DmaDeviceInfo::new(DmaDomainId::Direct, DmaCoherency::Coherent, reach);
//!     let device = DeviceDma::new(info, memory);
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
//! * The constraints of a call and those of the [`DeviceMemory`] both apply: the stricter one of each
//!   kind. A boundary must be a power of two; otherwise the call fails as if no memory was available.
//! * On x86 all memory is coherent, so both kinds of allocation return coherent buffers. Each takes
//!   whole pages. Use a [`Pool`](crate::dma::Pool) for many small buffers.
//! * An alignment above the page size holds for the device address. If the processor's address does
//!   not have it too, the call fails as if no memory was available.

use core::alloc::Layout;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use dma_api::{DmaAllocHandle, DmaConstraints, DmaDirection, DmaError, DmaMapHandle, DmaOp};

use super::DeviceMemory;
use super::driver_memory::DriverMemory;
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::dma::{ConstraintError, Constraints};
use crate::platform::Platform;

impl<P: Platform + Sync> DeviceMemory<P> {
    /// Returns the stricter of the constraints of this memory and of a call.
    fn stricter(&self, call: DmaConstraints) -> Result<Constraints, ConstraintError> {
        let own = self.constraints();
        let boundary = call.boundary.map(|boundary| boundary as u64);
        let max_segment = call.max_segment_size.map_or(u64::MAX, |bytes| bytes as u64);
        let both = own
            .to_builder()
            .mask(own.mask().min(call.addr_mask))
            .align(own.align().max(call.align as u64))
            .max_segment(own.max_segment().min(max_segment));
        match [own.boundary(), boundary].into_iter().flatten().min() {
            Some(boundary) => both.boundary(boundary).build(),
            None => both.build(),
        }
    }

    fn allocate(&self, call: DmaConstraints, layout: Layout) -> Option<DmaAllocHandle> {
        let call = call.with_align(call.align.max(layout.align()));
        if layout.size() == 0 {
            // The crate never frees an empty allocation, so it must not take any memory.
            let nothing = NonNull::new(core::ptr::without_provenance_mut(layout.align()))?;
            // SAFETY: the handle has no bytes, so nothing accesses memory through it.
            return Some(unsafe { DmaAllocHandle::new(nothing, nothing, 0.into(), layout) });
        }
        let constraints = self.stricter(call).ok()?;
        let (dma, pointer) = self.alloc(layout.size() as u64, &constraints).ok()?;
        if !pointer.addr().get().is_multiple_of(layout.align()) {
            // `alloc` has just returned these two addresses, so this cannot fail.
            let _freed = self.free(dma, pointer);
            return None;
        }
        // SAFETY: `pointer` and `dma` are the two addresses of one mapped buffer. The slot owns the
        // buffer until it is freed by these addresses, so nothing else accesses it
        // ([M1](crate::rules#M1)).
        Some(unsafe { DmaAllocHandle::new(pointer, pointer, dma.get().into(), layout) })
    }

    fn release(&self, handle: DmaAllocHandle) -> Result<(), DmaError> {
        if handle.size() == 0 {
            return Ok(());
        }
        let dma = DmaAddr::new(handle.dma_addr().as_u64());
        self.free(dma, handle.as_ptr()).map_err(|_| DmaError::CoherentReleaseFailed)
    }
}

impl<P: Platform + Sync> DmaOp for DeviceMemory<P> {
    fn page_size(&self) -> usize {
        PAGE_SIZE
    }

    unsafe fn alloc_contiguous(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        self.allocate(constraints, layout)
    }

    unsafe fn dealloc_contiguous(&self, handle: DmaAllocHandle) {
        // The method of the trait returns no error. `release` fails if no slot has these addresses, and
        // then there is nothing to free.
        let _unknown = self.release(handle);
    }

    unsafe fn alloc_coherent(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        self.allocate(constraints, layout)
    }

    unsafe fn dealloc_coherent(&self, handle: DmaAllocHandle) -> Result<(), DmaError> {
        self.release(handle)
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
        _direction: DmaDirection,
    ) -> Result<DmaMapHandle, DmaError> {
        let layout = Layout::from_size_align(size.get(), constraints.align.max(1))?;
        let constraints = self.stricter(constraints).map_err(|_| DmaError::NoMemory)?;
        let bytes = NonNull::slice_from_raw_parts(addr, size.get());
        if let Some(dma) = self.translate(bytes, &constraints) {
            // SAFETY: `addr` is the caller's buffer, which `map_streaming` requires to stay valid until
            // it is unmapped. `dma` is its address for the device.
            return Ok(unsafe { DmaMapHandle::new(addr, dma.get().into(), layout, None) });
        }
        let fill = |bounce: &mut DriverMemory<P>| {
            // SAFETY: `map_streaming` requires that `addr` is valid for `size` bytes. The bounce
            // buffer is at least as long, and nothing else accesses it ([M1](crate::rules#M1)): no
            // device has its address yet. Some bytes may be uninitialised, so they are copied as raw
            // memory.
            unsafe { bounce.as_ptr().copy_from_nonoverlapping(addr, size.get()) };
        };
        let bounced = self.bounce(bytes, &constraints, fill);
        let (dma, pointer) = bounced.map_err(|_| DmaError::NoMemory)?;
        // SAFETY: `map_streaming` requires that the caller's buffer stays valid until it is unmapped,
        // and the slot owns the bounce buffer until then.
        Ok(unsafe { DmaMapHandle::new(addr, dma.get().into(), layout, Some(pointer)) })
    }

    unsafe fn unmap_streaming(&self, handle: DmaMapHandle) {
        if handle.bounce_ptr().is_some() {
            let dma = DmaAddr::new(handle.dma_addr().as_u64());
            drop(self.unbounce(dma, handle.as_ptr()));
        }
    }
}
