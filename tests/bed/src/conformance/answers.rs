//! What Xen answered the hypercalls of a test, from the lines of its trace. `docs/TRACING.md`
//! describes the lines.

use std::collections::{BTreeMap, BTreeSet};

use trace::{CallResult, Trace};

/// The hypercalls that rows are about, as a trace names them.
const OPERATIONS: [&str; 5] = [
    "exchange",
    "decrease_reservation",
    "increase_reservation",
    "populate_physmap",
    "get_mem_type",
];

/// A hypercall and what Xen answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One of [`OPERATIONS`].
    pub operation: &'static str,
    /// The name of the errno; `None` if the call succeeded.
    pub errno: Option<String>,
    /// `nr_exchanged` after an exchange. Of another call that succeeded, what it returned.
    pub done: u64,
}

impl Answer {
    /// Reads a line of a trace: `# trace … memory_op exchange in=8 … -> -EINVAL done=0`. Returns the answer,
    /// and how often it came in a row.
    pub fn read(line: &str) -> Option<(Self, u64)> {
        let trace = Trace::parse(line.strip_prefix("# trace ").map(|_| line)?.as_bytes());
        let call = trace.boots.first()?.calls.first()?;
        // A batch has no answer of each of its calls.
        if !matches!(call.hypercall.as_str(), "memory_op" | "hvm_op") {
            return None;
        }
        let name = call.operation()?;
        let operation = OPERATIONS.into_iter().find(|operation| *operation == name)?;
        let returned = match call.result {
            CallResult::Value(value) => u64::try_from(value).ok(),
            _ => None,
        };
        let errno = call.result.errno().map(str::to_owned);
        Some((Self { operation, errno, done: call.done.or(returned).unwrap_or(0) }, call.times))
    }
}

/// How often each answer came, in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(Vec<(Answer, u64)>);

impl Answers {
    /// Counts the answers of another test.
    pub fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|(answer, times)| self.add(answer.clone(), *times));
    }

    /// Counts an answer that came `times` times.
    pub fn add(&mut self, answer: Answer, times: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, count)) => *count += times,
            None => self.0.push((answer, times)),
        }
    }

    /// Iterates over the answers and how often each came, in the order in which they came first.
    pub fn iter(&self) -> impl Iterator<Item = &(Answer, u64)> {
        self.0.iter()
    }

    /// Returns the answers to `operation` in a few words, such as `EINVAL(0) ok(8)`. An answer that
    /// `expected` names comes first, or a success if it names none of them; then the more frequent one.
    /// Empty if there are none.
    pub fn in_short(&self, operation: &str, expected: &str) -> String {
        let mut by_name: BTreeMap<&str, (u64, BTreeSet<u64>)> = BTreeMap::new();
        for (answer, times) in self.0.iter().filter(|(answer, _)| answer.operation == operation) {
            let name = answer.errno.as_deref().unwrap_or(SUCCESS);
            let (count, done) = by_name.entry(name).or_default();
            *count += times;
            done.insert(answer.done);
        }
        let is_named = by_name.keys().any(|name| expected.contains(name));
        let is_expected = |name: &str| match is_named {
            true => expected.contains(name),
            false => name == SUCCESS,
        };
        let mut names: Vec<_> = by_name.into_iter().collect();
        names.sort_by_key(|(name, (count, _))| (!is_expected(name), u64::MAX - count));
        let words = names.iter().map(|(name, (_, done))| format!("{name}({})", numbers(done)));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// The word for a call that succeeded.
const SUCCESS: &str = "ok";

/// Returns at most three numbers, the lowest two and the highest if there are more.
fn numbers(all: &BTreeSet<u64>) -> String {
    let mut words: Vec<String> = all.iter().map(|number| short(*number)).collect();
    if let [first, second, .., last] = &words[..]
        && words.len() > 3
    {
        words = vec![first.clone(), second.clone(), format!("…{last}")];
    }
    words.join(",")
}

/// Returns the number, in a form that a column has room for.
fn short(number: u64) -> String {
    match number {
        u64::MAX => "2^64-1".to_owned(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(operation: &'static str, errno: Option<&str>, done: u64) -> Answer {
        Answer { operation, errno: errno.map(str::to_owned), done }
    }

    #[test]
    fn an_answer_is_read_from_a_line_of_the_trace() {
        let read = |line: &str| Answer::read(&format!("# trace v0 #1 @0.000000002 +3 - {line}"));
        let exchange = "memory_op exchange in=1 in_order=0 exchanged=2 -> -EINVAL done=2";
        assert_eq!(read(exchange), Some((answer("exchange", Some("EINVAL"), 2), 1)));
        let most = "memory_op exchange in=8 -> 0 done=18446744073709551615 times=3";
        assert_eq!(read(most), Some((answer("exchange", None, u64::MAX), 3)));
        let populate = "memory_op populate_physmap extents=4 -> 3";
        assert_eq!(read(populate), Some((answer("populate_physmap", None, 3), 1)));
        let kind = "hvm_op get_mem_type pfn=0x1 -> 2";
        assert_eq!(read(kind), Some((answer("get_mem_type", None, 2), 1)));
        assert_eq!(read("memory_op current_reservation -> 9"), None);
        assert_eq!(read("multicall entries=3 exchange out_order=3 -> 0 done=2"), None);
        assert_eq!(Answer::read("memory_op exchange -> 0"), None);
    }

    #[test]
    fn the_expected_answer_comes_first() {
        let mut answers = Answers::default();
        answers.add(answer("exchange", None, 8), 3);
        answers.add(answer("exchange", Some("EINVAL"), 0), 5);
        answers.add(answer("exchange", Some("EPERM"), 0), 1);
        answers.add(answer("populate_physmap", None, 1), 1);
        assert_eq!(answers.in_short("exchange", "EPERM above"), "EPERM(0) EINVAL(0) ok(8)");
        assert_eq!(answers.in_short("exchange", "exchanged"), "ok(8) EINVAL(0) EPERM(0)");
        assert_eq!(answers.in_short("decrease_reservation", ""), "");
    }

    #[test]
    fn many_counts_are_shortened() {
        let mut answers = Answers::default();
        for done in [7, 2, u64::MAX, 3] {
            answers.add(answer("exchange", None, done), 1);
        }
        assert_eq!(answers.in_short("exchange", ""), "ok(2,3,…2^64-1)");
    }
}
