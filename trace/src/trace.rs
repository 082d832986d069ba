//! A whole log.

use crate::{Loss, SpanKind, TracedCall, TracedSpan};

/// Everything that a log has of traces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The boots of guests that print a trace, in the order of the log.
    pub boots: Vec<Boot>,
    /// Damage that belongs to no boot, because no boot came before it.
    pub(crate) stray: Vec<Loss>,
}

impl Trace {
    /// Iterates over everything that is missing, boot by boot.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.stray.iter().chain(self.boots.iter().flat_map(|boot| &boot.losses))
    }
}

/// The trace of one guest from its boot on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Boot {
    /// The line of the log at which the trace begins, counted from 1.
    pub line: usize,
    /// The number of the domain, if Xen put it before the line: `(d3) `.
    pub domain: Option<u32>,
    /// The number of vCPUs, from the version line.
    pub vcpus: Option<u32>,
    /// The number of records that the ring of a vCPU holds, from the version line.
    pub ring: Option<u64>,
    /// The hypercalls that the guest traced; empty if all.
    pub traced: Vec<String>,
    /// The calls, in the order of the log.
    pub calls: Vec<TracedCall>,
    /// The tests, operations and phases, in the order of the log.
    pub spans: Vec<TracedSpan>,
    /// What is missing, in the order of the log.
    pub losses: Vec<Loss>,
    /// The lines of the kernel's own summary, without `# trace summary`.
    pub summary: Vec<String>,
}

impl Boot {
    pub(crate) fn new(line: usize, domain: Option<u32>) -> Self {
        Self {
            line,
            domain,
            vcpus: None,
            ring: None,
            traced: Vec::new(),
            calls: Vec::new(),
            spans: Vec::new(),
            losses: Vec::new(),
            summary: Vec::new(),
        }
    }

    /// Iterates over the spans around a call or a span, the innermost first.
    ///
    /// `parent` is the field of that name.
    pub fn ancestors(&self, parent: Option<usize>) -> Ancestors<'_> {
        Ancestors { spans: &self.spans, next: parent }
    }

    /// Returns the test that made the call, or `None` outside of every test.
    pub fn test_of(&self, call: &TracedCall) -> Option<&TracedSpan> {
        self.ancestors(call.parent).find(|span| span.kind == SpanKind::Test)
    }

    /// Returns the innermost operation that made the call.
    pub fn operation_of(&self, call: &TracedCall) -> Option<&TracedSpan> {
        self.ancestors(call.parent).find(|span| span.kind == SpanKind::Operation)
    }

    /// Returns when the first test began, in ns since Xen booted. Calls before it are of the boot.
    pub fn first_test(&self) -> Option<u64> {
        let tests = self.spans.iter().filter(|span| span.kind == SpanKind::Test);
        tests.map(|span| span.start).min()
    }

    /// Returns the number of vCPUs: what the version line says, or the highest number that occurs.
    pub fn vcpu_count(&self) -> u32 {
        let calls = self.calls.iter().map(|call| call.vcpu);
        let seen = calls.chain(self.spans.iter().map(|span| span.vcpu)).max();
        let seen = seen.map_or(1, |highest| highest.saturating_add(1));
        self.vcpus.unwrap_or(1).max(seen)
    }
}

/// The spans around a call or a span, the innermost first.
#[derive(Clone, Debug)]
pub struct Ancestors<'a> {
    spans: &'a [TracedSpan],
    next: Option<usize>,
}

impl<'a> Iterator for Ancestors<'a> {
    type Item = &'a TracedSpan;

    fn next(&mut self) -> Option<Self::Item> {
        let span = self.spans.get(self.next?)?;
        self.next = span.parent;
        Some(span)
    }
}
