//! Coherent DMA memory for drivers.
//!
//! * [`Constraints`]: what a device can reach, checked for contradictions before anything moves;
//! * [`Allocator`]: hands out [`CoherentBuffer`]s, exchanging memory only where what there is does
//!   not fit already;
//! * [`CoherentBuffer`]: memory that a device reads and writes. It is never a Rust reference
//!   ([M5](crate::rules#M5)), knows its device addresses, and gives itself back;
//! * [`GiveBack`]: when memory goes back to Xen;
//! * [`Pool`]: objects of one size, cut from coherent buffers, for drivers and their interrupt
//!   handlers;
//! * [`AllocError`]: why not, with the evidence inside.
//!
//! # A driver's view
//! ```
//! use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints};
//! use xen_contig::paging::Width;
//! use xen_contig::platform::Platform;
//!
//! /// A ring of 64 KiB for a device with 32 address bits that wants it aligned to its size.
//! fn ring<P: Platform>(dma: &Allocator<P>) -> Result<CoherentBuffer<'_, P>, AllocError> {
//!     let device = Constraints::builder().mask(0xffff_ffff).align(64 << 10).build()?;
//!     let mut ring = dma.alloc_coherent(64 << 10, &device)?;
//!     ring.store(0, Width::Double, 1).expect("the ring has a first word");
//!     let _for_the_device = ring.dma_addr().get();
//!     Ok(ring)
//! }
//! ```
//! The buffer gives itself back when it is dropped. A device that scatters and gathers says so, and
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

mod allocator;
mod buffer;
mod buffer_error;
mod constraints;
mod error;
mod fit;
mod give_back;
mod layout;
mod many;
mod moved;
#[cfg_attr(not(test), expect(dead_code, reason = "the allocator asks the plan next"))]
mod plan;
mod pool;
#[cfg_attr(not(test), expect(dead_code, reason = "the buffer computes its segments next"))]
mod segments;
mod span;

pub use allocator::Allocator;
pub use buffer::{CoherentBuffer, Segment};
pub use buffer_error::BufferError;
pub use constraints::{Backing, ConstraintError, Constraints, ConstraintsBuilder, Sleep, Zeroing};
pub use error::AllocError;
pub use give_back::{GiveBack, GiveBackReport, Stats};
pub use layout::{Layout, MAX_SEGMENTS, SegmentPlan};
pub use many::Request;
pub use moved::Moved;
#[cfg(any(feature = "virtio-drivers", feature = "dma-api"))]
pub(crate) use moved::Told;
pub use pool::{
    MovedChunk, Pool, PoolBuilder, PoolConfig, PoolError, PoolErrorKind, PoolObject, PoolStatistics,
};
