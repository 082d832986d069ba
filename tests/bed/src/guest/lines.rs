//! The lines of a log, shortened without a loss that goes unnoticed: equal lines fold, and a cut
//! is named at its place.

/// The lines of a log so far.
#[derive(Clone, Debug, Default)]
pub struct LogLines {
    lines: Vec<String>,
    /// How often the last line came again.
    again: u64,
}

/// The lines that [`Ktap`](super::Ktap) reads. Each counts, so they are never folded.
const KTAP: [&str; 5] = ["ok ", "not ok ", "1..", "KTAP version ", "Test result: "];

const CUT: (&str, &str) = ("[bed: ", " bytes cut here]");

const LOST: (&str, &str) =
    ("[bed: Xen's log filled its ring of ", " bytes (conring_size=): earlier lines are lost here]");

impl LogLines {
    /// Adds a line. A line that equals the last one is only counted, unless it is KTAP.
    pub fn push(&mut self, line: &str) {
        let is_ktap = KTAP.iter().any(|start| line.starts_with(start));
        if !is_ktap && self.lines.last().is_some_and(|last| last == line) {
            self.again += 1;
        } else {
            self.fold();
            self.lines.push(line.to_owned());
        }
    }

    /// Records that the last line came `times` more.
    pub fn push_again(&mut self, times: u64) {
        self.again += times;
    }

    /// Records that `bytes` bytes are missing here.
    pub fn push_cut(&mut self, bytes: u64) {
        self.fold();
        let (before, after) = CUT;
        self.lines.push(format!("{before}{}{after}", grouped(bytes)));
    }

    /// Records that Xen dropped lines here, because its ring of `bytes` bytes was full.
    pub fn push_lost(&mut self, bytes: u64) {
        self.fold();
        let (before, after) = LOST;
        self.lines.push(format!("{before}{}{after}", grouped(bytes)));
    }

    /// Returns the lines, with a line for each fold and each cut.
    pub fn into_lines(mut self) -> Vec<String> {
        self.fold();
        self.lines
    }

    fn fold(&mut self) {
        match std::mem::take(&mut self.again) {
            0 => {}
            1 => self.lines.extend(self.lines.last().cloned()),
            times => {
                self.lines.push(format!("… the line above came {} more times", grouped(times)));
            }
        }
    }
}

/// Returns true if the bed wrote the line to name a cut.
pub fn names_a_cut(line: &str) -> bool {
    [CUT, LOST].iter().any(|(before, after)| line.starts_with(before) && line.ends_with(after))
}

/// Writes a number with a comma between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(of: &[&str]) -> Vec<String> {
        let mut log = LogLines::default();
        of.iter().for_each(|line| log.push(line));
        log.into_lines()
    }

    #[test]
    fn equal_lines_fold_into_one_and_a_count() {
        assert_eq!(
            lines(&["a", "b", "b", "b", "a"]),
            ["a", "b", "… the line above came 2 more times", "a"]
        );
        assert_eq!(lines(&["b", "b", "b", "b"])[1..], ["… the line above came 3 more times"]);
    }

    #[test]
    fn a_line_that_came_twice_is_printed_twice() {
        assert_eq!(lines(&["", "", "x"]), ["", "", "x"]);
    }

    #[test]
    fn ktap_is_never_folded() {
        for line in ["ok 1 a", "not ok 1 a", "1..2", "KTAP version 1", "Test result: SUCCESS"] {
            assert_eq!(lines(&[line; 3]), [line; 3]);
        }
    }

    #[test]
    fn a_cut_says_how_much_is_missing() {
        let mut log = LogLines::default();
        log.push("a");
        log.push_again(14_916);
        log.push_cut(1_234_567);
        let lines = log.into_lines();
        assert_eq!(
            lines[1..],
            ["… the line above came 14,916 more times", "[bed: 1,234,567 bytes cut here]"]
        );
        assert!(names_a_cut(&lines[2]) && !names_a_cut(&lines[1]));
        let mut log = LogLines::default();
        log.push_lost(8_388_608);
        let lines = log.into_lines();
        assert!(names_a_cut(&lines[0]) && lines[0].contains("8,388,608 bytes"), "{lines:?}");
    }
}
