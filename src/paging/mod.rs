//! Page-table edits through Xen.
//!
//! * [`GuestMemory`], [`LinearMapping`]: what the embedding kernel tells about its mapping;
//! * [`Held`], [`Holder`]: what else has hold of a frame;
//! * [`PteBatch`]: many first-level entries written with few `mmu_update` calls;
//! * [`FlushClock`]: which flush of all vCPUs covers what.

mod batch;
mod flush;
mod holder;
mod linear;

pub use batch::{PteBatch, PteError, Refusal};
pub use flush::{FlushClock, FlushTime};
pub use holder::{Held, Holder};
pub use linear::{EntryRow, GuestMemory, LinearMapping, Width};
