//! What a [`Traced`](crate::Traced) hypervisor records.
//!
//! * [`Call`]: a hypercall and its decoded arguments;
//! * [`Entry`]: a call with number, time and result, as it prints in the trace;
//! * [`Span`]: an operation or one of its phases, which hypercalls belong to;
//! * [`Summary`]: calls, sub-operations and errors per hypercall;
//! * [`Ring`]: the last entries, for a panic to print.

mod call;
mod ring;
mod span;
mod summary;

pub use call::{Arg, Call, Hypercall};
pub use ring::{Entry, RING_ENTRIES, Ring};
pub use span::{Phase, Span};
pub use summary::{Row, Summary};

/// How much of the trace is shown. The ring and the summary are kept at every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Level {
    /// Nothing.
    #[default]
    Off,
    /// A table at the end.
    Summary,
    /// A line per hypercall, and the table.
    Full,
}
