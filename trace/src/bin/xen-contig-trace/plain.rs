//! The plain view: a line per call, below its test and its operations.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

use xen_contig_trace::{Boot, LossKind, SpanKind, TracedCall, TracedSpan};

use crate::options::Columns;
use crate::selection::Selection;
use crate::units::{duration, frames, seconds};

/// The width of the column with the phase.
const PHASE: usize = "detach+exchange".len();

/// Prints calls, and before them the spans that they are in.
pub struct Printer<'a> {
    columns: &'a Columns,
    /// The spans under which the last call of each vCPU was printed, the outermost first.
    shown: BTreeMap<u32, Shown>,
    /// When the last printed call began.
    last: Option<u64>,
    /// The number of the boot's losses that were passed.
    losses: usize,
    /// True if lines begin with their vCPU.
    names_vcpus: bool,
    /// When the first test began.
    first_test: Option<u64>,
}

/// The headings that the last line of a vCPU was under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    is_boot: bool,
    path: Vec<usize>,
}

impl<'a> Printer<'a> {
    /// Makes a printer for one boot.
    pub fn new(columns: &'a Columns) -> Self {
        Self {
            columns,
            shown: BTreeMap::new(),
            last: None,
            losses: 0,
            names_vcpus: false,
            first_test: None,
        }
    }

    /// Prints the calls with these indices that are selected.
    pub fn print(
        &mut self,
        boot: &Boot,
        selection: &Selection,
        range: Range<usize>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        self.names_vcpus = boot.vcpu_count() > 1;
        self.first_test = boot.first_test();
        let mut calls =
            boot.calls[range].iter().filter(|call| selection.picks(boot, call)).peekable();
        while let Some(call) = calls.next() {
            self.print_losses(boot, selection, call, out)?;
            self.print_headings(boot, call, out)?;
            if !self.columns.fold {
                self.print_call(call, out)?;
                continue;
            }
            let mut folded = call.clone();
            while let Some(next) = calls.next_if(|next| is_equal(boot, call, next)) {
                folded.times = folded.times.saturating_add(next.times);
                folded.duration = folded.duration.saturating_add(next.duration);
            }
            self.print_call(&folded, out)?;
        }
        Ok(())
    }

    /// Prints where calls are missing before this one.
    fn print_losses(
        &mut self,
        boot: &Boot,
        selection: &Selection,
        call: &TracedCall,
        out: &mut impl Write,
    ) -> io::Result<()> {
        while let Some(loss) = boot.losses.get(self.losses).filter(|loss| loss.line <= call.line) {
            self.losses += 1;
            let is_gap =
                matches!(loss.kind, LossKind::Overwritten { .. } | LossKind::Missing { .. });
            let vcpu = loss.vcpu.filter(|vcpu| is_gap && selection.picks_vcpu(*vcpu));
            if let Some(vcpu) = vcpu {
                self.print_line(vcpu, loss.time, None, 0, &format!("[{}]", loss.kind), out)?;
            }
        }
        Ok(())
    }

    fn print_headings(
        &mut self,
        boot: &Boot,
        call: &TracedCall,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let path = path(boot, call);
        let is_boot = path.is_empty() && self.first_test.is_none_or(|first| call.start < first);
        let now = Shown { is_boot, path };
        let before = self.shown.insert(call.vcpu, now.clone()).unwrap_or_default();
        if now.is_boot && !before.is_boot {
            return self.print_line(call.vcpu, None, None, 0, "boot", out);
        }
        if now.path.is_empty() && !now.is_boot && (before.is_boot || !before.path.is_empty()) {
            return self.print_line(call.vcpu, None, None, 0, "between tests", out);
        }
        let same = now.path.iter().zip(&before.path).take_while(|(now, before)| now == before);
        for (depth, index) in now.path.iter().enumerate().skip(same.count()) {
            let span = &boot.spans[*index];
            let text = heading(span);
            self.print_line(call.vcpu, Some(span.start), span.duration, depth, &text, out)?;
        }
        Ok(())
    }

    fn print_call(&mut self, call: &TracedCall, out: &mut impl Write) -> io::Result<()> {
        let depth = self.shown.get(&call.vcpu).map_or(0, |shown| shown.path.len()).max(1);
        let mut text = match call.phase {
            Some(phase) => format!("{phase:PHASE$}  {call}"),
            None if depth > 1 => format!("{:PHASE$}  {call}", ""),
            None => call.to_string(),
        };
        if let Some(frames) = frames(call, self.columns.all_frames) {
            text.push_str("  ");
            text.push_str(&frames);
        }
        if self.columns.relative {
            let since = self.last.map_or(0, |last| call.start.saturating_sub(last));
            write!(out, "{:>14} ", format!("+{}", seconds(since)))?;
        }
        self.last = Some(call.start);
        self.print_columns(call.vcpu, Some(call.start), Some(call.duration), out)?;
        writeln!(out, "{:indent$}{text}", "", indent = 2 * depth)
    }

    fn print_line(
        &self,
        vcpu: u32,
        start: Option<u64>,
        took: Option<u64>,
        depth: usize,
        text: &str,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if self.columns.relative {
            write!(out, "{:15}", "")?;
        }
        self.print_columns(vcpu, start, took, out)?;
        writeln!(out, "{:indent$}{text}", "", indent = 2 * depth)
    }

    /// Prints what comes before the text, apart from `-r`.
    fn print_columns(
        &self,
        vcpu: u32,
        start: Option<u64>,
        took: Option<u64>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if self.columns.time {
            write!(out, "{:>14} ", start.map_or(String::new(), seconds))?;
        }
        if self.columns.duration {
            write!(out, "{:>11} ", took.map_or(String::new(), duration))?;
        }
        if self.names_vcpus {
            write!(out, "{:<3} ", format!("v{vcpu}"))?;
        }
        Ok(())
    }
}

/// Returns the tests and operations around a call, the outermost first.
fn path(boot: &Boot, call: &TracedCall) -> Vec<usize> {
    let mut path = Vec::new();
    let mut next = call.parent;
    while let Some(index) = next {
        let span = &boot.spans[index];
        if !matches!(span.kind, SpanKind::Phase(_)) {
            path.push(index);
        }
        next = span.parent;
    }
    path.reverse();
    path
}

fn heading(span: &TracedSpan) -> String {
    let mut text = match span.kind {
        SpanKind::Test => format!("test {}", span.name),
        _ => span.name.clone(),
    };
    span.arguments.iter().for_each(|argument| text.push_str(&format!(" {argument}")));
    text
}

/// Returns true if both calls print the same line and are under the same headings.
fn is_equal(boot: &Boot, one: &TracedCall, other: &TracedCall) -> bool {
    let key = |call: &TracedCall| {
        let mut key = call.clone();
        (key.number, key.start, key.duration, key.times, key.line) = (0, 0, 0, 1, 0);
        key.parent = None;
        key
    };
    key(one) == key(other) && path(boot, one) == path(boot, other)
}
