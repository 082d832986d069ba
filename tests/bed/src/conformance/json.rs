//! The table for other programs. `docs/CONFORMANCE.md` describes the file.

use serde_json::{Map, Value, json};

use super::MODES;
use super::report::ConformanceReport;
use super::results::RowTally;
use super::rows::ConformanceRow;

/// Returns the rows with everything that was answered.
pub fn of(report: &ConformanceReport<'_>) -> Value {
    Value::Array(report.rows.iter().map(|row| of_row(report, row)).collect())
}

fn of_row(report: &ConformanceReport<'_>, row: &ConformanceRow) -> Value {
    let model = report.model.as_ref().and_then(|model| model.results.get(&row.id));
    let xens = report.xens.iter().map(|on| {
        let modes = MODES.iter().zip(&on.modes);
        let modes = modes.map(|(mode, results)| {
            (mode.to_string(), results.get(&row.id).map_or(Value::Null, of_tally))
        });
        (on.xen.label(), Value::Object(modes.collect::<Map<_, _>>()))
    });
    json!({
        "row": row.id,
        "stimulus": row.stimulus,
        "expected": row.expected,
        "model": model.map(of_tally),
        "xens": xens.collect::<Map<_, _>>(),
    })
}

fn of_tally(tally: &RowTally) -> Value {
    let answers = tally.answers.iter().map(|(answer, times)| {
        json!({
            "operation": answer.operation,
            "errno": answer.errno,
            "done": answer.done,
            "times": times,
        })
    });
    json!({
        "passed": tally.passed,
        "failed": tally.failed,
        "skipped": tally.skipped,
        "answers": answers.collect::<Vec<_>>(),
    })
}
