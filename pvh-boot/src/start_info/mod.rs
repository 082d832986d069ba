//! Readers of the start info of both kinds of guest.
//!
//! The start info is what the domain builder tells the kernel about its domain.
//!
//! The readers access only bytes that the kernel passes to them, so they run on any host. They check
//! every field. For a value that cannot be right, they return an error that names the field and the
//! value.
//!
//! A PVH start info contains physical addresses. The reader calls a function of the kernel for each of
//! them, and the kernel decides which memory it may read.

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
