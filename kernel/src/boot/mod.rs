//! The boot code, from the entry to a [`Machine`](crate::machine::Machine).
//!
//! | question | place |
//! |---|---|
//! | in which order does the kernel boot? | `start` |
//! | how many frames does Xen count for the domain? | `reservation` |
//! | what do the PV part and the PVH part hand over? | `state` |
//!
//! The two parts are [`pv::boot`](crate::pv::boot) and [`pvh::boot`](crate::pvh::boot).

mod reservation;
mod start;
mod state;

pub use start::{BootResult, start};
pub use state::{BootState, CUT_AFTER, CommandLine};
