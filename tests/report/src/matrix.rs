//! The matrix: a row per test, a column per Xen and mode.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::places::Places;
use crate::results::{Boot, Outcome, place};

/// The matrix.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// The columns, in the order of the Xens.
    pub columns: Vec<Column>,
    /// The rows, in the order in which guests run their tests.
    pub rows: Vec<Row>,
}

/// A Xen and a mode.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// The Xen.
    pub xen: String,
    /// The mode, or the name of a guest that is of no mode.
    pub mode: String,
    /// How many guests the column counts.
    pub guests: usize,
    /// When the guest was booted, if an earlier run booted it.
    pub earlier: Option<String>,
}

/// A test.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The name of the test.
    pub name: String,
    /// A cell per column.
    pub cells: Vec<Cell>,
    /// Why the test failed or was skipped.
    pub reasons: Vec<Reason>,
}

/// What came of a test in the guests of a column.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    /// In how many guests it passed.
    pub passed: usize,
    /// In how many guests it failed.
    pub failed: usize,
    /// In how many guests it was skipped.
    pub skipped: usize,
    /// The worst that came of it; none if no guest has the test.
    pub outcome: Option<Outcome>,
    /// How long it took at most, in seconds, if a guest said it.
    pub seconds: Option<f64>,
}

/// Why a test failed or was skipped, and in which guests.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// Failed or skipped.
    pub outcome: Outcome,
    /// The reason.
    pub text: String,
    /// The guests; empty if these are all that did not pass the test.
    pub places: String,
}

impl Cell {
    fn add(&mut self, outcome: Outcome, seconds: Option<f64>) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
        }
        // A test that ran in one guest is not a skipped one because another guest left it out.
        self.outcome = Some(match (self.failed, self.passed) {
            (0, 0) => Outcome::Skipped,
            (0, _) => Outcome::Passed,
            _ => Outcome::Failed,
        });
        self.seconds = [self.seconds, seconds].into_iter().flatten().reduce(f64::max);
    }
}

/// Makes the matrix of all guests.
pub fn of(boots: &[Boot]) -> Matrix {
    let columns = columns(boots);
    let mut rows: Vec<(String, Vec<Cell>, Found)> = Vec::new();
    let mut index = BTreeMap::new();
    for boot in boots {
        let of_boot = |column: &Column| is_in(boot, column);
        let Some(column) = columns.iter().position(of_boot) else { continue };
        for test in &boot.guest.tests {
            let at = *index.entry(test.name.clone()).or_insert_with(|| {
                let cells = vec![Cell::default(); columns.len()];
                rows.push((test.name.clone(), cells, Found::new()));
                rows.len() - 1
            });
            let (_, cells, found) = &mut rows[at];
            cells[column].add(test.result, test.seconds);
            if test.result != Outcome::Passed {
                let places = found.entry((test.result, test.reason.clone())).or_default();
                places.add(&boot.guest.guest, &boot.guest.xen);
            }
        }
    }
    let mut xens: Vec<String> = columns.iter().map(|column| column.xen.clone()).collect();
    xens.dedup();
    let rows = rows.into_iter().map(|(name, cells, found)| Row {
        name,
        cells,
        reasons: reasons(found, &xens),
    });
    let rows = rows.collect();
    Matrix { columns, rows }
}

/// The places of each outcome and reason.
type Found = BTreeMap<(Outcome, String), Places>;

/// Returns failures first.
fn reasons(found: Found, xens: &[String]) -> Vec<Reason> {
    let is_only = found.len() == 1;
    let reasons = found.into_iter().map(|((outcome, text), places)| Reason {
        outcome,
        text,
        places: if is_only { String::new() } else { places.text(xens) },
    });
    reasons.collect()
}

fn columns(boots: &[Boot]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for boot in boots {
        match columns.iter_mut().find(|column| is_in(boot, column)) {
            Some(column) => column.guests += 1,
            None => columns.push(Column {
                xen: boot.guest.xen.clone(),
                mode: boot.guest.mode().to_owned(),
                guests: 1,
                earlier: boot.earlier.clone(),
            }),
        }
    }
    columns.sort_by(|a, b| (&a.xen, place(&a.mode)).cmp(&(&b.xen, place(&b.mode))));
    columns
}

fn is_in(boot: &Boot, column: &Column) -> bool {
    (boot.guest.xen.as_str(), boot.guest.mode()) == (column.xen.as_str(), column.mode.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::guest;
    use Outcome::{Failed, Passed, Skipped};

    /// Xen, name and tests of a guest.
    type Guest<'a> = (&'a str, &'a str, &'a [(&'a str, Outcome, &'a str)]);

    fn boots(guests: &[Guest<'_>]) -> Vec<Boot> {
        let boot =
            |(xen, name, tests): &Guest<'_>| Boot { guest: guest(xen, name, tests), earlier: None };
        guests.iter().map(boot).collect()
    }

    #[test]
    fn columns_are_in_the_order_of_xens_and_modes() {
        let matrix = of(&boots(&[
            ("4.20", "pvh-dom0", &[]),
            ("4.17", "other", &[]),
            ("4.17", "pvh-dom0-4-vcpus", &[]),
            ("4.17", "pv-domu", &[]),
            ("4.17", "pvh-dom0", &[]),
        ]));
        let columns =
            matrix.columns.iter().map(|it| (it.xen.as_str(), it.mode.as_str(), it.guests));
        let expected = [
            ("4.17", "pv-domu", 1),
            ("4.17", "pvh-dom0", 2),
            ("4.17", "other", 1),
            ("4.20", "pvh-dom0", 1),
        ];
        assert_eq!(columns.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_failure_in_one_guest_is_the_outcome_of_its_column() {
        let matrix = of(&boots(&[
            ("4.17", "pv-domu", &[("a", Passed, ""), ("b", Skipped, "no"), ("c", Skipped, "no")]),
            ("4.17", "pv-domu-2", &[("a", Failed, "why"), ("b", Passed, "")]),
        ]));
        let outcomes = matrix.rows.iter().map(|row| (row.name.as_str(), row.cells[0].outcome));
        let expected = [("a", Some(Failed)), ("b", Some(Passed)), ("c", Some(Skipped))];
        assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn equal_reasons_are_one_with_their_guests() {
        let both = [("a", Skipped, "x")];
        let matrix = of(&boots(&[
            ("4.17", "pv-domu", &both),
            ("4.20", "pv-domu", &both),
            ("4.20", "pvh-domu", &[("a", Failed, "y")]),
        ]));
        let [failed, skipped] = &matrix.rows[0].reasons[..] else { panic!("{matrix:?}") };
        assert_eq!((failed.text.as_str(), failed.outcome), ("y", Failed));
        assert_eq!(
            (skipped.places.as_str(), failed.places.as_str()),
            ("pv-domu", "pvh-domu on 4.20")
        );
    }

    #[test]
    fn a_test_that_a_guest_does_not_have_has_an_empty_cell() {
        let matrix = of(&boots(&[
            ("4.17", "pv-domu", &[("a", Passed, "")]),
            ("4.17", "pv-dom0", &[("b", Passed, "")]),
        ]));
        assert_eq!(matrix.rows[0].cells[1].outcome, None);
        assert_eq!(matrix.rows[1].cells[0].outcome, None);
    }
}
