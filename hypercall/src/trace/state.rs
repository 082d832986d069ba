//! What a tracer keeps under its lock.

use arrayvec::ArrayVec;

use super::{EndedSpan, Filter, Span, Summary, TraceEntry, TraceRecord, TraceRing};

/// The depth to which spans nest. A tracer ignores deeper ones.
const SPANS: usize = 8;

#[derive(Debug)]
pub(crate) struct TraceState {
    pub calls: u64,
    /// The time of all calls.
    xen_ticks: u64,
    pub filter: Filter,
    pub ring: TraceRing,
    pub summary: Summary,
    pub spans: ArrayVec<OpenSpan, SPANS>,
    /// The number of open spans beyond [`SPANS`].
    ignored: u32,
}

/// A span that has begun.
#[derive(Debug)]
pub(crate) struct OpenSpan {
    span: Span,
    start: u64,
    /// The number of calls before it.
    calls: u64,
    /// The time of all calls before it.
    xen_ticks: u64,
    /// The number of the ring's next record.
    mark: u64,
    /// True if the ring got a call since.
    pub has_calls: bool,
}

impl TraceState {
    pub const fn new() -> Self {
        Self {
            calls: 0,
            xen_ticks: 0,
            filter: Filter::ALL,
            ring: TraceRing::new(),
            summary: Summary::new(),
            spans: ArrayVec::new_const(),
            ignored: 0,
        }
    }

    /// Numbers a call and adds it to the totals.
    #[inline]
    pub fn count(&mut self, entry: &mut TraceEntry) {
        entry.sequence = self.calls;
        entry.phase = self.spans.iter().rev().find_map(|open| match open.span {
            Span::Phase(phase) => Some(phase),
            _ => None,
        });
        self.calls += 1;
        self.xen_ticks += entry.duration;
        self.summary.count(entry);
    }

    /// Notes the beginning of a span.
    pub fn enter(&mut self, span: Span, start: u64) {
        let open = OpenSpan {
            span,
            start,
            calls: self.calls,
            xen_ticks: self.xen_ticks,
            mark: self.ring.mark(),
            has_calls: false,
        };
        if self.spans.try_push(open).is_err() {
            self.ignored += 1;
            return;
        }
        match span {
            Span::Test(name) => self.ring.push(TraceRecord::BeginTest { name, start }),
            Span::Operation(operation) => {
                self.ring.push(TraceRecord::BeginOperation { operation, start });
            }
            Span::Phase(_) => {}
        }
    }

    /// Notes the end of the span that began last.
    pub fn leave(&mut self, now: u64) {
        if self.ignored > 0 {
            self.ignored -= 1;
            return;
        }
        let Some(open) = self.spans.pop() else { return };
        let OpenSpan { span, start, mark, has_calls, .. } = open;
        let (calls, duration) = (self.calls - open.calls, now.saturating_sub(start));
        let xen_ticks = self.xen_ticks - open.xen_ticks;
        match span {
            Span::Phase(phase) => self.summary.count_phase(phase, calls, duration, xen_ticks),
            // A trace is about hypercalls. Operations without one would hide the others.
            Span::Operation(_) if !has_calls && self.ring.truncate(mark) => return,
            Span::Operation(_) | Span::Test(_) => {}
        }
        self.ring.push(TraceRecord::End(EndedSpan { span, start, duration, calls }));
    }
}
