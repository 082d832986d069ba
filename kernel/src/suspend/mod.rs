//! Saving and restoring the domain: the guest's part of it.
//!
//! `xl save`, `xl migrate` and `xl save -c` ask for it by an event channel, whose port the guest
//! writes to xenstore. The guest releases what the toolstack cannot save, and asks Xen to suspend
//! it. When it runs again its memory has the same contents. In a PV guest other machine frames back
//! them: the toolstack rewrites P2M and page tables, but all addresses that devices know are wrong
//! ([C75](xen_contig::conformance#C75)).
//!
//! | question | place |
//! |---|---|
//! | how does a toolstack ask, and what does the guest do then? | `save` |
//!
//! Only a guest with one vCPU can be saved. Other vCPUs would have to be stopped before and started
//! again afterwards.

mod save;

pub use save::{Resumed, SaveRequests};
