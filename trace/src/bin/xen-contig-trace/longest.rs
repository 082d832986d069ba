//! `--longest`: the longest calls, each with everything that the trace has of it.

use std::cmp::Reverse;
use std::io::{self, Write};

use xen_contig_trace::{Boot, TracedCall, TracedSpan};

use crate::selection::Selection;
use crate::tally::shares;
use crate::units::{duration, seconds};

/// Prints the longest calls of a boot. Of folded calls the mean counts.
pub fn write(
    boot: &Boot,
    selection: &Selection,
    count: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut calls: Vec<&TracedCall> = selection.calls(boot).collect();
    let total = calls.iter().fold(0_u64, |sum, call| sum.saturating_add(call.duration));
    calls.sort_by_key(|call| Reverse(call.duration / call.times.max(1)));
    for (index, call) in calls.into_iter().take(count).enumerate() {
        let took = call.duration / call.times.max(1);
        let share = shares(&[took, total.saturating_sub(took)])[0];
        writeln!(out, "{}. {}  {call}", index + 1, duration(took).trim_end())?;
        let mut row = |name: &str, value: &str| writeln!(out, "     {name:<10} {value}");
        row("test", &test(boot, call))?;
        row("operation", &boot.operation_of(call).map_or("none".to_owned(), operation))?;
        row("phase", call.phase.map_or("none", |phase| phase.name()))?;
        let at =
            format!("call #{} of vCPU {}, at {} s", call.number, call.vcpu, seconds(call.start));
        row("call", &at)?;
        row("share", &format!("{}.{} % of the time of these calls", share / 10, share % 10))?;
        let lists = [&call.frames_in, &call.frames_out, &call.frames_at];
        if lists.into_iter().all(|list| list.is_empty()) {
            row("frames", "none")?;
        }
        for (name, runs) in [
            ("given", &call.frames_in),
            ("received", &call.frames_out),
            ("placed at", &call.frames_at),
        ] {
            if !runs.is_empty() {
                row(name, &format!("{runs}  ({} frames)", runs.frames()))?;
            }
        }
    }
    Ok(())
}

fn test(boot: &Boot, call: &TracedCall) -> String {
    match boot.test_of(call) {
        Some(test) => test.name.clone(),
        None if boot.first_test().is_none_or(|first| call.start < first) => {
            "none: the guest was booting".to_owned()
        }
        None => "none: between tests".to_owned(),
    }
}

fn operation(span: &TracedSpan) -> String {
    let mut text = span.name.clone();
    span.arguments.iter().for_each(|argument| text.push_str(&format!(" {argument}")));
    text
}
