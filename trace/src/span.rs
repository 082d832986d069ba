//! A test, an operation or a phase in a trace.

use crate::{Argument, Phase};

/// A stretch of work on one vCPU, which contains calls and other spans.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracedSpan {
    /// What kind of work it is.
    pub kind: SpanKind,
    /// The name of the test, of the library's function, or of the phase.
    pub name: String,
    /// The size and the limits of an operation.
    pub arguments: Vec<Argument>,
    /// The vCPU that did the work.
    pub vcpu: u32,
    /// When it began, in ns since Xen booted.
    pub start: u64,
    /// How long it took, in ns; `None` if the trace has no end of it.
    pub duration: Option<u64>,
    /// The number of calls inside, as the kernel counted them.
    pub calls: Option<u64>,
    /// The innermost span around this one, an index into [`Boot::spans`](crate::Boot::spans).
    ///
    /// It is on the same vCPU, or else the test that ran at that time on another vCPU.
    pub parent: Option<usize>,
    /// The line of the log, counted from 1.
    pub line: usize,
}

impl TracedSpan {
    /// Returns the time at which the span ended, in ns since Xen booted.
    pub fn end(&self) -> Option<u64> {
        Some(self.start.saturating_add(self.duration?))
    }

    /// Returns true if the time lies inside. A span whose end is unknown has no upper bound.
    pub(crate) fn contains(&self, time: u64) -> bool {
        time == self.start || time > self.start && self.end().is_none_or(|end| time < end)
    }
}

/// The kind of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanKind {
    /// A self-test.
    Test,
    /// A call into the library.
    Operation,
    /// A step of an operation.
    Phase(Phase),
}
