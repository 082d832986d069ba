//! The rows as measured: the table, and the file that a later run is compared with.

use serde_json::{Value, json};

use super::line::BenchLine;
use super::rows::{BenchEntry, Row};
use crate::xen::Xen;

/// A row with what was measured of it.
#[derive(Clone, Debug)]
pub struct MeasuredRow {
    /// The row.
    pub row: Row,
    /// Linux, where it has such an operation.
    pub linux: Option<BenchLine>,
    /// The image.
    pub here: BenchLine,
}

/// All rows of one run.
#[derive(Clone, Debug)]
pub struct BenchReport {
    xen: Xen,
    rows: Vec<MeasuredRow>,
}

/// The columns of the table.
const HEAD: [&str; 9] = [
    "pattern",
    "order",
    "mask",
    "Linux",
    "here",
    "ratio",
    "to reach",
    "exchanged (Linux; here)",
    "hypercalls",
];

/// The most ticks of a `strict` allocation without its zeroing, in ticks of `bare`.
const STRICT_TO_BARE: f64 = 1.45;

impl MeasuredRow {
    /// Returns how many times the ticks of the image Linux needs, for an allocation and a release.
    pub fn ratio(&self) -> Option<f64> {
        let linux = self.linux.as_ref()?;
        Some(linux.ticks() as f64 / self.here.ticks().max(1) as f64)
    }

    /// Returns true if the ratio is below the one to reach.
    fn is_short(&self) -> bool {
        self.ratio().zip(self.row.target).is_some_and(|(ratio, target)| ratio < target)
    }

    fn cells(&self) -> [String; 9] {
        let Self { row, linux, here } = self;
        let ticks = |line: &BenchLine| format!("{} + {}", grouped(line.alloc), grouped(line.free));
        let none = || "–".to_owned();
        let target = row.target.map_or_else(none, |target| format!("{target}"));
        let exchanged = |line: &BenchLine| format!("{} of {}", line.exchanged, line.entry.count);
        [
            row.here.pattern.clone(),
            row.here.order.to_string(),
            format!("{} bits", row.here.bits),
            linux.as_ref().map_or_else(none, ticks),
            ticks(here),
            self.ratio().map_or_else(none, |ratio| format!("{ratio:.2}")),
            format!("{target}{}", if self.is_short() { " (short)" } else { "" }),
            format!("{}; {}", linux.as_ref().map_or_else(none, exchanged), exchanged(here)),
            here.calls.map_or_else(none, grouped),
        ]
    }

    fn json(&self) -> Value {
        let line = |line: &BenchLine| {
            json!({
                "ok": line.ok, "exchanged": line.exchanged, "alloc": line.alloc, "free": line.free,
                "max": line.max, "calls": line.calls,
            })
        };
        json!({
            "entry": self.row.here.to_string(),
            "linux": self.linux.as_ref().map(line),
            "here": line(&self.here),
            "ratio": self.ratio(),
            "to_reach": self.row.target,
        })
    }
}

impl BenchReport {
    /// Puts together what was measured.
    ///
    /// # Errors
    /// A row has no figures.
    pub fn new(
        xen: &Xen,
        rows: Vec<Row>,
        linux: &[BenchLine],
        here: &[BenchLine],
    ) -> Result<Self, String> {
        let rows = rows.into_iter().map(|row| {
            let find = |lines: &[BenchLine], entry: &BenchEntry| {
                lines.iter().find(|line| line.entry == *entry).cloned()
            };
            let missing = |whose: &str| format!("{whose} printed no line for {}", row.here);
            let line = find(here, &row.here).ok_or_else(|| missing("the image"))?;
            let peer = match &row.linux {
                Some(entry) => Some(find(linux, entry).ok_or_else(|| missing("Linux"))?),
                None => None,
            };
            Ok(MeasuredRow { row, linux: peer, here: line })
        });
        Ok(Self { xen: xen.clone(), rows: rows.collect::<Result<_, String>>()? })
    }

    /// Returns the rows.
    pub fn rows(&self) -> &[MeasuredRow] {
        &self.rows
    }

    /// Returns the table, in Markdown, and what follows from it.
    pub fn table(&self) -> String {
        let rows: Vec<[String; 9]> = self.rows.iter().map(MeasuredRow::cells).collect();
        let head = HEAD.map(str::to_owned);
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
        let line = |cells: &[String; 9]| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
        };
        let rule = widths.iter().enumerate().map(|(column, width)| match column {
            0 => "-".repeat(width + 2),
            _ => format!("{}:", "-".repeat(width + 1)),
        });
        let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        let body: String = rows.iter().map(line).collect();
        format!("{}{rule}{body}\n{}", line(&head), self.conclusions())
    }

    /// Returns what the rows say together.
    fn conclusions(&self) -> String {
        let compared =
            self.rows.iter().filter(|row| row.ratio().is_some() && row.row.target.is_some());
        let short = compared.clone().filter(|row| row.is_short()).count();
        let count = compared.count();
        let mut text = format!(
            "Xen {}; ticks of an allocation + of a release. {} of {count} ratios are reached.\n",
            self.xen,
            count - short
        );
        if let Some(ratio) = self.strict_to_bare() {
            text.push_str(&format!(
                "A strict allocation of order 9 without its zeroing takes {ratio:.2} times as long \
                 as the exchange alone; at most {STRICT_TO_BARE} is the aim.\n"
            ));
        }
        text
    }

    /// Returns what a `strict` allocation takes, in allocations of `bare`. Its zeroing is what an
    /// allocation takes that finds its memory.
    fn strict_to_bare(&self) -> Option<f64> {
        let alloc = |pattern: &str, bits| {
            let is = |row: &&MeasuredRow| {
                let entry = &row.row.here;
                (entry.pattern.as_str(), entry.order, entry.bits) == (pattern, 9, bits)
            };
            Some(self.rows.iter().find(is)?.here.alloc as f64)
        };
        Some((alloc("strict", 30)? - alloc("cycle", 64)?) / alloc("bare", 30)?)
    }

    /// Returns the text of the file.
    pub fn json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(MeasuredRow::json).collect();
        format!("{:#}\n", json!({ "xen": self.xen.label(), "rows": rows }))
    }
}

/// Writes a number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::super::rows;
    use super::*;

    /// A report in which all operations of the image take `here` ticks and those of Linux `linux`.
    pub fn report(linux: u64, here: u64) -> BenchReport {
        let line = |entry: &rows::BenchEntry, ticks| BenchLine {
            entry: entry.clone(),
            ok: entry.count.into(),
            exchanged: 1,
            alloc: ticks - 100,
            free: 100,
            max: ticks,
            calls: Some(1234),
        };
        let rows = rows::all();
        let peers: Vec<_> =
            rows.iter().filter_map(|row| Some(line(row.linux.as_ref()?, linux))).collect();
        let lines: Vec<_> = rows.iter().map(|row| line(&row.here, here)).collect();
        BenchReport::new(&Xen::default_release(), rows, &peers, &lines).unwrap()
    }

    #[test]
    fn a_row_says_ratio_target_exchanges_and_hypercalls() {
        let table = report(6000, 2000).table();
        let mut lines = table.lines();
        assert!(lines.next().unwrap().starts_with("| pattern "), "{table}");
        assert!(lines.next().unwrap().starts_with("|---"), "{table}");
        let words: Vec<&str> = lines.next().unwrap().split('|').map(str::trim).collect();
        let expected = [
            "cycle",
            "0",
            "30 bits",
            "5,900 + 100",
            "1,900 + 100",
            "3.00",
            "5 (short)",
            "1 of 64; 1 of 64",
            "1,234",
        ];
        assert_eq!(words[1..10], expected);
    }

    #[test]
    fn all_rows_of_the_table_are_equally_wide() {
        let table = report(6000, 2000).table();
        let widths: Vec<usize> = table
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.chars().count())
            .collect();
        assert!(widths.len() > 40 && widths.iter().all(|width| *width == widths[0]), "{widths:?}");
    }

    #[test]
    fn strict_is_compared_with_linux_s_cycle_and_bare_with_nothing() {
        let report = report(6000, 2000);
        let row =
            |pattern| report.rows().iter().find(|row| row.row.here.pattern == pattern).unwrap();
        assert_eq!(row("strict").linux.as_ref().unwrap().entry.pattern, "cycle");
        assert_eq!((row("strict").ratio(), row("bare").ratio()), (Some(3.0), None));
        assert!(!row("strict").is_short() && !row("bare").is_short() && row("cycle").is_short());
    }

    #[test]
    fn the_end_counts_what_is_reached() {
        assert!(report(60_000, 2000).table().contains(". 43 of 43 ratios are reached."));
        assert!(report(2000, 2000).table().contains(". 4 of 43 ratios are reached."));
        assert!(report(2000, 2000).table().contains("takes 0.00 times"));
    }

    #[test]
    fn a_row_without_figures_is_named() {
        let error = BenchReport::new(&Xen::default_release(), rows::all(), &[], &[]).unwrap_err();
        assert_eq!(error, "the image printed no line for cycle:0:30:64");
    }

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
    }
}
