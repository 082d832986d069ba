//! Being saved: what a guest does before, and restores after.
//!
//! `xl save`, `xl migrate` and `xl save -c` ask for it by an event channel, which the guest names
//! in xenstore. The guest releases what the toolstack can't save, and asks Xen to suspend it. When
//! it runs again its memory has the same contents. In a PV guest the machine frames are others: the
//! toolstack rewrites P2M and page tables, but all addresses that devices know are wrong (row
//! [C75](xen_contig::conformance#C75)).
//!
//! | question | place |
//! |---|---|
//! | how does a toolstack ask, and what does the guest do then? | `save` |
//! | how is a key written to xenstore? | `xenstore` |
//!
//! Only a guest with one vCPU can be saved: others would have to be stopped before and started
//! again after.

mod save;
mod xenstore;

pub use save::{Requests, Resumed};
