//! Coherent DMA memory for drivers.
//!
//! * [`Constraints`]: what a device can reach, checked for contradictions before anything moves;
//! * [`Allocator`]: hands out [`CoherentBuffer`]s from its reserve. The reserve takes in free memory of
//!   the kernel, and exchanges memory only where that does not fit;
//! * [`CoherentBuffer`]: memory that a device reads and writes. It is never a Rust reference
//!   ([M5](crate::rules#M5)) and knows its device addresses. A drop returns it to the reserve;
//! * [`Allocator::make_contiguous`]: makes memory that is in use contiguous, at the same guest addresses;
//! * [`Retain`]: how much idle memory the reserve retains;
//! * [`Pool`]: objects of one size, cut from coherent buffers, for drivers and their interrupt
//!   handlers;
//! * [`AllocError`]: why not, with the evidence inside.
//!
//! # A driver's view
//! ```
//! use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints};
//! use xen_contig::platform::Platform;
//!
//! /// A ring of 64 KiB for a device with 32 address bits that wants it aligned to its size.
//! fn ring<P: Platform>(dma: &Allocator<P>) -> Result<CoherentBuffer<'_, P>, AllocError> {
//!     let device = Constraints::builder().mask(0xffff_ffff).align(64 << 10).build()?;
//!     let mut ring = dma.alloc_coherent(64 << 10, &device)?;
//!     ring.store(0, 1_u32).expect("the ring has a first word");
//!     let _for_the_device = ring.dma_addr().get();
//!     Ok(ring)
//! }
//! ```
//! The drop of the buffer returns it to the reserve. A device that scatters and gathers says so, and
//! requests above the domain's order limit are served as several segments:
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
mod reserve;
mod retain;
mod scatter;
mod segments;
mod serve;
mod span;
mod stats;
#[cfg(test)]
mod test_memory;
mod trim;

pub use crate::word::Word;
pub use allocator::Allocator;
pub use buffer::CoherentBuffer;
pub use buffer_error::BufferError;
pub use constraint_error::ConstraintError;
pub use constraints::{Backing, Constraints, ConstraintsBuilder, Sleep};
pub use contiguous::RelocationFailure;
pub use error::AllocError;
pub use many::Request;
#[cfg(any(feature = "virtio-drivers", feature = "dma-api"))]
pub(crate) use moved::DeviceRange;
pub use moved::Moved;
pub use pool::{
    MovedChunk, Pool, PoolBuilder, PoolConfig, PoolError, PoolErrorKind, PoolObject,
    PoolStatistics, Zeroing,
};
pub use retain::Retain;
pub use segments::Segment;
pub use stats::Stats;
pub use trim::TrimReport;
