//! A real trace: the kernel says the same thing in several ways, and the program agrees with it.
//!
//! `tests/logs/real-pv-domu.log` is what `xl dmesg` showed of a PV domU on Xen 4.17, with
//! `trace=full selftest=stale-alias,exchange-order-3`.

use std::collections::BTreeMap;

use xen_contig_trace::{LossKind, SpanKind, Trace};

use crate::run::{log, run_on};

fn trace() -> Trace {
    Trace::parse(&std::fs::read(log("real-pv-domu")).unwrap())
}

#[test]
fn every_line_is_read() {
    let trace = trace();
    assert_eq!(trace.boots.len(), 1);
    let lost = trace.losses().filter(|loss| !matches!(loss.kind, LossKind::FramesCut { .. }));
    assert_eq!(lost.count(), 0);
    assert!(trace.boots[0].calls.len() > 300);
}

#[test]
fn a_call_lies_in_the_phase_that_its_line_names() {
    let trace = trace();
    let boot = &trace.boots[0];
    for call in &boot.calls {
        let innermost = boot.ancestors(call.parent).next().map(|span| span.kind);
        let phase = match innermost {
            Some(SpanKind::Phase(phase)) => Some(phase),
            _ => None,
        };
        assert_eq!(phase, call.phase, "#{}", call.number);
    }
}

#[test]
fn a_span_contains_the_calls_that_the_kernel_counted() {
    let trace = trace();
    let boot = &trace.boots[0];
    for (id, span) in boot.spans.iter().enumerate() {
        let is_inside = |parent: Option<usize>| {
            let mut next = parent;
            while let Some(index) = next.filter(|index| *index != id) {
                next = boot.spans[index].parent;
            }
            next.is_some()
        };
        let inside = boot.calls.iter().filter(|call| is_inside(call.parent));
        let calls = inside.map(|call| call.times).sum();
        assert_eq!(span.calls, Some(calls), "{} of line {}", span.name, span.line);
    }
}

/// Calls, errors and done.
type Sums = [u64; 3];

/// Reads rows of hypercalls, and adds up those of boot and tests. The kernel's boot ends a little
/// before the first test.
fn sums<'a>(
    rows: impl Iterator<Item = Vec<&'a str>>,
    columns: [usize; 3],
) -> BTreeMap<String, Sums> {
    let mut sums = BTreeMap::<String, Sums>::new();
    for row in rows {
        let sums = sums.entry(row[0].to_owned()).or_default();
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum += row[column].parse::<u64>().unwrap();
        }
    }
    sums
}

#[test]
fn the_summary_is_the_kernels() {
    let trace = trace();
    let lines = trace.boots[0].summary.iter();
    let words = |line: &'_ str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = lines.map(|line| words(line)).collect();
    let header = lines.iter().find(|line| line[0] == "boot").unwrap();
    let column = |name: &str| header.iter().position(|word| word == name).unwrap();
    let columns = [column("calls"), column("errors"), column("done")];
    let rows = lines.iter().filter(|line| {
        (line[0] == "boot" || line[0] == "tests") && line[1] != "calls" && line[1] != "total"
    });
    let kernel = sums(rows.map(|row| row[1..].iter().map(String::as_str).collect()), columns);

    let output = run_on("real-pv-domu", &["-c"]);
    let tables = output.stdout.split("\n\n").filter(|table| table.contains("by hypercall"));
    let rows =
        tables.flat_map(|table| table.lines().skip(2)).filter(|row| !row.starts_with("total"));
    let rows = rows.map(|row| {
        let mut words: Vec<&str> = row.split_whitespace().collect();
        if words[1].parse::<u64>().is_err() {
            words.remove(1);
        }
        words
    });
    assert_eq!(sums(rows, [1, 2, 3]), kernel);
    assert!(kernel.len() > 5, "{kernel:?}");
}
