//! One exchange of the last traced boot: the frames that it moved, and the operation that it was part
//! of, by phase.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use trace::{Boot, FrameRuns, SpanKind, Trace, TracedCall, TracedSpan};

use crate::figure::Drawn;
use crate::figure::frames::{FrameMap, Run};
use crate::figure::timeline::{Phase, time, timeline};
use crate::links;
use crate::results::BED;
use crate::source::{self, modified, utc};

/// What the page says of the exchange.
#[derive(Clone, Debug, Serialize)]
pub struct Traced {
    /// The log, relative to the repository's root.
    pub log: String,
    /// The address of the log.
    pub href: String,
    /// When the log was written.
    pub written: String,
    /// The exchange that moved the most frames; none if no exchange succeeded.
    pub exchange: Option<ExchangeShown>,
    /// The operation around an exchange; none if the trace names no phases.
    pub operation: Option<OperationShown>,
}

/// An exchange.
#[derive(Clone, Debug, Serialize)]
pub struct ExchangeShown {
    /// The picture.
    pub figure: Drawn,
    /// The call as the trace has it.
    pub call: String,
    /// The self-test that made it, if one did.
    pub test: Option<String>,
    /// How many frames it moved.
    pub frames: u64,
    /// How many of them the trace left out.
    pub cut: u64,
    /// How long it took.
    pub time: String,
}

/// An operation.
#[derive(Clone, Debug, Serialize)]
pub struct OperationShown {
    /// The picture.
    pub figure: Drawn,
    /// Its name and its limits.
    pub name: String,
    /// The self-test that made it, if one did.
    pub test: Option<String>,
    /// How long it took.
    pub time: String,
    /// Its phases, in the order in which they began.
    pub phases: Vec<PhaseRow>,
    /// How many more phases there are.
    pub more: usize,
}

/// A phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseRow {
    /// Its name.
    pub name: String,
    /// When it began, in ns since the operation began.
    pub start: u64,
    /// How long it took, in ns.
    pub duration: u64,
    /// How much of it was spent in hypercalls, in ns.
    pub in_xen: u64,
    /// How many hypercalls it made.
    pub calls: u64,
    /// The first hypercalls, as the trace has them.
    pub hypercalls: Vec<String>,
    /// How many more hypercalls there are.
    pub more: usize,
}

/// How many phases of an operation are shown, and how many hypercalls of a phase.
const PHASES: usize = 24;
const CALLS: usize = 6;

/// Which words a log has if a trace is in it.
const MARK: &str = "# trace version=";

/// Returns the exchange of the last boot that was traced; none if no boot was.
pub fn of(root: &Path) -> Option<Traced> {
    let mut logs = logs(root);
    logs.sort_by_key(|log| modified(&root.join(log)));
    // The last traced boot; if it made no exchange, as a PVH guest, the last one that did.
    let mut last = None;
    for log in logs.iter().rev() {
        let Ok(bytes) = fs::read(root.join(log)) else { continue };
        if !String::from_utf8_lossy(&bytes).contains(MARK) {
            continue;
        }
        let traced = Traced::of(root, log, &Trace::parse(&bytes));
        if traced.exchange.is_some() {
            return Some(traced);
        }
        last = last.or(Some(traced));
    }
    last
}

/// Returns the console logs of all boots, relative to `root`.
fn logs(root: &Path) -> Vec<PathBuf> {
    let xens = source::names(&root.join(BED)).into_iter();
    let guests = xens.flat_map(|xen| {
        let guests = source::names(&root.join(BED).join(&xen)).into_iter();
        guests.map(move |guest| Path::new(BED).join(&xen).join(guest).join("console.log"))
    });
    guests.filter(|log| root.join(log).is_file()).collect()
}

impl Traced {
    fn of(root: &Path, log: &Path, trace: &Trace) -> Self {
        let calls = trace.boots.iter().flat_map(|boot| boot.calls.iter().map(move |it| (boot, it)));
        let mut moved: Vec<(&Boot, &TracedCall)> =
            calls.filter(|(_, it)| is_exchange(it)).collect();
        // Of equally large exchanges, the one of the most scattered frames shows most.
        moved.sort_by_key(|(_, it)| (it.frames_out.frames(), it.frames_in.runs.len()));
        let operation = moved.iter().rev().find_map(|(boot, call)| OperationShown::of(boot, call));
        let log_text = log.display().to_string();
        Self {
            href: links::href(&log_text),
            log: log_text,
            written: utc(modified(&root.join(log))),
            exchange: moved.last().map(|(boot, call)| ExchangeShown::of(boot, call)),
            operation,
        }
    }
}

/// Returns true if a call exchanged frames of which the trace has both lists.
fn is_exchange(call: &TracedCall) -> bool {
    let lists = [&call.frames_in, &call.frames_at, &call.frames_out];
    !call.is_error() && lists.iter().all(|list| !list.runs.is_empty())
}

impl ExchangeShown {
    fn of(boot: &Boot, call: &TracedCall) -> Self {
        let runs = |list: &FrameRuns| {
            list.runs.iter().map(|run| Run { first: run.first, count: run.count }).collect()
        };
        let map = FrameMap {
            at: runs(&call.frames_at),
            before: runs(&call.frames_in),
            after: runs(&call.frames_out),
            bits: call.argument("bits").and_then(|bits| bits.parse().ok()),
        };
        let frames = call.frames_out.frames();
        let title = format!("Frames of an exchange: {frames} frames of 4 KiB, before and after");
        let caption = "Each point is a frame of the guest: across, its pseudo-physical number; up, the \
                       number of the machine frame that backs it. Neighbours in the machine lie on a \
                       rising line. Circles and thin lines: before; dots and the thick line: after.";
        Self {
            figure: map.draw(&title, caption),
            call: call.to_string(),
            test: boot.test_of(call).map(|test| test.name.clone()),
            frames,
            cut: call.frames_out.cut.max(call.frames_in.cut).max(call.frames_at.cut),
            time: time(call.duration),
        }
    }
}

impl OperationShown {
    /// Returns the operation that made a call; none if the trace has no end of it, or no phase.
    fn of(boot: &Boot, call: &TracedCall) -> Option<Self> {
        let operation = boot.operation_of(call)?;
        let index = boot.spans.iter().position(|span| std::ptr::eq(span, operation))?;
        let is_inside = |parent| boot.ancestors(parent).any(|span| std::ptr::eq(span, operation));
        let duration = operation.duration?;
        let is_phase = |span: &&TracedSpan| matches!(span.kind, SpanKind::Phase(_));
        let mut phases: Vec<&TracedSpan> = boot.spans.iter().filter(is_phase).collect();
        phases.retain(|phase| phase.parent == Some(index) || is_inside(phase.parent));
        phases.sort_by_key(|phase| phase.start);
        let more = phases.len().saturating_sub(PHASES);
        phases.truncate(PHASES);
        let rows: Vec<(PhaseRow, Phase)> =
            phases.iter().map(|phase| of_phase(boot, operation, phase)).collect();
        let (rows, shown): (Vec<PhaseRow>, Vec<Phase>) = rows.into_iter().unzip();
        if rows.is_empty() {
            return None;
        }
        let mut name = operation.name.clone();
        for argument in &operation.arguments {
            name.push_str(&format!(" {argument}"));
        }
        let title = format!("Phases of {name}");
        let caption = "Each frame is a phase of the operation; what is filled in it is the time in \
                       hypercalls. QEMU emulates the processor, so that the durations show \
                       proportions and not what a real machine takes.";
        let test = boot.ancestors(operation.parent).find(|span| span.kind == SpanKind::Test);
        Some(Self {
            figure: timeline(&title, caption, duration, &shown),
            name,
            test: test.map(|test| test.name.clone()),
            time: time(duration),
            phases: rows,
            more,
        })
    }
}

fn of_phase(boot: &Boot, operation: &TracedSpan, phase: &TracedSpan) -> (PhaseRow, Phase) {
    let since = |start: u64| start.saturating_sub(operation.start);
    let calls = boot.calls.iter().filter(|call| {
        let mut parents = boot.ancestors(call.parent);
        parents.any(|span| std::ptr::eq(span, phase))
    });
    let calls: Vec<&TracedCall> = calls.collect();
    let duration = phase.duration.unwrap_or(0);
    let made: u64 = calls.iter().map(|call| call.times).sum();
    let row = PhaseRow {
        name: phase.name.clone(),
        start: since(phase.start),
        duration,
        in_xen: calls.iter().map(|call| call.duration).fold(0, u64::saturating_add),
        calls: phase.calls.unwrap_or(made),
        hypercalls: calls.iter().take(CALLS).map(|call| call.to_string()).collect(),
        more: calls.len().saturating_sub(CALLS),
    };
    let shown = Phase {
        name: row.name.clone(),
        start: row.start,
        duration,
        count: row.calls,
        calls: calls.iter().map(|call| (since(call.start), call.duration)).collect(),
    };
    (row, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
# trace version=1 vcpus=1 ring=4096 calls=all
# trace v0 @8.000000000 begin test exchange-order-3
# trace v0 @8.000001000 begin alloc_coherent bytes=32768 bits=30
# trace v0 @8.000001000 +1000 phase plan calls=0
# trace v0 #7 @8.000003000 +4000 detach+exchange multicall entries=3 exchange in=8 bits=30 -> 0 done=3
# trace v0 #7 in 0x9f3 0x204+3 0xa1c+4
# trace v0 #7 at 0x400+8
# trace v0 #7 out 0x7c4+8
# trace v0 @8.000002000 +6000 phase detach+exchange calls=1
# trace v0 @8.000001000 +9000 end alloc_coherent calls=1
# trace v0 #8 @8.000020000 +10 - memory_op exchange in=64 bits=30 -> -ENOMEM done=0
# trace v0 #8 in 0x1+64
# trace v0 #8 at 0x400+64
# trace v0 @8.000000000 +90000 end test exchange-order-3 calls=2
";

    fn traced(log: &str) -> Traced {
        let trace = Trace::parse(log.as_bytes());
        Traced::of(Path::new("."), Path::new("target/bed/4.17/pv-dom0/console.log"), &trace)
    }

    #[test]
    fn the_largest_exchange_that_succeeded_is_shown() {
        let traced = traced(LOG);
        let exchange = traced.exchange.unwrap();
        assert_eq!((exchange.frames, exchange.cut, exchange.time.as_str()), (8, 0, "4.0 µs"));
        assert_eq!(exchange.test.as_deref(), Some("exchange-order-3"));
        assert!(exchange.figure.unwrap().wide.contains("before: 3 runs"));
        assert_eq!(traced.href, "../bed/4.17/pv-dom0/console.log");
    }

    #[test]
    fn its_operation_is_shown_by_phase() {
        let operation = traced(LOG).operation.unwrap();
        assert_eq!(operation.name, "alloc_coherent bytes=32768 bits=30");
        assert_eq!(operation.time, "9.0 µs");
        let rows =
            operation.phases.iter().map(|it| (it.name.as_str(), it.start, it.in_xen, it.calls));
        let expected = [("plan", 0, 0, 0), ("detach+exchange", 1000, 4000, 1)];
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        assert!(operation.figure.unwrap().wide.contains("detach+exchange: 6.0 µs, 1 hypercall"));
    }

    #[test]
    fn a_trace_without_an_exchange_is_named_all_the_same() {
        let traced = traced("# trace version=1 vcpus=1 ring=4096 calls=all\n");
        assert!(traced.exchange.is_none() && traced.operation.is_none());
    }
}
