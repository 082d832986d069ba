//! Page-table edits through Xen.
//!
//! * [`GuestMemory`], [`LinearMapping`]: what the embedding kernel tells about its mapping;
//! * [`PteBatch`]: many first-level entries written with few `mmu_update` calls.

mod batch;
mod linear;

pub use batch::{PteBatch, PteError};
pub use linear::{GuestMemory, LinearMapping, Width};
