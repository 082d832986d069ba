//! Runs of guest frames, and an allocator that hands them out.
//!
//! * [`FrameRun`]: consecutive frames, as a value that owns them;
//! * [`FrameAllocator`]: a frame allocator that an embedder can use.

mod allocator;
mod run;

pub use allocator::{Candidate, FrameAllocator, NotAllocated, Search};
pub use run::FrameRun;
