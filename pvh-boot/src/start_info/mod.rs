//! Readers of what the domain builder says about the new domain.
//!
//! Pure: they look at bytes that they are given, and touch no other memory. A
//! value that can't be true is an error that names the field and the value; it is
//! never believed and never silently replaced.
//!
//! The `pvh` crate reads the PVH structures too, but follows their pointers
//! itself; here each access is the caller's to grant or refuse.

mod command_line;
pub mod error;
mod flags;
pub mod memory_map;
pub mod pv;
pub mod pvh;

pub use error::{Problem, StartInfoError};
pub use flags::StartFlags;
pub use memory_map::{MemoryKind, MemoryRegion};
pub use pv::{PvConsole, PvModule, PvModulePlace, PvStartInfo};
pub use pvh::{PvhModule, PvhStartInfo};
