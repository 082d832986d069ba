//! Exceptions, and the entries of events.
//!
//! A fault in [`try_read`] or [`try_write`] becomes the error of that call. Any other exception is
//! printed with its address, and crashes the domain.
//!
//! | question | place |
//! |---|---|
//! | which instructions run first and last? | [`entry`] |
//! | what is on the stack then? | `frame` |
//! | who handles which vector? | `handle` |
//! | how may an access fault? | `attempt` |
//! | what does a fatal exception print? | `report` |
//!
//! [`pv::traps`](crate::pv) and [`pvh::descriptors`](crate::pvh) register the entries with Xen and
//! with the processor.

mod attempt;
pub mod entry;
mod frame;
mod handle;
mod report;

pub use attempt::{try_read, try_write};
pub use frame::EXCEPTIONS;
