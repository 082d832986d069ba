//! The table: a row per row of the document, with what the model and each Xen answered.

use comfy_table::{ContentArrangement, Table, presets};

use crate::guest::TestCounts;
use crate::xen::Xen;

use super::results::{ModelResults, Results, RowTally};
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

/// How the table is read.
const LEGEND: &str = "\
EINVAL(0,2): what Xen answered, and nr_exchanged after the calls. ok(8): success. Of a call without
nr_exchanged, the number is what it returned. The answer of the row comes first; the tests make the
other calls to prepare the state or to check it. passed: the trace names no answer of such a call.
Xen: D as PV dom0, U as PV domU, H as PVH domU, ! after a mode whose test failed. A mode without a
letter cannot try the row. Where Xens answer differently, each answer has its Xen's name.
open: the row is owed a test on a real Xen and has none that could be tried.";

/// The columns of a terminal that the table has.
const COLUMNS: u16 = 100;

/// Characters of a stimulus or of an expected answer, which may take several lines.
const LONGEST: usize = 84;

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
        let labels: Vec<String> = self.xens.iter().map(|on| on.xen.label()).collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
        let xens = format!("Xen {}", labels.join(", "));
        table.set_header(["row", "stimulus", "expected", "model", xens.as_str()]);
        for row in self.rows {
            let (stimulus, expected) = (shorten(&row.stimulus), shorten(&row.expected));
            let (model, xens) = (self.model_cell(row), self.xens_cell(row));
            table.add_row([row.id.clone(), stimulus, expected, model, xens]);
        }
        if let Some(column) = table.column_mut(0) {
            column.set_padding((0, 1));
        }
        format!("{}\n\n{LEGEND}\n{}", table.trim_fmt(), self.remarks())
    }

    /// Returns what the real Xens answered: once if they agree, otherwise by name. Numbers of
    /// successes are not compared, because they depend on the memory of the machine.
    fn xens_cell(&self, row: &ConformanceRow) -> String {
        let mut alike: Vec<(Vec<String>, Vec<&OnXen>)> = Vec::new();
        for on in &self.xens {
            let modes = by_mode(&[on], row);
            let answers =
                modes.iter().map(|(mode, answer)| format!("{mode} {}", comparable(answer)));
            let answers = answers.collect();
            match alike.iter_mut().find(|(known, _)| *known == answers) {
                Some((_, xens)) => xens.push(on),
                None => alike.push((answers, vec![on])),
            }
        }
        if let [(_, xens)] = &alike[..] {
            return cell(xens, row);
        }
        let named = alike.iter().map(|(_, xens)| {
            let labels: Vec<String> = xens.iter().map(|on| on.xen.label()).collect();
            format!("{}:\n{}", labels.join(", "), cell(xens, row))
        });
        named.collect::<Vec<_>>().join("\n")
    }

    fn model_cell(&self, row: &ConformanceRow) -> String {
        let Some(model) = &self.model else { return "not run".to_owned() };
        match model.results.get(&row.id) {
            Some(tally) if !tally.failed.is_empty() => format!("NOT OK {}", answered(tally, row)),
            Some(tally) if tally.passed > 0 => answered(tally, row),
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
            for on in self.xens.iter().filter(|on| cell(&[on], row) == "open") {
                let why = on.modes.iter().filter_map(|results| results.get(&row.id));
                let why = why.flat_map(|tally| tally.skipped.first()).next();
                let why = why.map_or("no test is named after it", String::as_str);
                lines.push(format!("open   {} {}: {why}", row.id, on.xen));
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn each(&self) -> impl Iterator<Item = (String, &String, &RowTally)> {
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

/// Returns a line for each answer of these Xens, with the letters of the modes that got it.
fn cell(xens: &[&OnXen], row: &ConformanceRow) -> String {
    let mut by_answer: Vec<(String, String)> = Vec::new();
    for (mode, answer) in by_mode(xens, row) {
        match by_answer.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, modes)) => modes.push_str(&mode),
            None => by_answer.push((answer, mode)),
        }
    }
    if by_answer.is_empty() && row.real {
        return "open".to_owned();
    }
    let lines = by_answer.iter().map(|(answer, modes)| format!("{modes} {answer}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the letter of each mode that tried the row, with the answers of all these Xens.
fn by_mode(xens: &[&OnXen], row: &ConformanceRow) -> Vec<(String, String)> {
    let modes = LETTERS.into_iter().enumerate().map(|(mode, letter)| {
        let mut tally = RowTally::default();
        let results = xens.iter().filter_map(|on| on.modes.get(mode)?.get(&row.id));
        results.for_each(|of_xen| tally.add(of_xen));
        (letter, tally)
    });
    let tried = modes.filter(|(_, tally)| tally.is_tried());
    let marked = tried.map(|(letter, tally)| {
        let mark = if tally.failed.is_empty() { "" } else { "!" };
        (format!("{letter}{mark}"), answered(&tally, row))
    });
    marked.collect()
}

/// Returns the answers in a fixed order, without the numbers of successes.
fn comparable(answers: &str) -> String {
    let words = answers.split(' ');
    let words = words.map(|word| if word.starts_with("ok(") { "ok" } else { word });
    let mut words: Vec<&str> = words.collect();
    words.sort_unstable();
    words.join(" ")
}

/// Returns the answers to the calls that the row is about.
fn answered(tally: &RowTally, row: &ConformanceRow) -> String {
    let answers = tally.answers.in_short(row.operation(), &row.expected);
    if answers.is_empty() { "passed".to_owned() } else { answers }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let kept: String = text.chars().take(LONGEST - 1).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::results::{of_cargo, of_guest};
    use super::super::rows::parse;
    use super::*;

    fn text(model: &str, guests: &[[&str; 3]]) -> (String, TestCounts) {
        let row = |id, cells| format!("| <a id=\"{id}\"></a>{id} | {cells} |\n");
        let table = [row("C01", "| a | A"), row("C02", "R | b | `EPERM`"), row("C03", "R | c | C")];
        let rows = parse(&table.concat());
        let modes = |guests: &[&str; 3]| guests.iter().map(|console| of_guest(console)).collect();
        let xens = Xen::releases().into_iter().zip(guests);
        let xens = xens.map(|(xen, guests)| OnXen { xen, modes: modes(guests) }).collect();
        let report = ConformanceReport { rows: &rows, model: Some(of_cargo(model)), xens };
        (report.text(), report.counts())
    }

    /// Returns the words of a row's first line and of the lines after it.
    fn words<'t>(text: &'t str, id: &str) -> Vec<&'t str> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(id));
        let first = lines.next().unwrap();
        let rest = lines.take_while(|line| line.starts_with(' '));
        [first].into_iter().chain(rest).flat_map(str::split_whitespace).collect()
    }

    const CALL: &str = "# trace v0 #1 @0.000000002 +3 - memory_op exchange in=1";

    #[test]
    fn each_cell_says_what_was_answered() {
        let refused = format!("{CALL} -> -EPERM done=0\nok 1 c02-x\nok 2 c03-x # SKIP dom0");
        let exchanged = format!("{CALL} -> 0 done=1\nnot ok 1 c02-x # no");
        let guests = [refused.as_str(), "ok 1 c02-x # SKIP domU", exchanged.as_str()];
        let (text, counts) = text("test c02_x ... ok\ntest c01_x ... FAILED", &[guests]);
        assert_eq!(words(&text, "C01"), ["C01", "a", "A", "NOT", "OK", "passed"]);
        let second = ["C02", "b", "EPERM", "passed", "D", "EPERM(0)", "H!", "ok(1)"];
        assert_eq!(words(&text, "C02"), second);
        assert_eq!(words(&text, "C03"), ["C03", "c", "C", "none", "open"]);
        assert!(text.contains("NOT OK C02 4.17 H: c02-x: no"), "{text}");
        assert!(
            text.contains("open   C03 4.17: dom0") && text.contains("open   C03 model"),
            "{text}"
        );
        assert_eq!(counts, TestCounts { passed: 2, failed: 2, skipped: 2 });
    }

    #[test]
    fn xens_that_answer_alike_share_a_cell() {
        let guest = |errno| format!("{CALL} -> {errno} done=0\nok 1 c02-x");
        let (eperm, einval) = (guest("-EPERM"), guest("-EINVAL"));
        let (same, _) = text("", &[[&eperm, &eperm, ""], [&eperm, &eperm, ""]]);
        assert_eq!(words(&same, "C02")[3..], ["none", "DU", "EPERM(0)"]);
        let done = |done| format!("{CALL} -> 0 done={done}\nok 1 c02-x");
        let (sizes, _) = text("", &[[&done(1), "", ""], [&done(8), "", ""]]);
        assert_eq!(words(&sizes, "C02")[3..], ["none", "D", "ok(1,8)"]);
        let (other, _) = text("", &[[&eperm, &eperm, ""], [&eperm, &einval, ""]]);
        let cell = ["4.17:", "DU", "EPERM(0)", "4.20:", "D", "EPERM(0)", "U", "EINVAL(0)"];
        assert_eq!(words(&other, "C02")[4..], cell);
        assert!(other.contains("Xen 4.17, 4.20"), "{other}");
    }

    #[test]
    fn the_table_fits_a_terminal_of_100_columns() {
        let long = "a word and another ".repeat(20);
        let rows = parse(&format!("| <a id=\"C02\"></a>C02 | R | {long} | `EPERM` {long} |"));
        let guest = format!("{CALL} -> -EPERM done=1\n{CALL} -> -EOPNOTSUPP done=2\nok 1 c02-x");
        let modes = vec![of_guest(&guest); 3];
        let xens = vec![OnXen { xen: Xen::default_release(), modes }];
        let text = ConformanceReport { rows: &rows, model: None, xens }.text();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn a_test_of_no_row_is_a_failure() {
        let (text, counts) = text("", &[["ok 1 c09-x", "", ""]]);
        assert!(text.contains("NOT OK C09 4.17 D: the table has no such row"), "{text}");
        assert_eq!(counts.failed, 1);
    }
}
