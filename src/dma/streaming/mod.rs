//! Streaming: a device accesses memory of the guest for a while.
//!
//! [`Mapping`] has the documentation for users. In this folder:
//!
//! | file | question |
//! |---|---|
//! | `source` | which bytes, page by page? |
//! | `view` | where does the device find a page, and does it take it? |
//! | `survey` | which pages must be bounced, and how many segments is that? |
//! | `limits` | what must a bounce buffer be, and how long can a mapping be? |
//! | `layout`, `bounced_pages` | where do the bytes lie in the bounce memory? |
//! | `bounce`, `copy` | the bounce memory, and copies to and from it |
//! | `mapper`, `device` | all together |
//! | `mapping` | segments, syncs and the end |
//!
//! # Page by page, or all together
//! Only pages that the device cannot access in place are bounced, each to a page of its own. The offset in
//! the page stays, rounded down to the alignment, because devices such as NVMe controllers take lists of
//! pages in which only the first has an offset. Linux's swiotlb keeps the bits of `min_align_mask` in the
//! same way, but bounces each range as a whole and at most 256 KiB (`Documentation/core-api/swiotlb.rst`).
//! FreeBSD's `bus_dma` bounces page by page, and keeps the offset if `BUS_DMA_KEEP_PG_OFFSET` is set.
//!
//! The bounce pages may lie anywhere, so each counts as a segment or more. If that is more than the device
//! takes, all bytes are bounced to a buffer that the device takes as a whole.

mod bounce;
mod bounced_pages;
pub(super) mod copy;
mod device;
mod direction;
mod error;
mod layout;
mod limits;
mod mapper;
mod mapping;
mod source;
mod survey;
mod view;

pub use direction::Direction;
pub use error::MapError;
pub use mapper::Mapper;
pub use mapping::Mapping;
