//! DMA memory for driver crates that define an interface of their own.
//!
//! * [`virtio_drivers`] (feature `virtio-drivers`): that crate's `Hal`;
//! * [`dma_api`] (feature `dma-api`): that crate's `DmaOp`.
//!
//! Each is a thin layer on a [`Device`](crate::dma::Device). Drivers of such crates name their memory by
//! addresses alone, so the adapters use [`alloc_raw`](crate::dma::Device::alloc_raw),
//! [`free_raw`](crate::dma::Device::free_raw), [`map_raw`](crate::dma::Device::map_raw) and
//! [`unmap_raw`](crate::dma::Device::unmap_raw). An adapter for another interface does the same:
//! `docs/EMBEDDING.md` in the repository builds one.
//!
//! # Memory of the driver
//! Both interfaces let a driver share memory that no DMA allocator allocated: bytes on the heap, or a
//! request on the stack. In a PV guest such memory is contiguous for the processor alone. The device
//! accesses it in place if it lies in the linear mapping, is contiguous in the machine and is in the
//! device's reach. Otherwise the device gets a *bounce buffer*, and the adapter copies the bytes.
//!
//! Two limits follow:
//! * A buffer whose pages are not contiguous in the machine is never shared in place, because both
//!   interfaces have one device address for it. A buffer within one page, or from the allocator, avoids
//!   the copy.
//! * The device sees a bounce buffer's bytes as they were when the driver shared the buffer. If the
//!   driver writes to its own buffer later, the device does not see it.

#[cfg(feature = "dma-api")]
pub mod dma_api;
#[cfg(feature = "virtio-drivers")]
pub mod virtio_drivers;
