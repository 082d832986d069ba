//! What allocations cost, beside Linux: `bench.json`, which `make bench` writes for each Xen.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::figure::bars::{Bar, BarChart, Scale};
use crate::figure::{Drawn, Series};
use crate::results::BED;
use crate::source::{self, Source};

/// The file.
#[derive(Clone, Debug, Deserialize)]
struct BenchFile {
    rows: Vec<MeasuredRow>,
}

#[derive(Clone, Debug, Deserialize)]
struct MeasuredRow {
    entry: String,
    linux: Option<Line>,
    here: Line,
    ratio: Option<f64>,
    to_reach: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Line {
    alloc: u64,
    free: u64,
    calls: Option<u64>,
}

/// The figures of one Xen.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// The Xen.
    pub xen: String,
    /// The rows.
    pub rows: Vec<Row>,
    /// The pictures.
    pub figures: Vec<Drawn>,
    /// Rows with a ratio to reach.
    pub compared: usize,
    /// Rows that reach it.
    pub reached: usize,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is repeated.
    pub pattern: String,
    /// 2^order pages.
    pub order: String,
    /// The width of the device's addresses.
    pub bits: String,
    /// How many buffers, or how many operations.
    pub count: String,
    /// Ticks of an allocation and a release on Linux.
    pub linux: Option<u64>,
    /// Ticks of an allocation and a release here.
    pub here: u64,
    /// The first divided by the second.
    pub ratio: Option<f64>,
    /// The ratio that the project wants to reach.
    pub to_reach: Option<f64>,
    /// Whether it is reached, if there is one.
    pub reached: Option<bool>,
    /// Hypercalls of the whole row.
    pub calls: Option<u64>,
}

/// The pictures: a title, and the patterns in it.
const GROUPS: [(&str, &[&str]); 4] = [
    ("One buffer, again and again", &["cycle"]),
    ("The same, with no free memory below the mask", &["cycle-far"]),
    ("Many buffers at a time", &["hold", "churn", "hold-far", "churn-far"]),
    ("An exchange for every buffer", &["strict", "bare"]),
];

/// Returns the figures of every Xen that was measured.
pub fn of(root: &Path) -> Vec<(String, Source<Bench>)> {
    let xens = source::names(&root.join(BED)).into_iter();
    let found = xens.filter_map(|xen| {
        match source::json::<BenchFile>(root, &format!("{BED}/{xen}/bench.json")) {
            Source::Absent { .. } => None,
            read => Some((xen.clone(), read.map(|file| Bench::of(xen, file)))),
        }
    });
    found.collect()
}

impl Bench {
    fn of(xen: String, file: BenchFile) -> Self {
        let rows: Vec<Row> = file.rows.iter().map(Row::of).collect();
        let compared = rows.iter().filter(|row| row.reached.is_some()).count();
        let reached = rows.iter().filter(|row| row.reached == Some(true)).count();
        let figures = GROUPS.iter().filter_map(|(title, patterns)| {
            let of_group = |row: &&Row| patterns.contains(&row.pattern.as_str());
            let rows: Vec<&Row> = rows.iter().filter(of_group).collect();
            (!rows.is_empty()).then(|| chart(title, &xen, patterns, &rows).draw())
        });
        Self { figures: figures.collect(), xen, rows, compared, reached }
    }
}

fn chart(title: &str, xen: &str, patterns: &[&str], rows: &[&Row]) -> BarChart {
    BarChart {
        title: format!("{title} ({}), Xen {xen}", patterns.join(", ")),
        caption:
            "Ticks of an allocation and its release, on average; a tick is an instruction. The \
                  scale is logarithmic. The number after the bars says how many times the ticks of \
                  this library Linux needs."
                .to_owned(),
        axis: "ticks".to_owned(),
        scale: Scale::Logarithmic,
        series: vec![(Series::Other, "Linux".to_owned()), (Series::Own, "xen-contig".to_owned())],
        bars: rows.iter().map(|row| row.bar(patterns.len() > 1)).collect(),
    }
}

impl Row {
    fn of(row: &MeasuredRow) -> Self {
        let ticks = |line: &Line| line.alloc.saturating_add(line.free);
        let mut words = row.entry.split(':').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let reached = row.ratio.zip(row.to_reach).map(|(ratio, to_reach)| ratio >= to_reach);
        Self {
            pattern: word(),
            order: word(),
            bits: word(),
            count: word(),
            linux: row.linux.as_ref().map(ticks),
            here: ticks(&row.here),
            ratio: row.ratio,
            to_reach: row.to_reach,
            reached,
            calls: row.here.calls,
        }
    }

    fn bar(&self, with_pattern: bool) -> Bar {
        let pattern = if with_pattern { format!("{}, ", self.pattern) } else { String::new() };
        // Rows of `hold` differ in their counts alone.
        let count = match self.pattern.starts_with("hold") {
            true => format!(", {} buffers", self.count),
            false => String::new(),
        };
        let ratio = self.ratio.map(|ratio| format!("{ratio:.1}×"));
        let short = match (self.reached, self.to_reach) {
            (Some(false), Some(to_reach)) => format!(" (aim: {to_reach}×)"),
            _ => String::new(),
        };
        let linux = self.linux.map(|ticks| (Series::Other, ticks as f64));
        Bar {
            label: format!("{pattern}order {}, {} bits{count}", self.order, self.bits),
            values: linux.into_iter().chain([(Series::Own, self.here as f64)]).collect(),
            note: format!("{}{short}", ratio.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(linux: u64, to_reach: f64) -> Row {
        let line = |ticks| Line { alloc: ticks - 10, free: 10, calls: Some(2) };
        let (linux, here) = (line(linux), line(2000));
        let ratio = Some((linux.alloc + linux.free) as f64 / 2000.0);
        let entry = "strict:9:30:64".to_owned();
        Row::of(&MeasuredRow { entry, linux: Some(linux), here, ratio, to_reach: Some(to_reach) })
    }

    #[test]
    fn a_row_has_its_words_and_its_sums() {
        let row = row(6000, 2.0);
        let words = [&row.pattern, &row.order, &row.bits, &row.count].map(String::as_str);
        assert_eq!(words, ["strict", "9", "30", "64"]);
        assert_eq!((row.linux, row.here, row.reached), (Some(6000), 2000, Some(true)));
    }

    #[test]
    fn a_ratio_that_is_missed_is_marked_in_words() {
        assert_eq!(row(1000, 1.0).bar(false).note, "0.5× (aim: 1×)");
        assert_eq!(row(6000, 1.0).bar(false).note, "3.0×");
    }
}
