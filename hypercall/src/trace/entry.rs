//! A hypercall that has returned.

use core::fmt;

use super::frames::FrameList;
use super::{CallRecord, Operation, Phase, Span};
use crate::XenErrno;

/// A hypercall that has returned, or several equal ones in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// The number of calls that this tracer recorded before.
    pub sequence: u64,
    /// The time just before the call, in ticks of the tracer's [`TraceHost`](crate::TraceHost).
    pub start: u64,
    /// The length of the call in ticks; of several calls, the sum.
    pub duration: u64,
    /// The number of calls. Equal calls in a row make one entry.
    pub times: u64,
    /// The phase that made the call.
    pub phase: Option<Phase>,
    /// The hypercall and its arguments before the call.
    pub call: CallRecord,
    /// The result of the hypercall.
    pub result: Result<u64, XenErrno>,
    /// How much was done, for hypercalls that report it apart from the result; see
    /// [`Call::done`](crate::Call::done).
    pub done: Option<u64>,
    /// The first entry of a multicall that failed.
    pub failed: Option<(u32, XenErrno)>,
}

impl TraceEntry {
    /// Returns the number of operations that Xen did.
    pub(crate) fn operations_done(&self) -> u64 {
        match (&self.call, self.done, self.result) {
            // Without progress Xen leaves the number as the caller set it.
            (CallRecord::Exchange(exchange), Some(done), _) => {
                done.saturating_sub(exchange.exchanged)
            }
            (_, Some(done), _) => done,
            (_, None, Err(_)) => 0,
            (CallRecord::Reservation { .. }, None, Ok(extents)) => extents,
            (CallRecord::SetTrapTable { entries }, None, Ok(_)) => *entries,
            (_, None, Ok(_)) => 1,
        }
    }

    /// Returns the error of the call, or of the first entry of a multicall that failed.
    pub fn error(&self) -> Option<XenErrno> {
        self.result.err().or(self.failed.map(|(_, errno)| errno))
    }

    /// Returns true if the other call did the same in the same phase.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        (&self.call, self.result, self.done, self.failed, self.phase)
            == (&other.call, other.result, other.done, other.failed, other.phase)
    }
}

/// Prints the call and its answer, without number and time.
impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> ", self.call)?;
        match (&self.call, self.result) {
            (CallRecord::Version { name: "version" }, Ok(version)) => {
                write!(f, "{}.{}", version >> 16, version & 0xffff)?;
            }
            (_, Ok(value)) => write!(f, "{value}")?,
            (_, Err(errno)) => write!(f, "{errno}")?,
        }
        self.done.map_or(Ok(()), |done| write!(f, " done={done}"))?;
        self.failed.map_or(Ok(()), |(index, errno)| write!(f, " failed={index}:{errno}"))?;
        if self.times > 1 { write!(f, " times={}", self.times) } else { Ok(()) }
    }
}

/// A test or an operation that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSpan {
    /// The test, operation or phase.
    pub span: Span,
    /// The time of its beginning, in ticks.
    pub start: u64,
    /// Its length in ticks.
    pub duration: u64,
    /// The number of its hypercalls.
    pub calls: u64,
}

/// One record of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceRecord {
    /// A hypercall.
    Call(TraceEntry),
    /// Frames of the hypercall before.
    Frames(FrameList),
    /// The beginning of a test.
    BeginTest {
        /// The name of the test.
        name: &'static str,
        /// The time in ticks.
        start: u64,
    },
    /// The beginning of an operation.
    BeginOperation {
        /// The operation.
        operation: Operation,
        /// The time in ticks.
        start: u64,
    },
    /// The end of a test, an operation or a phase.
    End(EndedSpan),
}

impl TraceRecord {
    /// Returns the time by which the records of several tracers are put in order: the beginning of a
    /// call or span, the end of a span that has ended. `None` for frames, which belong to the call
    /// before.
    pub const fn time(&self) -> Option<u64> {
        match self {
            Self::Call(entry) => Some(entry.start),
            Self::Frames(_) => None,
            Self::BeginTest { start, .. } | Self::BeginOperation { start, .. } => Some(*start),
            Self::End(ended) => Some(ended.start + ended.duration),
        }
    }
}
