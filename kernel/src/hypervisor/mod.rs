//! The kernel's handles of Xen: the real hypervisor, one traced handle for each vCPU.
//!
//! | question | place |
//! |---|---|
//! | what is a handle, and how are its calls traced? | [`handle`] |
//! | which handle does this vCPU use? | `current` |
//!
//! [`trace`](crate::trace) prints what the handles have recorded.

mod current;
pub mod handle;

pub use current::xen;
pub use handle::{Hypervisor, untraced};
