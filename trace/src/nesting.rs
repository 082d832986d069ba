//! Which span contains which span and which call.
//!
//! By time, not by the order of lines, because the beginning or the end of a span may be lost.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{Boot, SpanKind, TracedSpan};

/// Sets the parents of all spans and calls of a boot.
pub(crate) fn resolve(boot: &mut Boot) {
    let mut stacks = BTreeMap::<u32, Vec<usize>>::new();
    let tests = tests(&boot.spans);
    let mut spans: Vec<usize> = (0..boot.spans.len()).collect();
    spans.sort_by_key(|index| order(&boot.spans[*index]));
    let mut calls: Vec<usize> = (0..boot.calls.len()).collect();
    calls.sort_by_key(|index| boot.calls[*index].start);
    let mut spans = spans.into_iter().peekable();
    for call in calls {
        let start = boot.calls[call].start;
        while let Some(index) = spans.next_if(|index| boot.spans[*index].start <= start) {
            place(&mut boot.spans, index, &mut stacks, &tests);
        }
        let stack = stacks.entry(boot.calls[call].vcpu).or_default();
        close(stack, &boot.spans, start);
        boot.calls[call].parent = stack.last().copied().or_else(|| tests.at(&boot.spans, start));
    }
    spans.for_each(|index| place(&mut boot.spans, index, &mut stacks, &tests));
}

/// Outer spans first where several begin at once.
fn order(span: &TracedSpan) -> (u64, Reverse<u64>, SpanKind) {
    (span.start, Reverse(span.duration.unwrap_or(u64::MAX)), span.kind)
}

/// Finds the parent of a span and makes the span the innermost one of its vCPU.
fn place(
    spans: &mut [TracedSpan],
    index: usize,
    stacks: &mut BTreeMap<u32, Vec<usize>>,
    tests: &Tests,
) {
    let span = &spans[index];
    let (start, is_test) = (span.start, span.kind == SpanKind::Test);
    let stack = stacks.entry(span.vcpu).or_default();
    close(stack, spans, start);
    if is_test {
        // Tests do not nest: what did not end before has no end in the log.
        stack.clear();
    }
    let elsewhere = || if is_test { None } else { tests.at(spans, start) };
    let parent = stack.last().copied().or_else(elsewhere);
    stack.push(index);
    spans[index].parent = parent;
}

/// Takes the spans off that ended before a time.
fn close(stack: &mut Vec<usize>, spans: &[TracedSpan], time: u64) {
    // An outer span may end before an inner one whose end is lost.
    if let Some(depth) = stack.iter().position(|index| !spans[*index].contains(time)) {
        stack.truncate(depth);
    }
}

/// The tests by time, to find the one that runs while another vCPU makes a call.
struct Tests(Vec<usize>);

fn tests(spans: &[TracedSpan]) -> Tests {
    let is_test = |index: &usize| spans[*index].kind == SpanKind::Test;
    let mut tests: Vec<usize> = (0..spans.len()).filter(is_test).collect();
    tests.sort_by_key(|index| spans[*index].start);
    Tests(tests)
}

impl Tests {
    fn at(&self, spans: &[TracedSpan], time: u64) -> Option<usize> {
        let after = self.0.partition_point(|index| spans[*index].start <= time);
        let last = *self.0.get(after.checked_sub(1)?)?;
        spans[last].contains(time).then_some(last)
    }
}
