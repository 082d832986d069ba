//! `--json`: one object per line. `trace/README.md` documents the fields.

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use xen_contig_trace::{
    Argument, Boot, CallResult, FrameRuns, Loss, LossKind, SpanKind, TracedCall, TracedSpan,
};

use crate::selection::{Chosen, Selection};

/// Writes the boots, their spans, calls and losses.
pub fn write(boots: &[Chosen<'_>], selection: &Selection, out: &mut impl Write) -> io::Result<()> {
    for Chosen { number, boot, .. } in boots {
        writeln!(out, "{}", boot_object(*number, boot))?;
        for (id, span) in boot.spans.iter().enumerate() {
            if selection.picks_span(boot, span) {
                writeln!(out, "{}", span_object(*number, id, span))?;
            }
        }
        for call in selection.calls(boot) {
            writeln!(out, "{}", call_object(*number, boot, call))?;
        }
        for loss in &boot.losses {
            writeln!(out, "{}", loss_object(*number, loss))?;
        }
    }
    out.flush()
}

fn boot_object(number: usize, boot: &Boot) -> Value {
    json!({
        "type": "boot",
        "boot": number,
        "line": boot.line,
        "domain": boot.domain,
        "vcpus": boot.vcpu_count(),
        "ring": boot.ring,
        "traced": boot.traced,
    })
}

fn span_object(number: usize, id: usize, span: &TracedSpan) -> Value {
    json!({
        "type": "span",
        "boot": number,
        "id": id,
        "kind": kind(span.kind),
        "name": span.name,
        "arguments": named(&span.arguments),
        "vcpu": span.vcpu,
        "start_ns": span.start,
        "duration_ns": span.duration,
        "calls": span.calls,
        "parent": span.parent,
        "line": span.line,
    })
}

/// Returns the word for the kind of a span.
pub fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Test => "test",
        SpanKind::Operation => "operation",
        SpanKind::Phase(_) => "phase",
    }
}

fn call_object(number: usize, boot: &Boot, call: &TracedCall) -> Value {
    let value = match call.result {
        CallResult::Value(value) => Some(value),
        _ => None,
    };
    let arguments: Vec<Value> = call
        .arguments
        .iter()
        .map(|argument| json!({ "name": argument.name, "value": argument.value }))
        .collect();
    json!({
        "type": "call",
        "boot": number,
        "vcpu": call.vcpu,
        "number": call.number,
        "start_ns": call.start,
        "duration_ns": call.duration,
        "test": boot.test_of(call).map(|test| &test.name),
        "operation": boot.operation_of(call).map(|operation| &operation.name),
        "phase": call.phase.map(|phase| phase.name()),
        "span": call.parent,
        "hypercall": call.hypercall,
        "sub_operation": call.operation(),
        "arguments": arguments,
        "result": call.result.to_string(),
        "value": value,
        "errno": call.errno(),
        "failed_entry": call.failed.as_ref().map(|failed| failed.entry),
        "done": call.done,
        "times": call.times,
        "in": frames(&call.frames_in),
        "at": frames(&call.frames_at),
        "out": frames(&call.frames_out),
        "line": call.line,
    })
}

fn frames(list: &FrameRuns) -> Value {
    if list.is_empty() {
        return Value::Null;
    }
    let runs: Vec<Value> =
        list.runs.iter().map(|run| json!({ "first": run.first, "count": run.count })).collect();
    json!({ "runs": runs, "cut": list.cut })
}

fn loss_object(number: usize, loss: &Loss) -> Value {
    let (kind, count) = match &loss.kind {
        LossKind::Overwritten { records, .. } => ("overwritten", Some(*records)),
        LossKind::Missing { calls } => ("missing", Some(*calls)),
        LossKind::FramesCut { frames, .. } => ("frames_cut", Some(*frames)),
        LossKind::NoBeginning => ("no_beginning", None),
        LossKind::ClockStopped => ("clock_stopped", None),
        LossKind::UnknownVersion { version } => ("unknown_version", Some(*version)),
        LossKind::Unreadable { .. } | _ => ("unreadable", None),
    };
    json!({
        "type": "loss",
        "boot": number,
        "kind": kind,
        "count": count,
        "text": loss.kind.to_string(),
        "vcpu": loss.vcpu,
        "time_ns": loss.time,
        "line": loss.line,
    })
}

/// Makes an object of arguments, all of which have names.
pub fn named(arguments: &[Argument]) -> Map<String, Value> {
    let value = |argument: &Argument| match argument.number() {
        Some(number) => Value::from(number),
        None => Value::from(argument.value.clone()),
    };
    let pairs =
        arguments.iter().filter_map(|argument| Some((argument.name.clone()?, value(argument))));
    pairs.collect()
}
