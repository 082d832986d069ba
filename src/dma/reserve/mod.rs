//! Machine-contiguous memory that the allocator owns and cuts buffers from.
//!
//! * [`Reserve`]: the blocks, guarded by the embedder's lock;
//! * `blocks`: the buddy allocator;
//! * `pieces`: buffers of several blocks, and the search for them;
//! * `frame_table`: the records, in frames of the guest.

mod blocks;
mod frame_table;
mod locked;
mod pieces;

pub(super) use blocks::{CLASSES, class_of};
pub(super) use frame_table::{Block, Extent, Origin};
pub(super) use locked::Reserve;
pub(super) use pieces::IdleSlice;
