//! Coherent memory for driver crates that bring an interface of their own.
//!
//! * [`DeviceMemory`]: what the adapters share: buffers that drivers name by their two addresses,
//!   and bounce buffers for memory that the device can't be given as it is;
//! * [`virtio_drivers`] (feature `virtio-drivers`): that crate's `Hal`;
//! * [`dma_api`] (feature `dma-api`): that crate's `DmaOp`.
//!
//! # Memory of the driver's
//! Both interfaces let a driver hand the device memory that did not come from an allocator of DMA
//! memory: something on the heap, a request on the stack. In a PV guest that is a run of bytes for
//! the processor alone. It is given to the device as it is where it lies in the linear mapping,
//! every page of it next to the last in the machine, and all of it within the device's reach.
//! Otherwise a *bounce buffer* takes its place, and bytes are copied. What can't be done:
//! * a buffer that crosses into a page that is elsewhere in the machine is never shared in place,
//!   for both interfaces have one device address for it. Drivers that keep their buffers within a
//!   page, or take them from the allocator, are spared the copy;
//! * the device sees of a bounce buffer what was there when it was shared. A driver that writes to
//!   its own buffer later, while the device has it, is not heard.

#[cfg(feature = "dma-api")]
pub mod dma_api;
mod lent;
mod live;
mod memory;
mod moved;
#[cfg(feature = "virtio-drivers")]
pub mod virtio_drivers;

pub use live::LiveSlot;
pub use memory::{AdapterError, BouncePool, DeviceMemory};
pub use moved::{MovedBuffer, Purpose};
