//! `-c` and `--by`: tables of sums.

use std::cmp::Reverse;
use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use xen_contig_trace::{Boot, Phase, SpanKind, TracedCall};

use crate::options::Group;
use crate::selection::Selection;
use crate::tally::{CallSums, name, shares, sums};
use crate::units::duration;

/// The row of calls outside of every test, operation or phase.
const OUTSIDE: &str = "(none)";

const FIGURES: [&str; 7] = ["calls", "errors", "done", "time", "share", "mean", "longest"];

/// Prints the tables of a boot: the calls before the first test, and those after.
pub fn write(boot: &Boot, selection: &Selection, out: &mut impl Write) -> io::Result<()> {
    let first_test = boot.first_test().unwrap_or(u64::MAX);
    let (early, late): (Vec<_>, Vec<_>) =
        selection.calls(boot).partition(|call| call.start < first_test);
    let mut between = "";
    for (title, calls, is_boot) in [("boot", early, true), ("tests", late, false)] {
        if calls.is_empty() {
            continue;
        }
        write!(out, "{between}")?;
        between = "\n";
        let rows = by_time(sums(calls.iter().copied(), name));
        writeln!(out, "{title}, by hypercall\n{}", figures("hypercall", &rows))?;
        let spans = |start: u64| (start < first_test) == is_boot;
        if calls.iter().any(|call| call.phase.is_some()) {
            let phases = by_phase(boot, selection, &calls, spans);
            writeln!(out, "\n{title}, by phase\n{phases}")?;
        }
        if let Some(errors) = errors(&calls) {
            writeln!(out, "\n{title}, by error\n{errors}")?;
        }
    }
    if between.is_empty() {
        writeln!(out, "no call was selected")?;
    }
    Ok(())
}

/// Prints one table over the whole boot.
pub fn write_by(
    boot: &Boot,
    selection: &Selection,
    group: Group,
    out: &mut impl Write,
) -> io::Result<()> {
    let calls: Vec<_> = selection.calls(boot).collect();
    let table = match group {
        Group::Phase => by_phase(boot, selection, &calls, |_| true),
        Group::Test => {
            let first_test = boot.first_test().unwrap_or(u64::MAX);
            figures("test", &by_time(sums(calls, |call| test(boot, first_test, call))))
        }
        Group::Operation => {
            let operation = |call| match boot.operation_of(call) {
                Some(span) => span.name.clone(),
                None => OUTSIDE.to_owned(),
            };
            figures("operation", &by_time(sums(calls, operation)))
        }
    };
    writeln!(out, "{table}")
}

fn test(boot: &Boot, first_test: u64, call: &TracedCall) -> String {
    match boot.test_of(call) {
        Some(test) => test.name.clone(),
        None if call.start < first_test => "(boot)".to_owned(),
        None => "(between tests)".to_owned(),
    }
}

type Rows = Vec<(String, CallSums)>;

fn by_time(sums: impl IntoIterator<Item = (String, CallSums)>) -> Rows {
    let mut rows: Rows = sums.into_iter().collect();
    rows.sort_by_key(|(_, sums)| Reverse(sums.time));
    rows
}

fn figures(what: &str, rows: &Rows) -> String {
    let mut table = table([what].into_iter().chain(FIGURES));
    for ((name, sums), share) in rows.iter().zip(shares_of(rows)) {
        table.add_row([name.clone()].into_iter().chain(cells(sums, share)));
    }
    let total = total(rows);
    let share = if total.time == 0 { 0 } else { 1000 };
    table.add_row(["total".to_owned()].into_iter().chain(cells(&total, share)));
    table.trim_fmt()
}

/// A row per phase, in the order of a transaction, with the time that the phases themselves took.
fn by_phase(
    boot: &Boot,
    selection: &Selection,
    calls: &[&TracedCall],
    is_of: impl Fn(u64) -> bool,
) -> String {
    let sums = sums(calls.iter().copied(), |call| call.phase);
    let header = ["phase", "times", "phase time"].into_iter().chain(FIGURES);
    let mut table = table(header.map(|name| if name == "time" { "in calls" } else { name }));
    let mut rows = Rows::new();
    let mut spans_of_rows = Vec::new();
    for phase in Phase::ALL.into_iter().map(Some).chain([None]) {
        let spans = boot.spans.iter().filter(|span| {
            phase.is_some_and(|phase| span.kind == SpanKind::Phase(phase))
                && is_of(span.start)
                && selection.picks_span(boot, span)
        });
        let (count, time) = spans.fold((0_u64, 0_u64), |(count, time), span| {
            (count + 1, time.saturating_add(span.duration.unwrap_or(0)))
        });
        let row = sums.get(&phase).copied().unwrap_or_default();
        if count > 0 || row.calls > 0 {
            let name = phase.map_or(OUTSIDE, Phase::name).to_owned();
            rows.push((name, row));
            let known = phase.is_some() && count > 0;
            spans_of_rows.push(known.then(|| (count.to_string(), duration(time))));
        }
    }
    for (((name, sums), share), spans) in rows.iter().zip(shares_of(&rows)).zip(spans_of_rows) {
        let (count, time) = spans.unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
        table.add_row([name.clone(), count, time].into_iter().chain(cells(sums, share)));
    }
    table.trim_fmt()
}

fn errors(calls: &[&TracedCall]) -> Option<String> {
    let refused = calls.iter().copied().filter(|call| call.is_error());
    let key = |call: &TracedCall| (call.errno().unwrap_or_default().to_owned(), name(call));
    let mut rows: Vec<_> = sums(refused, key).into_iter().collect();
    rows.sort_by_key(|(_, sums)| Reverse(sums.calls));
    let mut table = table(["error", "calls", "time", "mean", "hypercall"]);
    table.column_mut(4)?.set_cell_alignment(CellAlignment::Left);
    for ((errno, name), sums) in &rows {
        let figures = [sums.calls.to_string(), duration(sums.time), duration(sums.mean())];
        table.add_row([errno.clone()].into_iter().chain(figures).chain([name.clone()]));
    }
    (!rows.is_empty()).then(|| table.trim_fmt())
}

fn shares_of(rows: &Rows) -> Vec<u64> {
    shares(&rows.iter().map(|(_, sums)| sums.time).collect::<Vec<_>>())
}

fn total(rows: &Rows) -> CallSums {
    rows.iter().fold(CallSums::default(), |total, (_, sums)| CallSums {
        calls: total.calls.saturating_add(sums.calls),
        errors: total.errors.saturating_add(sums.errors),
        done: total.done.saturating_add(sums.done),
        time: total.time.saturating_add(sums.time),
        longest: total.longest.max(sums.longest),
    })
}

fn cells(sums: &CallSums, share: u64) -> [String; 7] {
    [
        sums.calls.to_string(),
        sums.errors.to_string(),
        sums.done.to_string(),
        duration(sums.time),
        format!("{}.{} %", share / 10, share % 10),
        duration(sums.mean()),
        duration(sums.longest),
    ]
}

/// Makes a table without borders: the first column to the left, the others to the right.
fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
