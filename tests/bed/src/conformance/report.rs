//! The table: a line per row, a column for the model and one for each Xen.

use crate::guest::TestCounts;
use crate::xen::Xen;

use super::results::{ModelResults, Results};
use super::rows::ConformanceRow;

/// What one Xen answered, in each mode that was booted on it, in the order of their letters.
#[derive(Clone, Debug)]
pub struct OnXen {
    /// Which Xen.
    pub xen: Xen,
    /// Results of each mode.
    pub modes: Vec<Results>,
}

/// Letters of the modes, in the order in which they are booted.
pub const LETTERS: [char; 3] = ['D', 'U', 'H'];

/// What the letters are.
const LEGEND: &str = "\
Of each Xen: D as PV dom0, U as PV domU, H as PVH domU; - where the row can't be tried in that mode,
! where the answer was another one. open: the row is owed a test on a real Xen and has none that
could be tried. Model: how many tests are named after the row.";

const STIMULUS: usize = 56;

/// The whole report.
#[derive(Clone, Debug)]
pub struct ConformanceReport<'a> {
    /// The rows.
    pub rows: &'a [ConformanceRow],
    /// Results of the model; `None` where its tests were not run.
    pub model: Option<ModelResults>,
    /// Results of each Xen.
    pub xens: Vec<OnXen>,
}

impl ConformanceReport<'_> {
    /// The table and what has to be said of it.
    pub fn text(&self) -> String {
        let mut text = format!("{:<5}{:<w$}{:<8}", "id", "stimulus", "model", w = STIMULUS + 2);
        self.xens.iter().for_each(|on| text.push_str(&format!("{:<8}", on.xen.label())));
        text.truncate(text.trim_end().len());
        for row in self.rows {
            let stimulus = shorten(&row.stimulus);
            let model = self.model_cell(row);
            let mut line = format!("{:<5}{stimulus:<w$}{model:<8}", row.id, w = STIMULUS + 2);
            self.xens.iter().for_each(|on| line.push_str(&format!("{:<8}", on.cell(row))));
            text.push_str(&format!("\n{}", line.trim_end()));
        }
        format!("{text}\n\n{LEGEND}\n{}", self.remarks())
    }

    fn model_cell(&self, row: &ConformanceRow) -> String {
        let Some(model) = &self.model else { return "not run".to_owned() };
        match model.results.get(&row.id) {
            Some(tally) if !tally.failed.is_empty() => "NOT OK".to_owned(),
            Some(tally) if tally.passed > 0 => format!("ok {}", tally.passed),
            Some(_) => "ignored".to_owned(),
            None => "none".to_owned(),
        }
    }

    /// Failures, open rows, and tests named after rows that the table does not have.
    fn remarks(&self) -> String {
        let mut lines = Vec::new();
        let crashes = self.model.iter().flat_map(|model| &model.crashes);
        lines.extend(crashes.map(|crash| format!("NOT OK model: {crash}")));
        for (place, id, tally) in self.each() {
            lines.extend(tally.failed.iter().map(|why| format!("NOT OK {id} {place}: {why}")));
            if !self.rows.iter().any(|row| row.id == *id) {
                lines.push(format!("NOT OK {id} {place}: the table has no such row"));
            }
        }
        for row in self.rows {
            if self.model.is_some() && self.model_cell(row) == "none" {
                lines.push(format!("open   {} model: no test is named after it", row.id));
            }
            for on in self.xens.iter().filter(|on| on.cell(row) == "open") {
                let why = on.modes.iter().filter_map(|results| results.get(&row.id));
                let why = why.flat_map(|tally| tally.skipped.first()).next();
                let why = why.map_or("no test is named after it", String::as_str);
                lines.push(format!("open   {} {}: {why}", row.id, on.xen));
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn each(&self) -> impl Iterator<Item = (String, &String, &super::results::RowTally)> {
        let model = self.model.iter().map(|model| ("model".to_owned(), &model.results));
        let xens = self.xens.iter().flat_map(|on| {
            let named = on.modes.iter().zip(LETTERS);
            named.map(move |(results, letter)| (format!("{} {letter}", on.xen), results))
        });
        model.chain(xens).flat_map(|(place, results)| {
            results.iter().map(move |(id, tally)| (place.clone(), id, tally))
        })
    }

    /// Tests by result, over all places.
    pub fn counts(&self) -> TestCounts {
        let crashes = self.model.iter().map(|model| model.crashes.len() as u32).sum();
        let mut counts = TestCounts { failed: crashes, ..TestCounts::default() };
        for (_, id, tally) in self.each() {
            counts.passed += tally.passed;
            counts.failed += tally.failed.len() as u32;
            counts.skipped += tally.skipped.len() as u32;
            counts.failed += u32::from(!self.rows.iter().any(|row| row.id == *id));
        }
        counts
    }
}

impl OnXen {
    fn cell(&self, row: &ConformanceRow) -> String {
        let tallies: Vec<_> = self.modes.iter().map(|results| results.get(&row.id)).collect();
        let tried = |tally: &super::results::RowTally| tally.passed > 0 || !tally.failed.is_empty();
        if !tallies.iter().flatten().any(|tally| tried(tally)) {
            return if row.real { "open".to_owned() } else { String::new() };
        }
        let letters = tallies.iter().zip(LETTERS).map(|(tally, letter)| match tally {
            Some(tally) if !tally.failed.is_empty() => format!("{letter}!"),
            Some(tally) if tally.passed > 0 => letter.to_string(),
            _ => "-".to_owned(),
        });
        letters.collect::<Vec<_>>().join(" ")
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= STIMULUS {
        return text.to_owned();
    }
    let kept: String = text.chars().take(STIMULUS - 1).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::results::{of_cargo, of_guest};
    use super::super::rows::parse;
    use super::*;

    fn text(model: &str, guests: [&str; 3]) -> (String, TestCounts) {
        let row = |id, cells| format!("| <a id=\"{id}\"></a>{id} | {cells} |\n");
        let table = [row("C01", "| a"), row("C02", "R | b"), row("C03", "R | c")].concat();
        let rows = parse(&table);
        let on = OnXen { xen: Xen::default_release(), modes: guests.map(of_guest).to_vec() };
        let report =
            ConformanceReport { rows: &rows, model: Some(of_cargo(model)), xens: vec![on] };
        (report.text(), report.counts())
    }

    fn line<'t>(text: &'t str, id: &str) -> Vec<&'t str> {
        let line = text.lines().find(|line| line.starts_with(id)).unwrap();
        line.split_whitespace().collect()
    }

    #[test]
    fn each_cell_says_what_was_tried() {
        let guests =
            ["ok 1 c02-x\nok 2 c03-x # SKIP dom0", "ok 1 c02-x # SKIP domU", "not ok 1 c02-x # no"];
        let (text, counts) = text("test c02_x ... ok\ntest c01_x ... FAILED", guests);
        assert_eq!(line(&text, "C01"), ["C01", "a", "NOT", "OK"]);
        assert_eq!(line(&text, "C02"), ["C02", "b", "ok", "1", "D", "-", "H!"]);
        assert_eq!(line(&text, "C03"), ["C03", "c", "none", "open"]);
        assert!(text.contains("NOT OK C02 4.17 H: c02-x: no"), "{text}");
        assert!(
            text.contains("open   C03 4.17: dom0") && text.contains("open   C03 model"),
            "{text}"
        );
        assert_eq!(counts, TestCounts { passed: 2, failed: 2, skipped: 2 });
    }

    #[test]
    fn a_test_of_no_row_is_a_failure() {
        let (text, counts) = text("", ["ok 1 c09-x", "", ""]);
        assert!(text.contains("NOT OK C09 4.17 D: the table has no such row"), "{text}");
        assert_eq!(counts.failed, 1);
    }
}
