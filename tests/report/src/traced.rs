//! One exchange of the last traced boot: the frames that it moved, and the transaction that it was part
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
    /// The exchange of which the trace has the most frames, of those that made frames neighbours if
    /// there are any; none if no exchange succeeded.
    pub exchange: Option<ExchangeShown>,
    /// How many frames the largest exchange moved.
    pub largest: u64,
    /// The transaction around an exchange; none if the trace names no phases.
    pub transaction: Option<TransactionShown>,
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
    /// Whether it made frames neighbours that were none.
    pub gathers: bool,
    /// How many of them the trace left out.
    pub cut: u64,
    /// How long it took.
    pub time: String,
}

/// A transaction: phases in the order that each transaction has them.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionShown {
    /// The picture.
    pub figure: Drawn,
    /// The operation with its limits; none if a test exchanged by itself.
    pub operation: Option<String>,
    /// The self-test that made it, if one did.
    pub test: Option<String>,
    /// How long it took.
    pub time: String,
    /// Its phases, in the order in which they began.
    pub phases: Vec<PhaseRow>,
    /// How many frames its exchange moved.
    pub frames: u64,
}

/// A phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseRow {
    /// Its name.
    pub name: String,
    /// When it began, in ns since the transaction began.
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

/// How many hypercalls of a phase are shown.
const CALLS: usize = 6;

/// The phases of a transaction that Xen does not refuse: plan, purge, detach+exchange, attach, zero.
const ANATOMY: usize = 5;

/// Which words a log has if a trace is in it.
const MARK: &str = "# trace version=";

/// Returns the exchange of the last boot that was traced; none if no boot was.
pub fn of(root: &Path) -> Option<Traced> {
    let mut logs = logs(root);
    logs.sort_by_key(|log| modified(&root.join(log)));
    // The last boot with both pictures; a PVH guest makes no exchange, and the rows of the conformance
    // table make theirs outside of transactions.
    let mut best: Option<Traced> = None;
    for log in logs.iter().rev() {
        let Ok(bytes) = fs::read(root.join(log)) else { continue };
        if !String::from_utf8_lossy(&bytes).contains(MARK) {
            continue;
        }
        let traced = Traced::of(root, log, &Trace::parse(&bytes));
        if traced.pictures() == 2 {
            return Some(traced);
        }
        if best.as_ref().is_none_or(|best| best.pictures() < traced.pictures()) {
            best = Some(traced);
        }
    }
    best
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
    fn pictures(&self) -> u32 {
        u32::from(self.exchange.is_some()) + u32::from(self.transaction.is_some())
    }

    fn of(root: &Path, log: &Path, trace: &Trace) -> Self {
        let calls = trace.boots.iter().flat_map(|boot| boot.calls.iter().map(move |it| (boot, it)));
        let mut moved: Vec<(&Boot, &TracedCall)> =
            calls.filter(|(_, it)| is_exchange(it)).collect();
        // Those that release memory scatter it, and are not what the library is for.
        moved.sort_by_key(|(_, it)| (gathers(it), drawn(it), it.frames_in.runs.len()));
        let largest = moved.iter().map(|(_, it)| it.frames_out.frames()).max();
        let transactions = moved.iter().filter_map(|(boot, call)| {
            let phases = transaction(boot, call)?;
            Some((phases.len(), gathers(call), call.frames_out.frames(), *boot, *call, phases))
        });
        // One with all phases shows most, whatever the trace lists of its frames.
        let transaction = transactions.max_by_key(|(phases, gathers, frames, ..)| {
            ((*phases).min(ANATOMY), *gathers, *frames)
        });
        let log_text = log.display().to_string();
        Self {
            href: links::href(&log_text),
            log: log_text,
            written: utc(modified(&root.join(log))),
            exchange: moved.last().map(|(boot, call)| ExchangeShown::of(boot, call)),
            largest: largest.unwrap_or(0),
            transaction: transaction
                .map(|(.., boot, call, phases)| TransactionShown::of(boot, call, phases)),
        }
    }
}

/// Returns true if a call exchanged frames of which the trace has both lists.
fn is_exchange(call: &TracedCall) -> bool {
    let lists = [&call.frames_in, &call.frames_at, &call.frames_out];
    !call.is_error() && lists.iter().all(|list| !list.runs.is_empty())
}

/// Returns how many frames of an exchange can be drawn: the trace shortens long lists.
fn drawn(call: &TracedCall) -> u64 {
    let lists = [&call.frames_in, &call.frames_at, &call.frames_out];
    let shown = lists.map(|list| list.frames().saturating_sub(list.cut));
    shown.into_iter().min().unwrap_or(0)
}

/// Returns true if an exchange made frames neighbours that were none.
fn gathers(call: &TracedCall) -> bool {
    call.frames_out.runs.len() < call.frames_in.runs.len()
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
        let plural = if frames == 1 { "" } else { "s" };
        let title = format!("An exchange of {frames} frame{plural} of 4 KiB, before and after");
        let caption = "Each point is a frame of the guest: across, its pseudo-physical number; up, the \
                       number of the machine frame that backs it. Neighbours in the machine lie on a \
                       rising line. Circles and thin lines: before; dots and the thick line: after.";
        Self {
            figure: map.draw(&title, caption),
            call: call.to_string(),
            test: boot.test_of(call).map(|test| test.name.clone()),
            frames,
            gathers: gathers(call),
            cut: call.frames_out.cut.max(call.frames_in.cut).max(call.frames_at.cut),
            time: time(call.duration),
        }
    }
}

/// Returns the phases of the transaction that made a call; none if the call is in no phase.
fn transaction<'b>(boot: &'b Boot, call: &TracedCall) -> Option<Vec<&'b TracedSpan>> {
    let is_phase = |span: &TracedSpan| matches!(span.kind, SpanKind::Phase(_));
    let own = boot.ancestors(call.parent).find(|span| is_phase(span))?;
    let mut phases: Vec<&TracedSpan> = boot.spans.iter().collect();
    phases.retain(|span| is_phase(span) && (span.vcpu, span.parent) == (own.vcpu, own.parent));
    phases.sort_by_key(|phase| phase.start);
    let at = phases.iter().position(|phase| std::ptr::eq(*phase, own))?;
    // A phase that comes earlier in a transaction begins the next one.
    let is_next = |index: &usize| phases[index - 1].kind >= phases[*index].kind;
    let first = (1..=at).rev().find(is_next).unwrap_or(0);
    let end = (at + 1..phases.len()).find(is_next).unwrap_or(phases.len());
    Some(phases[first..end].to_vec())
}

impl TransactionShown {
    fn of(boot: &Boot, call: &TracedCall, phases: Vec<&TracedSpan>) -> Self {
        let start = phases.first().map_or(0, |phase| phase.start);
        let ends = phases.iter().map(|phase| phase.end().unwrap_or(phase.start));
        let duration = ends.max().unwrap_or(start).saturating_sub(start);
        let (rows, shown): (Vec<PhaseRow>, Vec<Phase>) =
            phases.iter().map(|phase| of_phase(boot, start, phase)).unzip();
        let operation = boot.operation_of(call).map(|operation| {
            let words = operation.arguments.iter().map(|argument| format!(" {argument}"));
            format!("{}{}", operation.name, words.collect::<String>())
        });
        let test = boot.test_of(call).map(|test| test.name.clone());
        let of = operation.as_ref().or(test.as_ref()).map(|name| format!(" of {name}"));
        let title = format!("Phases of one transaction{}", of.unwrap_or_default());
        let caption = "Each box is a phase; the bars in it are its hypercalls. QEMU \
                       emulates the processor, so that the durations show proportions and not what \
                       a real machine takes.";
        Self {
            figure: timeline(&title, caption, duration, &shown),
            operation,
            test,
            time: time(duration),
            phases: rows,
            frames: call.frames_out.frames(),
        }
    }
}

fn of_phase(boot: &Boot, start: u64, phase: &TracedSpan) -> (PhaseRow, Phase) {
    let since = |time: u64| time.saturating_sub(start);
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
# trace v0 @8.000009000 +500 phase plan calls=0
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
    fn an_exchange_that_gathers_frames_comes_before_a_larger_one() {
        let scattering = "\
# trace v0 #10 @9.000000000 +4000 - memory_op exchange in=1 out=9 out_order=0 bits=64 -> 0 done=1
# trace v0 #10 in 0x200+9
# trace v0 #10 at 0x400+9
# trace v0 #10 out 0x7c4+8 0x1
";
        let exchange = traced(&format!("{LOG}{scattering}")).exchange.unwrap();
        assert_eq!((exchange.frames, exchange.gathers), (8, true));
        let version = LOG.lines().next().unwrap();
        let exchange = traced(&format!("{version}\n{scattering}")).exchange.unwrap();
        assert_eq!((exchange.frames, exchange.gathers), (9, false));
    }

    #[test]
    fn an_exchange_with_all_of_its_frames_comes_before_a_larger_one() {
        let cut = LOG.replace("in 0x9f3 0x204+3 0xa1c+4", "in 0x9f3 cut=7");
        let later = "\
# trace v0 #10 @9.000000000 +4000 - memory_op exchange in=4 out=1 out_order=2 bits=30 -> 0 done=4
# trace v0 #10 in 0x9f3 0x204+3
# trace v0 #10 at 0x400+4
# trace v0 #10 out 0x7c4+4
";
        let traced = traced(&format!("{cut}{later}"));
        let exchange = traced.exchange.unwrap();
        assert_eq!((exchange.frames, exchange.cut, traced.largest), (4, 0, 8));
    }

    #[test]
    fn its_transaction_is_shown_by_phase_up_to_the_next_one() {
        let transaction = traced(LOG).transaction.unwrap();
        assert_eq!(transaction.operation.as_deref(), Some("alloc_coherent bytes=32768 bits=30"));
        assert_eq!(transaction.time, "7.0 µs");
        let rows =
            transaction.phases.iter().map(|it| (it.name.as_str(), it.start, it.in_xen, it.calls));
        let expected = [("plan", 0, 0, 0), ("detach+exchange", 1000, 4000, 1)];
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        assert!(transaction.figure.unwrap().wide.contains("detach+exchange: 6.0 µs, 1 hypercall"));
    }

    #[test]
    fn a_transaction_with_more_phases_comes_before_a_larger_one() {
        let larger = "\
# trace v0 @9.000000000 begin test other
# trace v0 #10 @9.000000100 +4000 detach+exchange memory_op exchange in=9 out=1 out_order=0 bits=64 -> 0 done=9
# trace v0 #10 in 0x200+8 0x1
# trace v0 #10 at 0x400+9
# trace v0 #10 out 0x7c4+9
# trace v0 @9.000000050 +6000 phase detach+exchange calls=1
# trace v0 @9.000000000 +90000 end test other calls=1
";
        let traced = traced(&format!("{LOG}{larger}"));
        assert_eq!(traced.exchange.unwrap().frames, 9);
        let transaction = traced.transaction.unwrap();
        assert_eq!((transaction.frames, transaction.phases.len()), (8, 2));
    }

    #[test]
    fn a_trace_without_an_exchange_is_named_all_the_same() {
        let traced = traced("# trace version=1 vcpus=1 ring=4096 calls=all\n");
        assert!(traced.exchange.is_none() && traced.transaction.is_none());
    }
}
