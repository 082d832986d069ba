//! The kernel's page tables.
//!
//! | question | place |
//! |---|---|
//! | what do the page tables map? | [`walk`] |
//! | where is an entry that the guest writes itself? | `own` |
//! | which frames are in use or shared, and what else maps a frame? | `uses` |
//! | how does the library see the linear mapping? | `linear` |
//!
//! [`pv`](crate::pv) and [`pvh`](crate::pvh) build the tables at boot and map window slots.

mod linear;
mod own;
mod uses;
pub mod walk;

pub use linear::{FrameUsers, Linear};
pub use own::{ADDRESS, own_entry};
pub use uses::Uses;
