//! What a [`Traced`](crate::Traced) hypervisor records.
//!
//! * [`CallRecord`]: a hypercall and its decoded arguments;
//! * [`TraceEntry`]: a record with number, time and result; it prints as one line of the trace;
//! * [`Span`]: an operation or one of its phases, which hypercalls belong to;
//! * [`Summary`]: the number of calls, sub-operations, flushes and errors per hypercall;
//! * [`TraceRing`]: the last entries, for a panic to print.

mod hypercall;
mod level;
mod record;
mod ring;
mod span;
mod summary;

pub use hypercall::Hypercall;
pub use level::Level;
pub use record::{Arg, CallRecord};
pub use ring::{RING_ENTRIES, TraceEntry, TraceRing};
pub use span::{Phase, Span};
pub use summary::{CallTotals, Summary};
