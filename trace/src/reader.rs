//! From the lines of a trace to boots.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use crate::join::{Joined, Joiner, Source};
use crate::record::{Ended, Record, Side};
use crate::{Boot, FrameRuns, Loss, LossKind, SpanKind, Trace, TracedCall, TracedSpan, nesting};

/// The longest line that is kept together. Anything longer is not a line of text.
const LINE: usize = 1 << 16;

/// The time in ns by which one moment may differ in two lines: the kernel reads Xen's clock anew each
/// time that it prints.
const DRIFT: u64 = 100_000;

/// Reads a log piece by piece, for example while it grows.
#[derive(Clone, Debug, Default)]
pub struct TraceReader {
    trace: Trace,
    joiner: Joiner,
    /// The beginning of the line that has not ended yet.
    rest: Vec<u8>,
    /// The number of lines that have ended.
    lines: usize,
    streams: BTreeMap<Source, Stream>,
    /// The boots that have records whose parents are not known yet.
    changed: BTreeSet<usize>,
}

/// What one domain is printing.
#[derive(Clone, Debug)]
struct Stream {
    boot: usize,
    vcpus: BTreeMap<u32, Vcpu>,
    /// True from the beginning of a panic's records to the first one that is new.
    repeats: bool,
}

/// The state of a vCPU's records.
#[derive(Clone, Debug, Default)]
struct Vcpu {
    /// The number of the next call, if every call is traced.
    next: Option<u64>,
    /// The start of the last call.
    last_call: Option<u64>,
    /// True if the last two calls have the same time.
    is_stopped: bool,
    /// The time of the last record.
    last: Option<u64>,
    /// The last call, an index.
    call: Option<usize>,
    /// The number of the call that a panic printed once more, whose frames follow once more.
    repeated: Option<u64>,
    /// Spans that have begun and not ended, outermost first, indices.
    open: Vec<usize>,
    /// A `lost=` whose gap has not been seen, or a gap whose `lost=` has not; an index.
    loss: Option<usize>,
}

impl Trace {
    /// Reads a log from memory.
    pub fn parse(log: &[u8]) -> Self {
        let mut reader = TraceReader::new();
        reader.feed(log);
        reader.finish()
    }

    /// Reads a log to its end.
    ///
    /// # Errors
    /// The error of `log`. What a log contains is never an error.
    pub fn read(mut log: impl Read) -> io::Result<Self> {
        let mut reader = TraceReader::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            match log.read(&mut chunk) {
                Ok(0) => return Ok(reader.finish()),
                Ok(length) => reader.feed(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl TraceReader {
    /// Makes a reader that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a piece of a log, of any length. A line may be spread over several pieces.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LINE {
            self.end_line();
        }
    }

    /// Returns what was read from the lines that are complete.
    pub fn trace(&mut self) -> &Trace {
        for boot in std::mem::take(&mut self.changed) {
            nesting::resolve(&mut self.trace.boots[boot]);
        }
        &self.trace
    }

    /// Returns everything that was read. A last line without its end counts.
    pub fn finish(mut self) -> Trace {
        if !self.rest.is_empty() {
            self.end_line();
        }
        let mut complete = Vec::new();
        self.joiner.flush(&mut complete);
        complete.into_iter().for_each(|joined| self.record(joined));
        self.trace();
        self.trace
    }

    fn end_line(&mut self) {
        self.lines += 1;
        let mut complete = Vec::new();
        self.joiner.take(self.lines, &self.rest, &mut complete);
        self.rest.clear();
        complete.into_iter().for_each(|joined| self.record(joined));
    }

    fn record(&mut self, joined: Joined) {
        let Joined { line, source, record } = joined;
        match record {
            Err(reason) => self.unreadable(line, source, reason),
            Ok(Record::Version { version, vcpus, ring, traced }) => {
                let boot = self.begin_boot(line, source);
                (boot.vcpus, boot.ring, boot.traced) = (vcpus, ring, traced);
                if version != 1 {
                    let kind = LossKind::UnknownVersion { version };
                    boot.losses.push(Loss { line, vcpu: None, time: None, kind });
                }
            }
            Ok(Record::Summary(text)) => self.summary(line, source, text),
            Ok(Record::Recap) => {
                if let Some(stream) = self.streams.get_mut(&source) {
                    stream.repeats = true;
                }
            }
            Ok(Record::Call(call)) => self.call(line, source, *call),
            Ok(Record::Frames { vcpu, number, side, list }) => {
                self.frames(line, source, vcpu, number, side, list);
            }
            Ok(Record::Begin { vcpu, start, kind, name, arguments }) => {
                let span = TracedSpan {
                    kind,
                    name,
                    arguments,
                    vcpu,
                    start,
                    duration: None,
                    calls: None,
                    parent: None,
                    line,
                };
                self.begin(line, source, span);
            }
            Ok(Record::End(ended)) => self.end(line, source, ended),
            Ok(Record::Lost { vcpu, records }) => self.lost(line, source, vcpu, records),
        }
    }

    fn begin_boot(&mut self, line: usize, source: Source) -> &mut Boot {
        let boot = self.trace.boots.len();
        self.streams.insert(source, Stream { boot, vcpus: BTreeMap::new(), repeats: false });
        self.trace.boots.push(Boot::new(line, source));
        &mut self.trace.boots[boot]
    }

    /// Adds a line of the kernel's summary, which has no version line if it is all that was printed.
    fn summary(&mut self, line: usize, source: Source, text: String) {
        if !self.streams.contains_key(&source) {
            self.begin_boot(line, source);
        }
        self.open(line, source).0.summary.push(text);
    }

    /// Returns the boot that a record belongs to, and its vCPUs. Its version line may be lost.
    fn open(&mut self, line: usize, source: Source) -> (&mut Boot, &mut BTreeMap<u32, Vcpu>) {
        if !self.streams.contains_key(&source) {
            let boot = self.begin_boot(line, source);
            boot.losses.push(Loss { line, vcpu: None, time: None, kind: LossKind::NoBeginning });
        }
        let stream = self.streams.get_mut(&source).expect("it was just inserted");
        self.changed.insert(stream.boot);
        (&mut self.trace.boots[stream.boot], &mut stream.vcpus)
    }

    fn unreadable(&mut self, line: usize, source: Source, reason: String) {
        let loss = Loss { line, vcpu: None, time: None, kind: LossKind::Unreadable { reason } };
        match self.streams.get(&source) {
            Some(stream) => self.trace.boots[stream.boot].losses.push(loss),
            None => self.trace.stray.push(loss),
        }
    }

    fn call(&mut self, line: usize, source: Source, call: TracedCall) {
        if self.is_repeated_call(source, &call) {
            return;
        }
        if self.is_another_boot(source, &call) {
            let boot = self.begin_boot(line, source);
            boot.losses.push(Loss { line, vcpu: None, time: None, kind: LossKind::NoBeginning });
        }
        let (boot, vcpus) = self.open(line, source);
        let vcpu = vcpus.entry(call.vcpu).or_default();
        // A filter in the guest leaves gaps; without a version line the filter is unknown.
        let all = boot.vcpus.is_some() && boot.traced.is_empty();
        let expected = vcpu.next.unwrap_or(0);
        if all && call.number > expected {
            vcpu.gap(boot, line, call.vcpu, call.number - expected);
        } else {
            vcpu.loss = None;
        }
        let is_stopped = vcpu.last_call == Some(call.start);
        if is_stopped && !vcpu.is_stopped {
            let (time, kind) = (Some(call.start), LossKind::ClockStopped);
            boot.losses.push(Loss { line, vcpu: Some(call.vcpu), time, kind });
        }
        vcpu.is_stopped = is_stopped;
        vcpu.next = Some(call.number.saturating_add(call.times));
        vcpu.last_call = Some(call.start);
        vcpu.last = Some(call.start);
        vcpu.call = Some(boot.calls.len());
        vcpu.repeated = None;
        boot.calls.push(TracedCall { line, ..call });
    }

    /// Returns true if the numbers and the clock begin anew, although no version line came.
    fn is_another_boot(&self, source: Source, call: &TracedCall) -> bool {
        let vcpu = self.streams.get(&source).and_then(|stream| stream.vcpus.get(&call.vcpu));
        vcpu.is_some_and(|vcpu| {
            vcpu.next.is_some_and(|next| call.number < next)
                && vcpu.last_call.is_some_and(|last| call.start < last)
        })
    }

    /// Returns true if a panic prints a call that the log has already.
    fn is_repeated_call(&mut self, source: Source, call: &TracedCall) -> bool {
        let Some(stream) = self.streams.get_mut(&source).filter(|stream| stream.repeats) else {
            return false;
        };
        let vcpu = stream.vcpus.get_mut(&call.vcpu);
        let known = vcpu.filter(|vcpu| vcpu.next.is_some_and(|next| call.number < next));
        stream.repeats = known.is_some();
        if let Some(vcpu) = known {
            vcpu.repeated = Some(call.number);
        }
        stream.repeats
    }

    /// Returns true if a panic prints a span that the log has already.
    fn is_repeated_span(
        &self,
        source: Source,
        vcpu: u32,
        kind: SpanKind,
        name: &str,
        start: u64,
    ) -> bool {
        let stream = self.streams.get(&source).filter(|stream| stream.repeats);
        stream.is_some_and(|stream| {
            self.trace.boots[stream.boot].spans.iter().any(|span| {
                let (same_kind, same_name) = (span.kind == kind, span.name == name);
                let same_start = span.start.abs_diff(start) <= DRIFT;
                span.vcpu == vcpu && same_kind && same_name && same_start
            })
        })
    }

    fn frames(
        &mut self,
        line: usize,
        source: Source,
        vcpu: u32,
        number: u64,
        side: Side,
        list: FrameRuns,
    ) {
        let (boot, vcpus) = self.open(line, source);
        if vcpus.get(&vcpu).is_some_and(|vcpu| vcpu.repeated == Some(number)) {
            return;
        }
        let last = vcpus.get(&vcpu).and_then(|vcpu| vcpu.call);
        let call = last.map(|index| &mut boot.calls[index]).filter(|call| call.number == number);
        let Some(call) = call else {
            // The loss of a call that was overwritten before its frames is named already.
            let loss = vcpus.get(&vcpu).and_then(|vcpu| Some(&boot.losses[vcpu.loss?].kind));
            if matches!(loss, Some(LossKind::Overwritten { .. })) {
                return;
            }
            let reason = format!("frames of call #{number} of vCPU {vcpu}, which was not read");
            return self.unreadable(line, source, reason);
        };
        if list.cut > 0 {
            let kind = LossKind::FramesCut { call: number, frames: list.cut };
            boot.losses.push(Loss { line, vcpu: Some(vcpu), time: Some(call.start), kind });
        }
        let runs = match side {
            Side::In => &mut call.frames_in,
            Side::At => &mut call.frames_at,
            Side::Out => &mut call.frames_out,
        };
        runs.runs.extend(list.runs);
        runs.cut = runs.cut.saturating_add(list.cut);
    }

    fn begin(&mut self, line: usize, source: Source, span: TracedSpan) {
        if self.is_repeated_span(source, span.vcpu, span.kind, &span.name, span.start) {
            return;
        }
        let (boot, vcpus) = self.open(line, source);
        let vcpu = vcpus.entry(span.vcpu).or_default();
        if span.kind == SpanKind::Test {
            vcpu.open.clear();
        }
        vcpu.last = Some(span.start);
        vcpu.open.push(boot.spans.len());
        boot.spans.push(span);
    }

    fn end(&mut self, line: usize, source: Source, ended: Ended) {
        let is_repeated =
            self.is_repeated_span(source, ended.vcpu, ended.kind, &ended.name, ended.start);
        let (boot, vcpus) = self.open(line, source);
        let vcpu = vcpus.entry(ended.vcpu).or_default();
        let Ended { start, duration, kind, name, calls, .. } = ended;
        vcpu.last = Some(start.saturating_add(duration));
        let begun = vcpu.open.iter().rposition(|index| {
            let span = &boot.spans[*index];
            (span.kind, &span.name) == (kind, &name) && span.start.abs_diff(start) <= DRIFT
        });
        if let Some(depth) = begun {
            let span = &mut boot.spans[vcpu.open[depth]];
            (span.duration, span.calls) = (Some(duration), calls);
            vcpu.open.truncate(depth);
            return;
        }
        if is_repeated {
            return;
        }
        // A phase, or a span whose beginning is lost.
        boot.spans.push(TracedSpan {
            kind,
            name,
            arguments: Vec::new(),
            vcpu: ended.vcpu,
            start,
            duration: Some(duration),
            calls,
            parent: None,
            line,
        });
    }

    fn lost(&mut self, line: usize, source: Source, number: u32, records: u64) {
        let (boot, vcpus) = self.open(line, source);
        let vcpu = vcpus.entry(number).or_default();
        let kind = match vcpu.loss.map(|index| &boot.losses[index].kind) {
            // The gap came first.
            Some(LossKind::Missing { calls }) => {
                LossKind::Overwritten { records, calls: Some(*calls) }
            }
            _ => LossKind::Overwritten { records, calls: None },
        };
        let loss = Loss { line, vcpu: Some(number), time: vcpu.last, kind };
        match (&loss.kind, vcpu.loss.take()) {
            (LossKind::Overwritten { calls: Some(_), .. }, Some(index)) => {
                boot.losses[index] = loss
            }
            _ => {
                vcpu.loss = Some(boot.losses.len());
                boot.losses.push(loss);
            }
        }
    }
}

impl Vcpu {
    /// Notes that calls are missing before the one that is read now.
    fn gap(&mut self, boot: &mut Boot, line: usize, vcpu: u32, missing: u64) {
        let announced = self.loss.take().map(|index| &mut boot.losses[index].kind);
        if let Some(LossKind::Overwritten { calls: calls @ None, .. }) = announced {
            *calls = Some(missing);
            return;
        }
        self.loss = Some(boot.losses.len());
        let kind = LossKind::Missing { calls: missing };
        boot.losses.push(Loss { line, vcpu: Some(vcpu), time: self.last, kind });
    }
}
