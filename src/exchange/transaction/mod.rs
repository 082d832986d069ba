//! The states of a run in the transaction of a PV guest. Each step consumes a state and returns the
//! next one.
//!
//! ```text
//! Prepared::new                  notes the machine frames, purges aliases, zeroes the run
//! Prepared::detach_and_exchange  clears the page-table entries, has Xen flush every vCPU once, and
//!                                exchanges the first part: one multicall. Then exchanges the other parts
//! Prepared::detach               with `Fuse::Off`: clears the entries and flushes
//! Detached::exchange             with `Fuse::Off`: exchanges all parts
//! Exchanged::undo                exchanges new extents that are scarce for extents anywhere
//! Exchanged::attach              maps the machine frames that back the run now
//! ```
//!
//! To exchange a part is to ask Xen, to record the new frames, and to diagnose a refusal.
//!
//! The list `backing` says at all times which machine frame backs each frame: the old one until Xen
//! has exchanged it, then the new one. So success, refusal and partial success end in the same way:
//! `Exchanged::attach` maps what the list says. Only frames whose machine frame is unknown stay
//! unmapped ([M6](crate::rules#M6)).
//!
//! * `detached`: the state in which no page-table entry maps the run, and the state before it;
//! * `fused`: clears the entries, flushes and exchanges the first part in one multicall;
//! * `ask`: fills the argument of the exchange and asks Xen, and interprets nothing;
//! * `record`: records the reply to one part;
//! * `diagnose`: finds the cause of a refusal, by named questions;
//! * `recover`: finds out which machine frames back the run after Xen failed past its commit point;
//! * `ending`, `exchanged`: the state after Xen was asked; undoes and attaches;
//! * `relocate`: swaps the machine frames of memory in use and of spare memory;
//! * `scattered`, `places`: exchange frames that do not lie side by side;
//! * `mapping`: takes a run out of the linear mapping and puts it back;
//! * `entries`: writes single page-table entries;
//! * `tables`: unhooks whole first-level tables, and hooks them in again.

mod ask;
mod detached;
mod diagnose;
mod ending;
mod entries;
mod exchanged;
mod fused;
mod mapping;
mod places;
mod record;
mod recover;
mod relocate;
mod scattered;
mod tables;

pub(super) use detached::Prepared;
pub use relocate::{Relocation, Relocator};
pub(crate) use scattered::ScatteredExchange;
