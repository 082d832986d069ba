//! DMA memory for drivers.
//!
//! * [`Constraints`]: what a device can reach, checked for contradictions before anything moves;
//! * [`Device`]: a name and limits. Drivers get [`CoherentBuffer`]s from it, and its
//!   [`report`](Device::report) says who holds what;
//! * [`Allocator`]: serves devices from its reserve. The reserve takes in free memory of the kernel, and
//!   exchanges memory only where that does not fit;
//! * [`CoherentBuffer`]: memory that a device reads and writes. It is never a Rust reference
//!   ([M5](crate::rules#M5)) and knows its device addresses. A drop returns it to the reserve;
//! * [`Coherent`]: the same memory as values of a type, whose fields a [`DmaCell`] reads and writes in the
//!   device's byte order ([`Le`], [`Be`]). A [`CoherentBox`] is exclusive until it is shared;
//! * [`Mapping`]: memory of the guest that a device accesses for a while, in place or bounced.
//!   [`Device::map`] makes it;
//! * [`Allocator::make_contiguous`]: makes memory that is in use contiguous, at the same guest addresses;
//! * [`Retain`]: how much idle memory the reserve retains;
//! * [`Pool`]: objects of one size, cut from coherent buffers of a device, for drivers and their
//!   interrupt handlers;
//! * [`AllocError`]: why not, with the evidence inside.
//!
//! # A driver's view
//! ```
//! use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints, Device, Request};
//! use xen_contig::platform::Platform;
//!
//! /// A device with 32 address bits.
//! fn nic<P: Platform>(allocator: &Allocator<P>) -> Result<Device<'_, P>, AllocError> {
//!     Device::new(allocator, "nic", &Constraints::builder().mask(0xffff_ffff).build()?)
//! }
//!
//! /// A ring of 64 KiB that is aligned to its size.
//! fn ring<'d, P: Platform>(nic: &'d Device<'_, P>) -> Result<CoherentBuffer<'d, P>, AllocError> {
//!     let mut ring = nic.alloc_coherent(Request::new(64 << 10).tag("ring").align(64 << 10))?;
//!     ring.store(0, 1_u32).expect("the ring has a first word");
//!     let _for_the_device = ring.dma_addr().get();
//!     Ok(ring)
//! }
//! ```
//! The drop of the buffer returns it to the reserve. A ring of descriptors is better typed. The driver fills
//! it, then shares it with the device, and from then on accesses it by cells:
//! ```
//! use bytemuck::{Pod, Zeroable};
//! use core::ptr::NonNull;
//! use xen_contig::dma::{AllocError, Coherent, Device, Direction, Le, MapError};
//! use xen_contig::field;
//! use xen_contig::platform::Platform;
//!
//! #[derive(Clone, Copy, Pod, Zeroable)]
//! #[repr(C)]
//! struct Descriptor {
//!     data: Le<u64>,
//!     len: Le<u32>,
//!     status: Le<u32>,
//! }
//!
//! type Ring<'d, P> = Coherent<'d, P, [Descriptor]>;
//!
//! fn ring<'d, P: Platform>(nic: &'d Device<'_, P>) -> Result<Ring<'d, P>, AllocError> {
//!     let mut ring = nic.alloc_coherent_slice::<Descriptor>(256, "ring")?;
//!     ring.iter_mut().for_each(|descriptor| descriptor.len = Le::new(2048));
//!     let ring = ring.share();
//!     let _for_the_device = ring.dma_addr().get();
//!     Ok(ring)
//! }
//!
//! fn is_done<P: Platform>(ring: &Ring<'_, P>, index: usize) -> bool {
//!     ring.at(index).is_ok_and(|cell| field!(cell, Descriptor, status).load().get() == 2)
//! }
//!
//! /// Sends a packet that exists already. `wait` starts the device and returns when it has stopped.
//! ///
//! /// # Safety
//! /// The packet is valid until the function returns, and nothing else accesses it.
//! unsafe fn send<P: Platform>(
//!     nic: &Device<'_, P>,
//!     ring: &Ring<'_, P>,
//!     packet: NonNull<[u8]>,
//!     wait: impl Fn(),
//! ) -> Result<(), MapError> {
//!     // SAFETY: this function's contract. The mapping is dropped when the device has stopped.
//!     let mapping = unsafe { nic.map(packet, Direction::ToDevice)? };
//!     for (segment, descriptor) in mapping.segments().zip(ring.cells()) {
//!         field!(descriptor, Descriptor, data).store(Le::new(segment.dma.get()));
//!         field!(descriptor, Descriptor, len).store(Le::new(segment.len as u32));
//!         field!(descriptor, Descriptor, status).store(Le::new(1));
//!     }
//!     wait();
//!     Ok(())
//! }
//! ```
//! A device that scatters and gathers says so, and requests above the domain's order limit are served as
//! several segments:
//! ```
//! use xen_contig::dma::Constraints;
//!
//! let device = Constraints::builder()
//!     .mask((1 << 36) - 1)
//!     .max_segment(4 << 20)
//!     .max_segments(16)
//!     .boundary(1 << 32)
//!     .build()?;
//! # Ok::<(), xen_contig::dma::ConstraintError>(())
//! ```

mod adopt;
mod allocator;
mod buffer;
mod buffer_error;
mod class;
mod constraint_error;
mod constraints;
mod contiguous;
mod copy;
mod counters;
mod covered;
mod device;
mod error;
mod grow;
mod idle;
mod many;
mod moved;
mod plan;
mod pool;
mod records;
mod refill;
mod release;
mod request;
mod reserve;
mod retain;
mod scatter;
mod segments;
mod serve;
mod span;
mod stats;
mod streaming;
#[cfg(test)]
mod test_memory;
mod trim;
mod typed;

pub use crate::word::{Be, Le, Word};
pub use allocator::Allocator;
pub use buffer::CoherentBuffer;
pub use buffer_error::BufferError;
pub use constraint_error::ConstraintError;
pub use constraints::{Backing, Constraints, ConstraintsBuilder, Sleep};
pub use contiguous::RelocationFailure;
pub use device::{
    BufferKind, BuffersMoved, Device, DeviceCounts, DeviceName, DeviceReport, FailureCause,
    LiveBuffer, MovedBuffer, NotLent, RawMapping, StillInUse,
};
pub use error::AllocError;
pub use moved::Moved;
pub use pool::{
    MovedChunk, Pool, PoolBuilder, PoolConfig, PoolError, PoolErrorKind, PoolObject,
    PoolStatistics, Zeroing,
};
pub use request::Request;
pub use retain::Retain;
pub use segments::Segment;
pub use stats::Stats;
pub use streaming::{Direction, MapError, Mapper, Mapping};
pub use trim::TrimReport;
pub use typed::{Coherent, CoherentBox, DmaCell};
