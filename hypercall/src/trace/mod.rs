//! What a [`Traced`](crate::Traced) hypervisor records, and how it is printed.
//!
//! * [`TraceRecord`]: one record: a hypercall ([`TraceEntry`]), its frames ([`FrameList`]), or the
//!   beginning or end of a [`Span`];
//! * [`CallRecord`]: a hypercall and its arguments, in numbers;
//! * [`Span`]: a test, an operation or one of its phases, which hypercalls belong to;
//! * [`Filter`]: which hypercalls are recorded;
//! * [`Summary`]: totals per hypercall, per phase and per error;
//! * [`TraceLine`]: a record as a line of text; [`Timescale`] gives its ticks a meaning.

mod display;
mod entry;
mod filter;
mod frames;
mod hypercall;
mod line;
mod lists;
mod record;
mod ring;
mod span;
mod state;
mod summary;
mod time;

pub use entry::{EndedSpan, TraceEntry, TraceRecord};
pub use filter::Filter;
pub(crate) use frames::ExtentList;
pub use frames::{FrameList, ListKind, TracedRun};
pub use hypercall::Hypercall;
pub use line::{TraceHeader, TraceLine};
pub(crate) use lists::Lists;
pub use record::{CallRecord, EntryRecord, ExchangeRecord, MulticallRecord};
pub(crate) use ring::TraceRing;
pub use span::{Operation, Phase, Span};
pub(crate) use state::TraceState;
pub use summary::{CallTotals, ErrorCount, PhaseTotals, Summary};
pub use time::Timescale;
