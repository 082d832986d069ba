//! One line of a trace.

use crate::call::decimal;
use crate::{Argument, CallResult, FailedEntry, FrameRun, FrameRuns, Phase, SpanKind, TracedCall};

/// What every line of a trace contains.
pub(crate) const MARK: &str = "# trace ";

/// What the kernel prints before the records of a panic.
pub(crate) const RECAP: &str = "# trace: the last hypercalls of ";

/// The highest number of vCPUs that Xen gives a guest; a higher number is a damaged line.
const VCPUS: u64 = 8192;

/// A line of a trace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Version {
        version: u64,
        vcpus: Option<u32>,
        ring: Option<u64>,
        traced: Vec<String>,
    },
    Summary(String),
    Call(Box<TracedCall>),
    Frames {
        vcpu: u32,
        number: u64,
        side: Side,
        list: FrameRuns,
    },
    Begin {
        vcpu: u32,
        start: u64,
        kind: SpanKind,
        name: String,
        arguments: Vec<Argument>,
    },
    End(Ended),
    Lost {
        vcpu: u32,
        records: u64,
    },
    /// The records of a panic follow, some of which the log has already.
    Recap,
}

/// A span whose duration is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) vcpu: u32,
    pub(crate) start: u64,
    pub(crate) duration: u64,
    pub(crate) kind: SpanKind,
    pub(crate) name: String,
    pub(crate) calls: Option<u64>,
}

/// Which list of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    In,
    At,
    Out,
}

/// Why a line cannot be read, in words for its reader.
pub(crate) type Reason = String;

impl Record {
    /// Parses what follows [`MARK`].
    ///
    /// A control character is an error, so that no name or value can harm a terminal.
    pub(crate) fn parse(text: &str) -> Result<Self, Reason> {
        if text.chars().any(char::is_control) {
            return Err("the line contains a control character".into());
        }
        let (first, rest) = split_word(text);
        match first {
            "summary" => Ok(Self::Summary(rest.trim_end().to_owned())),
            _ if first.starts_with("version=") => version(text),
            _ => of_vcpu(vcpu(first)?, rest),
        }
    }
}

/// Splits the first word off.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

fn vcpu(word: &str) -> Result<u32, Reason> {
    let digits = word.strip_prefix('v').filter(|digits| !digits.is_empty());
    let vcpu = digits.and_then(decimal).filter(|vcpu| *vcpu < VCPUS);
    vcpu.map(|vcpu| vcpu as u32).ok_or_else(|| format!("`{word}` is not a vCPU, such as `v0`"))
}

fn version(text: &str) -> Result<Record, Reason> {
    let arguments: Vec<Argument> = text.split_whitespace().map(Argument::parse).collect();
    let find = |name: &str| arguments.iter().find(|a| a.name.as_deref() == Some(name));
    let count = |name| find(name).and_then(Argument::number);
    let calls = find("calls").map_or("all", |argument| argument.value.as_str());
    let traced = match calls {
        "all" => Vec::new(),
        names => names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    };
    Ok(Record::Version {
        version: count("version").ok_or("the version is not a number")?,
        vcpus: count("vcpus").filter(|vcpus| *vcpus <= VCPUS).map(|vcpus| vcpus as u32),
        ring: count("ring"),
        traced,
    })
}

fn of_vcpu(vcpu: u32, text: &str) -> Result<Record, Reason> {
    let (word, rest) = split_word(text);
    if let Some(digits) = word.strip_prefix('#') {
        let number = decimal_or(digits, "the number of the call")?;
        return match split_word(rest) {
            ("in", list) => frames(vcpu, number, Side::In, list),
            ("at", list) => frames(vcpu, number, Side::At, list),
            ("out", list) => frames(vcpu, number, Side::Out, list),
            _ => call(vcpu, number, rest),
        };
    }
    if let Some(digits) = word.strip_prefix("lost=") {
        let records = decimal_or(digits, "the number of lost records")?;
        return nothing_after(rest).map(|()| Record::Lost { vcpu, records });
    }
    let start = time(word)?;
    match split_word(rest) {
        ("begin", name) => begin(vcpu, start, name),
        (word, rest) => {
            let duration = duration(word)?;
            let (word, rest) = split_word(rest);
            let (kind, name, rest) = match word {
                "end" => {
                    let (kind, name, rest) = named(rest)?;
                    (kind, name.to_owned(), rest)
                }
                "phase" => {
                    let (name, rest) = split_word(rest);
                    (SpanKind::Phase(phase(name)?), name.to_owned(), rest)
                }
                _ => return Err(format!("`{word}` is neither `begin`, `end` nor `phase`")),
            };
            let calls = calls(rest)?;
            Ok(Record::End(Ended { vcpu, start, duration, kind, name, calls }))
        }
    }
}

fn begin(vcpu: u32, start: u64, text: &str) -> Result<Record, Reason> {
    let (kind, name, rest) = named(text)?;
    let arguments: Vec<Argument> = rest.split_whitespace().map(Argument::parse).collect();
    if let Some(word) = arguments.iter().find(|argument| argument.name.is_none()) {
        return Err(format!("`{word}` is not a limit, such as `bytes=4096`"));
    }
    Ok(Record::Begin { vcpu, start, kind, name: name.to_owned(), arguments })
}

/// Splits `test <name>` or the name of an operation off.
fn named(text: &str) -> Result<(SpanKind, &str, &str), Reason> {
    let (first, rest) = split_word(text);
    let (kind, name, rest) = match first {
        "test" => {
            let (name, rest) = split_word(rest);
            (SpanKind::Test, name, rest)
        }
        _ => (SpanKind::Operation, first, rest),
    };
    let valid = !name.is_empty() && (kind == SpanKind::Test || !name.contains('='));
    valid.then_some((kind, name, rest)).ok_or_else(|| "a test or an operation has no name".into())
}

fn calls(text: &str) -> Result<Option<u64>, Reason> {
    let mut calls = None;
    for word in text.split_whitespace() {
        if let Some(digits) = word.strip_prefix("calls=") {
            calls = Some(decimal_or(digits, "the number of calls")?);
        }
    }
    Ok(calls)
}

fn call(vcpu: u32, number: u64, text: &str) -> Result<Record, Reason> {
    let (head, tail) = text.split_once(" -> ").ok_or("the call has no result (`->`)")?;
    let (start, head) = split_word(head);
    let (duration_word, head) = split_word(head);
    let (phase_word, head) = split_word(head);
    let (hypercall, arguments) = split_word(head);
    let named = hypercall.starts_with(|c: char| c.is_ascii_lowercase())
        && hypercall.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !named {
        return Err(format!("`{hypercall}` is not the name of a hypercall"));
    }
    let mut call = TracedCall {
        vcpu,
        number,
        start: time(start)?,
        duration: duration(duration_word)?,
        phase: if phase_word == "-" { None } else { Some(phase(phase_word)?) },
        hypercall: hypercall.to_owned(),
        arguments: arguments.split_whitespace().map(Argument::parse).collect(),
        result: CallResult::Value(0),
        done: None,
        failed: None,
        times: 1,
        frames_in: FrameRuns::default(),
        frames_at: FrameRuns::default(),
        frames_out: FrameRuns::default(),
        parent: None,
        line: 0,
    };
    let (result, rest) = split_word(tail);
    call.result = CallResult::parse(result)
        .ok_or_else(|| format!("`{result}` is not the result of a call"))?;
    for word in rest.split_whitespace() {
        if let Some(digits) = word.strip_prefix("done=") {
            call.done = Some(decimal_or(digits, "`done`")?);
        } else if let Some(digits) = word.strip_prefix("times=") {
            call.times = decimal_or(digits, "`times`")?.max(1);
        } else if let Some(failed) = word.strip_prefix("failed=") {
            let failed = FailedEntry::parse(failed);
            call.failed = Some(failed.ok_or_else(|| format!("`{word}` is not a failed entry"))?);
        } else if !word.contains('=') {
            // A word with a name is of a newer kernel.
            return Err(format!("`{word}` after the result"));
        }
    }
    Ok(Record::Call(Box::new(call)))
}

fn frames(vcpu: u32, number: u64, side: Side, text: &str) -> Result<Record, Reason> {
    let mut list = FrameRuns::default();
    for word in text.split_whitespace() {
        if list.cut > 0 {
            return Err(format!("`{word}` after `cut=`"));
        }
        match word.strip_prefix("cut=") {
            Some(digits) => list.cut = decimal_or(digits, "`cut`")?,
            None => {
                let run = FrameRun::parse(word);
                list.runs.push(run.ok_or_else(|| format!("`{word}` is not a run of frames"))?);
            }
        }
    }
    Ok(Record::Frames { vcpu, number, side, list })
}

/// Parses `@<seconds>.<9 decimals>` into ns.
///
/// Fewer decimals are an error: a line that lost some of them would have a wrong time.
fn time(word: &str) -> Result<u64, Reason> {
    let parse = || {
        let (seconds, nanos) = word.strip_prefix('@')?.split_once('.')?;
        if nanos.len() != 9 || seconds.is_empty() {
            return None;
        }
        decimal(seconds)?.checked_mul(1_000_000_000)?.checked_add(decimal(nanos)?)
    };
    parse().ok_or_else(|| format!("`{word}` is not a time, such as `@8.033075006`"))
}

fn duration(word: &str) -> Result<u64, Reason> {
    let digits = word.strip_prefix('+').filter(|digits| !digits.is_empty());
    digits
        .and_then(decimal)
        .ok_or_else(|| format!("`{word}` is not a duration in ns, such as `+41250`"))
}

fn phase(word: &str) -> Result<Phase, Reason> {
    Phase::from_name(word).ok_or_else(|| format!("`{word}` is not a phase"))
}

fn decimal_or(digits: &str, what: &str) -> Result<u64, Reason> {
    let digits_only = Some(digits).filter(|digits| !digits.is_empty());
    digits_only.and_then(decimal).ok_or_else(|| format!("{what} is `{digits}`, not a number"))
}

fn nothing_after(rest: &str) -> Result<(), Reason> {
    match split_word(rest) {
        ("", _) => Ok(()),
        (word, _) => Err(format!("`{word}` at the end of the line")),
    }
}
