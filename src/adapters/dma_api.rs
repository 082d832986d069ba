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
//! That crate has Rust references to memory that a device may write, against rule
//! [M5](crate::rules#M5): its users have to keep the device away while they hold one, as it says
//! itself.
//!
//! * Constraints of a call and of the [`DeviceMemory`] hold together, the stricter of each. A
//!   boundary that is no power of two can't be kept and is answered like missing memory.
//! * On x86 all memory is coherent: both kinds of allocation are the same coherent buffers. Each
//!   takes whole pages; for many small ones have a [`Pool`](crate::dma::Pool).
//! * An alignment above the page size is kept for the device. For the processor it is checked, and
//!   where it can't be had as well there is no memory.

use core::alloc::Layout;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use dma_api::{DmaAllocHandle, DmaConstraints, DmaDirection, DmaError, DmaMapHandle, DmaOp};

use super::DeviceMemory;
use super::lent::Memory;
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::dma::{ConstraintError, Constraints};
use crate::platform::Platform;

impl<P: Platform + Sync> DeviceMemory<P> {
    /// The stricter of what the memory has for all and what a call wants.
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
            // The crate does not give these back, so nothing may be taken for them.
            let nothing = NonNull::new(core::ptr::without_provenance_mut(layout.align()))?;
            // SAFETY: there are no bytes to refer to.
            return Some(unsafe { DmaAllocHandle::new(nothing, nothing, 0.into(), layout) });
        }
        let constraints = self.stricter(call).ok()?;
        let (dma, pointer) = self.alloc(layout.size() as u64, &constraints).ok()?;
        if !pointer.addr().get().is_multiple_of(layout.align()) {
            // It was allocated just now, so it is known.
            let _known = self.free(dma, pointer);
            return None;
        }
        // SAFETY: one buffer, mapped there, nobody else's until it is freed by these addresses
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
        // Nothing is lent at addresses that are not known, so there is nothing to free.
        let _leaked = self.release(handle);
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

    /// Maps in place where that can be, or by a bounce buffer. That begins as a copy, whatever the
    /// direction, so that a device which writes less than it may leaves the rest as it was.
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
            // SAFETY: the caller's buffer, which it keeps until it is unmapped.
            return Ok(unsafe { DmaMapHandle::new(addr, dma.get().into(), layout, None) });
        }
        let fill = |bounce: &mut Memory<P>| {
            // SAFETY: the caller's buffer is live; the bounce buffer is as long, ours alone
            // ([M1](crate::rules#M1)), and no device knows of it yet. Bytes that were never written
            // may be among them, so they are copied without being looked at.
            unsafe { bounce.as_ptr().copy_from_nonoverlapping(addr, size.get()) };
        };
        let bounced = self.bounce(bytes, &constraints, fill);
        let (dma, pointer) = bounced.map_err(|_| DmaError::NoMemory)?;
        // SAFETY: as above, and the bounce buffer lives until it is unmapped.
        Ok(unsafe { DmaMapHandle::new(addr, dma.get().into(), layout, Some(pointer)) })
    }

    unsafe fn unmap_streaming(&self, handle: DmaMapHandle) {
        if handle.bounce_ptr().is_some() {
            let dma = DmaAddr::new(handle.dma_addr().as_u64());
            drop(self.unbounce(dma, handle.as_ptr()));
        }
    }
}
