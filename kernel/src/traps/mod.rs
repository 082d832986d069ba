//! Exceptions, and the entry of events.
//!
//! A fault of [`try_read`] or [`try_write`] becomes the error of that call. Any other exception
//! prints what happened and where, then crashes the domain.
//!
//! | question | place |
//! |---|---|
//! | which instructions run first and last? | [`entry`] |
//! | what is on the stack then? | `frame` |
//! | who handles which vector? | `handle` |
//! | how may an access fault? | `attempt` |
//! | what does a fatal exception print? | `report` |
//!
//! How Xen or the processor finds the entries is in [`pv::traps`](crate::pv) and
//! [`pvh::descriptors`](crate::pvh).

mod attempt;
pub mod entry;
mod frame;
mod handle;
mod report;

pub use attempt::{try_read, try_write};
pub use frame::EXCEPTIONS;
