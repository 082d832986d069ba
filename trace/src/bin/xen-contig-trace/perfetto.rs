//! `--perfetto`: Chrome's trace-event format, which <https://ui.perfetto.dev> opens.
//!
//! A process per boot, a thread per vCPU. Slices of one thread nest: the format has no other way to
//! say what contains what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::Bound;

use serde_json::{Map, Value, json};
use xen_contig_trace::{Boot, FrameRuns, Loss, SpanKind, TracedCall, TracedSpan};

use crate::json::{kind, named};
use crate::selection::{Chosen, Selection};
use crate::tally::name;

/// Writes the boots as one file.
pub fn write(boots: &[Chosen<'_>], selection: &Selection, out: &mut impl Write) -> io::Result<()> {
    let mut events = Vec::new();
    for chosen in boots {
        add_names(chosen, selection, &mut events);
        for (vcpu, mut slices) in slices(chosen.boot, selection) {
            nest(&mut slices);
            events.extend(slices.iter().map(|slice| slice.event(chosen.number, vcpu)));
        }
        let losses = chosen.boot.losses.iter();
        events.extend(losses.map(|loss| loss_event(chosen, loss)));
    }
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    for (index, event) in events.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{event}")?;
    }
    writeln!(out, "\n]}}")?;
    out.flush()
}

/// A stretch of time on a track.
struct Slice {
    start: u64,
    end: u64,
    /// Outer slices come first where several cover the same time.
    rank: u8,
    name: String,
    category: &'static str,
    arguments: Map<String, Value>,
}

impl Slice {
    fn of_span(boot: &Boot, span: &TracedSpan, end: u64) -> Self {
        let mut arguments = named(&span.arguments);
        if let Some(calls) = span.calls {
            arguments.insert("calls".to_owned(), calls.into());
        }
        if span.duration.is_none() {
            arguments.insert("unfinished".to_owned(), true.into());
        }
        let test = boot.ancestors(span.parent).find(|outer| outer.kind == SpanKind::Test);
        if let Some(test) = test {
            arguments.insert("test".to_owned(), test.name.clone().into());
        }
        let rank = match span.kind {
            SpanKind::Test => 0,
            SpanKind::Operation => 1,
            SpanKind::Phase(_) => 2,
        };
        let category = kind(span.kind);
        Self { start: span.start, end, rank, name: span.name.clone(), category, arguments }
    }

    fn of_call(boot: &Boot, call: &TracedCall) -> Self {
        let mut arguments = named(&call.arguments);
        let mut add = |name: &str, value: Value| drop(arguments.insert(name.to_owned(), value));
        add("call", call.to_string().into());
        add("number", call.number.into());
        add("result", call.result.to_string().into());
        add("duration_ns", call.duration.into());
        if let Some(done) = call.done {
            add("done", done.into());
        }
        if let Some(failed) = &call.failed {
            add("failed", format!("entry {}: {}", failed.entry, failed.errno).into());
        }
        if call.times != 1 {
            add("times", call.times.into());
        }
        if let Some(phase) = call.phase {
            add("phase", phase.name().into());
        }
        if let Some(test) = boot.test_of(call) {
            add("test", test.name.clone().into());
        }
        let frames = |list: &FrameRuns| (!list.is_empty()).then(|| list.to_string());
        for (name, list) in [
            ("frames in", &call.frames_in),
            ("frames at", &call.frames_at),
            ("frames out", &call.frames_out),
        ] {
            if let Some(list) = frames(list) {
                add(name, list.into());
            }
        }
        let error = call.errno().map_or(String::new(), |errno| format!(": {errno}"));
        let name = format!("{}{error}", name(call));
        let category = if call.is_error() { "refused hypercall" } else { "hypercall" };
        Self { start: call.start, end: call.end(), rank: 3, name, category, arguments }
    }

    fn event(&self, boot: usize, vcpu: u32) -> Value {
        json!({
            "ph": "X",
            "pid": boot,
            "tid": vcpu,
            "ts": microseconds(self.start),
            "dur": microseconds(self.end - self.start),
            "name": self.name,
            "cat": self.category,
            "args": self.arguments,
        })
    }
}

fn slices(boot: &Boot, selection: &Selection) -> BTreeMap<u32, Vec<Slice>> {
    let mut slices = BTreeMap::<u32, Vec<Slice>>::new();
    let ends = ends(boot);
    for (span, end) in boot.spans.iter().zip(ends) {
        if selection.picks_span(boot, span) {
            slices.entry(span.vcpu).or_default().push(Slice::of_span(boot, span, end));
        }
    }
    for call in selection.calls(boot) {
        slices.entry(call.vcpu).or_default().push(Slice::of_call(boot, call));
    }
    slices
}

/// Returns the end of each span. One without an end lasts until the next test, or to the last
/// record of its vCPU; [`nest`] cuts it where the span around it ends.
fn ends(boot: &Boot) -> Vec<u64> {
    let mut last = BTreeMap::<u32, u64>::new();
    let mut tests = BTreeMap::<u32, BTreeSet<u64>>::new();
    for span in &boot.spans {
        let end = last.entry(span.vcpu).or_default();
        *end = (*end).max(span.end().unwrap_or(span.start));
        if span.kind == SpanKind::Test {
            tests.entry(span.vcpu).or_default().insert(span.start);
        }
    }
    for call in &boot.calls {
        let end = last.entry(call.vcpu).or_default();
        *end = (*end).max(call.end());
    }
    let unknown = |span: &TracedSpan| {
        let later = (Bound::Excluded(span.start), Bound::Unbounded);
        let next = tests.get(&span.vcpu).and_then(|starts| starts.range(later).next());
        next.copied().unwrap_or(last[&span.vcpu])
    };
    boot.spans.iter().map(|span| span.end().unwrap_or_else(|| unknown(span))).collect()
}

/// Sorts the slices of a track so that outer ones come first, and cuts those that end after the
/// slice around them.
fn nest(slices: &mut [Slice]) {
    slices.sort_by_key(|slice| (slice.start, Reverse(slice.end), slice.rank));
    let mut open = Vec::<u64>::new();
    for slice in slices {
        while open.last().is_some_and(|end| *end <= slice.start) {
            open.pop();
        }
        if let Some(end) = open.last() {
            slice.end = slice.end.min(*end);
        }
        open.push(slice.end);
    }
}

/// Adds the names of the boot and of its vCPUs.
fn add_names(chosen: &Chosen<'_>, selection: &Selection, events: &mut Vec<Value>) {
    let Chosen { number, of, boot } = *chosen;
    let domain = boot.domain.map_or(String::new(), |domain| format!(" of domain {domain}"));
    let name = format!("boot {number} of {of}{domain}");
    events.push(json!({
        "ph": "M", "pid": number, "tid": 0, "name": "process_name", "args": { "name": name },
    }));
    let calls = selection.calls(boot).map(|call| call.vcpu);
    let spans = boot.spans.iter().filter(|span| selection.picks_span(boot, span));
    for vcpu in calls.chain(spans.map(|span| span.vcpu)).collect::<BTreeSet<_>>() {
        events.push(json!({
            "ph": "M", "pid": number, "tid": vcpu, "name": "thread_name",
            "args": { "name": format!("vCPU {vcpu}") },
        }));
    }
}

fn loss_event(chosen: &Chosen<'_>, loss: &Loss) -> Value {
    let calls = &chosen.boot.calls;
    // Where the time is unknown: at the first call after the line.
    let after = || calls.get(calls.partition_point(|call| call.line < loss.line)).map(|c| c.start);
    let time = loss.time.or_else(after).unwrap_or(0);
    json!({
        "ph": "i",
        "s": if loss.vcpu.is_some() { "t" } else { "p" },
        "pid": chosen.number,
        "tid": loss.vcpu.unwrap_or(0),
        "ts": microseconds(time),
        "name": format!("lost: {}", loss.kind),
        "cat": "loss",
        "args": { "line": loss.line },
    })
}

/// The unit of the format. A `f64` keeps the ns of a host that runs for some months.
fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}
