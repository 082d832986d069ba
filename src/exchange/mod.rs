//! The transaction: exchanges the machine frames that back a run for contiguous ones, and back.
//!
//! * [`Exchanger`] exchanges memory of a PV guest, by `XENMEM_exchange`;
//! * [`Refiller`] does it in a translated guest (PVH): by the exchange where Xen permits it, else it
//!   gives frames up and populates their places again;
//! * [`Relocator`] moves memory in use of a PV guest to other machine frames that the guest has;
//! * [`Capability`] says which of the first two is available here, and why;
//! * [`Permission`] says whether Xen exchanges memory of a translated guest;
//! * [`ExchangeError`] says what went wrong, [`ExchangeFailure`] what remains of the run.
//!
//! # The way of a run through an exchange
//! ```text
//! FrameRun --check--> Prepared --detach--> Detached --exchange--> Exchanged --attach--> FrameRun
//!                         |                                           |
//!                         +---- detach_and_exchange: one multicall ---+
//!                                                                     |
//!                                  refused: what was exchanged is undone or kept
//!                                  torn: what is found is mapped, the rest quarantined
//! ```
//! Each task has one place:
//!
//! * `transaction::ask` fills the argument and makes the hypercall, `transaction::fused` makes the first
//!   one in a multicall, and `reply` decodes the answer;
//! * `transaction::diagnose` finds the cause of a refusal. It finds the busy frame, and
//!   [`GuestMemory::holder`](crate::paging::GuestMemory::holder) names what references it.
//!
//! The flushes follow the rules [F1](crate::rules#F1) to [F5](crate::rules#F5).

mod accounts;
mod capability;
mod error;
mod exchanger;
mod failure;
mod guest;
mod options;
mod part;
mod permission;
mod refill;
mod reply;
mod request;
mod scattered_frames;
mod transaction;

pub use accounts::Accounts;
pub use capability::Capability;
pub use error::ExchangeError;
pub use exchanger::Exchanger;
pub use failure::{ExchangeFailure, Remaining, RemainingRuns};
pub use options::{ExchangeOptions, Fuse, Scrub};
pub use part::{Node, Part, Placement};
pub use permission::Permission;
pub use refill::Refiller;
pub use reply::{ExchangeReply, PartOutcome, Rest};
pub use request::{Lists, OnRefusal, Progress};
pub(crate) use scattered_frames::ScatteredFrames;
pub(crate) use transaction::ScatteredExchange;
pub use transaction::{Relocation, Relocator};
