//! The conformance table, with what the model and each Xen really answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::places::Places;

/// A row of `conformance.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct AnsweredRow {
    row: String,
    stimulus: String,
    expected: String,
    model: Option<Tally>,
    xens: BTreeMap<String, BTreeMap<String, Option<Tally>>>,
}

/// What came of the tests of a row in one place.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Tally {
    passed: u32,
    failed: Vec<String>,
    skipped: Vec<String>,
    answers: Vec<Answer>,
}

#[derive(Clone, Debug, Deserialize)]
struct Answer {
    operation: String,
    errno: Option<String>,
    done: u64,
    times: u64,
}

/// The table.
#[derive(Clone, Debug, Serialize)]
pub struct Conformance {
    /// The rows.
    pub rows: Vec<Row>,
    /// The Xens that were asked.
    pub xens: Vec<String>,
    /// Rows with a test that failed.
    pub failed: usize,
    /// Rows that a real Xen was asked.
    pub real: usize,
    /// Rows that Xens or modes answered differently.
    pub different: usize,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub id: String,
    /// What is asked.
    pub stimulus: String,
    /// What the table says.
    pub expected: String,
    /// What the model answered.
    pub model: Option<Place>,
    /// What real Xens answered: one entry for all that answered the same.
    pub real: Vec<Place>,
    /// Whether Xens or modes answered differently.
    pub different: bool,
    /// `failed`, `passed` or `skipped`.
    pub outcome: &'static str,
}

/// What was answered in some places.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The modes and Xens; empty for the model.
    pub places: String,
    /// `failed`, `passed` or `skipped`.
    pub outcome: &'static str,
    /// The answers, those that the row expects first.
    pub answers: Vec<Shown>,
    /// Why a test failed or was skipped.
    pub reasons: Vec<String>,
}

/// Equal answers to one operation.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The operation.
    pub operation: String,
    /// The name of the errno, or `ok`.
    pub answer: String,
    /// What Xen had done, in a few numbers.
    pub done: String,
    /// How often the answer came.
    pub times: u64,
    /// Whether the row names this answer.
    pub expected: bool,
}

/// Makes the table of all answers.
pub fn of(rows: Vec<AnsweredRow>) -> Conformance {
    let rows_of = |rows: &[Row], is: fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
    let mut xens: Vec<String> = rows.iter().flat_map(|row| row.xens.keys().cloned()).collect();
    xens.sort();
    xens.dedup();
    let rows: Vec<Row> = rows.into_iter().map(|row| Row::of(row, &xens)).collect();
    Conformance {
        failed: rows_of(&rows, |row| row.outcome == "failed"),
        real: rows_of(&rows, |row| row.real.iter().any(|place| place.outcome != "skipped")),
        different: rows_of(&rows, |row| row.different),
        rows,
        xens,
    }
}

impl Row {
    fn of(row: AnsweredRow, all: &[String]) -> Self {
        let expected = row.expected;
        let model = row.model.map(|tally| Place::of(&tally, &expected));
        let mut real: Vec<(Place, Tally, Places)> = Vec::new();
        for (xen, modes) in row.xens {
            for (mode, tally) in modes {
                let Some(tally) = tally else { continue };
                let place = Place::of(&tally, &expected);
                match real.iter_mut().find(|(known, ..)| known.is_like(&place)) {
                    Some((known, sum, places)) => {
                        sum.add(tally);
                        *known = Place::of(sum, &expected);
                        places.add(&mode, &xen);
                    }
                    None => {
                        let mut places = Places::default();
                        places.add(&mode, &xen);
                        real.push((place, tally, places));
                    }
                }
            }
        }
        let named =
            |(place, _, places): (Place, _, Places)| Place { places: places.text(all), ..place };
        let real: Vec<Place> = real.into_iter().map(named).collect();
        let places = || model.iter().chain(&real);
        let outcome = ["failed", "passed"]
            .into_iter()
            .find(|outcome| places().any(|place| place.outcome == *outcome))
            .unwrap_or("skipped");
        let different = real.iter().filter(|place| place.outcome != "skipped").count() > 1;
        Self { id: row.row, stimulus: row.stimulus, expected, model, real, different, outcome }
    }
}

impl Place {
    fn of(tally: &Tally, expected: &str) -> Self {
        let outcome = match (tally.failed.len(), tally.passed) {
            (0, 0) => "skipped",
            (0, _) => "passed",
            _ => "failed",
        };
        let mut reasons: Vec<String> = tally.failed.clone();
        if outcome == "skipped" {
            reasons.extend(tally.skipped.iter().cloned());
        }
        reasons.sort();
        reasons.dedup();
        Self { places: String::new(), outcome, answers: tally.shown(expected), reasons }
    }

    /// Returns true if two places differ only in numbers that depend on the machine: how often an
    /// answer came, and how much a call that succeeded did.
    fn is_like(&self, other: &Self) -> bool {
        let words = |place: &Self| {
            let of_answer = |shown: &Shown| {
                let done = if shown.answer == SUCCESS { "" } else { &shown.done };
                format!("{} {} {done}", shown.operation, shown.answer)
            };
            let mut words: Vec<String> = place.answers.iter().map(of_answer).collect();
            words.sort();
            words
        };
        (self.outcome, &self.reasons) == (other.outcome, &other.reasons)
            && words(self) == words(other)
    }
}

/// The word for a call that succeeded.
const SUCCESS: &str = "ok";

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.answers.extend(other.answers);
    }

    fn shown(&self, expected: &str) -> Vec<Shown> {
        let mut by_answer: BTreeMap<(&str, &str), (u64, Vec<u64>)> = BTreeMap::new();
        for answer in &self.answers {
            let name = answer.errno.as_deref().unwrap_or(SUCCESS);
            let (times, done) = by_answer.entry((&answer.operation, name)).or_default();
            *times += answer.times;
            done.push(answer.done);
        }
        let shown = by_answer.into_iter().map(|((operation, answer), (times, done))| Shown {
            operation: operation.to_owned(),
            answer: answer.to_owned(),
            done: numbers(done),
            times,
            expected: answer != SUCCESS && expected.contains(answer),
        });
        let mut shown: Vec<Shown> = shown.collect();
        shown.sort_by_key(|shown| (!shown.expected, u64::MAX - shown.times));
        shown
    }
}

/// Returns at most three numbers, the lowest two and the highest if there are more.
fn numbers(mut all: Vec<u64>) -> String {
    all.sort_unstable();
    all.dedup();
    let short = |number: &u64| match number {
        &u64::MAX => "2^64−1".to_owned(),
        number => number.to_string(),
    };
    match &all[..] {
        [first, second, _, .., last] => format!("{first}, {second}, …{}", short(last)),
        few => few.iter().map(short).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tally(errno: Option<&str>, done: u64, failed: &[&str]) -> serde_json::Value {
        let answer = json!({"operation": "exchange", "errno": errno, "done": done, "times": 2});
        json!({"passed": 1, "failed": failed, "skipped": [], "answers": [answer]})
    }

    fn table(xens: serde_json::Value) -> Conformance {
        let row = json!({
            "row": "C02", "stimulus": "a", "expected": "`EPERM`", "model": null, "xens": xens,
        });
        of(vec![serde_json::from_value(row).unwrap()])
    }

    #[test]
    fn equal_answers_are_shown_once_with_their_modes_and_xens() {
        let table = table(json!({
            "4.17": {"pv-dom0": tally(Some("EPERM"), 0, &[]), "pvh-domu": null},
            "4.20": {"pv-dom0": tally(Some("EPERM"), 0, &[])},
        }));
        let [place] = &table.rows[0].real[..] else { panic!("{table:?}") };
        assert_eq!(place.places, "pv-dom0");
        assert_eq!((place.answers[0].times, place.answers[0].expected), (4, true));
        assert_eq!((table.real, table.different, table.failed), (1, 0, 0));
    }

    #[test]
    fn another_errno_is_another_answer_and_another_count_of_a_success_is_not() {
        let different = table(json!({"4.17": {
            "pv-dom0": tally(Some("EPERM"), 0, &[]), "pv-domu": tally(Some("EINVAL"), 0, &[]),
        }}));
        assert_eq!((different.rows[0].real.len(), different.different), (2, 1));
        let equal = table(json!({"4.17": {
            "pv-dom0": tally(None, 8, &[]), "pv-domu": tally(None, 4, &[]),
        }}));
        assert_eq!(equal.rows[0].real[0].answers[0].done, "4, 8");
        assert_eq!((equal.rows[0].real.len(), equal.different), (1, 0));
    }

    #[test]
    fn a_failure_is_the_outcome_of_its_row() {
        let table = table(json!({
            "4.17": {"pv-dom0": tally(None, 1, &[]), "pv-domu": tally(None, 1, &["c02-a: x"])},
        }));
        assert_eq!((table.rows[0].outcome, table.failed), ("failed", 1));
        assert_eq!(table.rows[0].real[1].reasons, ["c02-a: x"]);
    }

    #[test]
    fn many_numbers_are_shortened() {
        assert_eq!(numbers(vec![7, 2, u64::MAX, 3]), "2, 3, …2^64−1");
        assert_eq!(numbers(vec![7, 2, 7]), "2, 7");
    }
}
