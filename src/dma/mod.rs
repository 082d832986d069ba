//! Coherent DMA memory for drivers.
//!
//! * [`Constraints`]: what a device can reach, checked for contradictions before anything moves;
//! * [`Allocator`]: hands out [`CoherentBuffer`]s, exchanging memory only where what there is does
//!   not fit already;
//! * [`CoherentBuffer`]: memory that a device reads and writes. It is never a Rust reference (M5),
//!   knows its device addresses, and gives itself back;
//! * [`GiveBack`]: when memory goes back to Xen;
//! * [`AllocError`]: why not, with the evidence inside.

mod allocator;
mod buffer;
mod constraints;
mod error;
mod fit;
mod give_back;
mod layout;
mod many;

pub use allocator::Allocator;
pub use buffer::{CoherentBuffer, OutOfBounds, Segment, SplitError};
pub use constraints::{Builder, ConstraintError, Constraints, Sleep, Zeroing};
pub use error::AllocError;
pub use give_back::{GiveBack, GiveBackReport, Stats};
pub use layout::{Layout, MAX_SEGMENTS, SegmentPlan};
pub use many::{ManyError, Request};
