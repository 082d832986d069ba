//! The transaction: machine-contiguous memory beneath guest frames, and back.
//!
//! * [`Exchanger`] does it in a PV guest, by `XENMEM_exchange`;
//! * [`Refiller`] does it in a translated guest (PVH), by giving frames up and populating their
//!   places again;
//! * [`Capability`] says which of the two is to be had here, and why;
//! * [`ExchangeError`] says what went wrong, with the evidence.
//!
//! # The way of a run through an exchange
//! ```text
//! Mapped --detach--> Detached --exchange--> Exchanged --attach--> mapped again
//!                                              |   ^
//!                                              +---+ resume, undo
//!                                              +--> torn: what is found is mapped, the rest quarantined
//! ```
//!
//! Which TLB flush is made on this way, by whom and when, is said by the rules [F1](crate::rules#F1)
//! to [F5](crate::rules#F5).

mod call;
mod capability;
mod error;
mod given_up;
mod left;
mod limit;
mod outcome;
mod part;
mod plan;
mod pv;
mod recover;
mod transaction;
mod translated;

pub use capability::Capability;
pub use error::{ExchangeError, ExchangeFailure};
pub use left::Left;
pub use limit::{NoOrderPermitted, node_permitted, order_limit, order_permitted};
pub use outcome::{Fate, Outcome, Request, decode};
pub use part::{Node, Part, Placement};
pub use plan::Plan;
pub use pv::{Accounts, Exchanger, Extent, Lists, OnRefusal, Progress};
pub use translated::{RefillFailure, Refiller};
