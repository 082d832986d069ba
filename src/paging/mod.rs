//! Page-table edits through Xen.
//!
//! * [`LinearMapping`]: what the embedding kernel tells about its mapping of all guest frames;
//! * [`PteBatch`]: many first-level entries written with few `mmu_update` calls.

mod batch;
mod linear;

pub use batch::{PteBatch, PteError};
pub use linear::LinearMapping;
