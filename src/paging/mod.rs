//! Page-table edits through Xen, and what the embedding kernel says about its memory.
//!
//! * [`GuestMemory`]: the guest's memory as the kernel reaches it;
//! * [`Word`]: what one access reads or writes;
//! * [`LinearMapping`]: the page-table entries that map it in a PV guest;
//! * [`FrameInUse`], [`Holder`]: what else references a frame;
//! * [`FlushClock`]: which flush of all vCPUs covers which removed mappings.

mod batch;
mod flush;
mod holder;
mod linear;
mod memory;

pub use crate::word::Word;
pub(crate) use batch::PteBatch;
pub use flush::{FlushClock, FlushTime};
pub use holder::{FrameInUse, Holder};
pub use linear::{EntryRow, FirstLevelTable, LinearMapping, NoLinearMapping};
pub use memory::GuestMemory;
