//! The rows of the table: what is measured, and what is to be reached.

use std::fmt;

/// What is measured: `<pattern>:<order>:<bits>:<count>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchEntry {
    /// The pattern, such as `cycle-far`.
    pub pattern: String,
    /// The order of a buffer.
    pub order: u32,
    /// Address bits of the device.
    pub bits: u32,
    /// How often.
    pub count: u32,
}

impl fmt::Display for BenchEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, order, bits, count } = self;
        write!(f, "{pattern}:{order}:{bits}:{count}")
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What is measured here.
    pub here: BenchEntry,
    /// What it is compared with; nothing where Linux has no such operation.
    pub linux: Option<BenchEntry>,
    /// How many times as much Linux should need.
    pub target: Option<f64>,
}

/// The mask of the rows that exchange: 1 GiB, half of the machine's memory.
const BITS: u32 = 30;

/// The highest order that is measured. Linux serves no higher one.
const HIGHEST: u32 = 10;

/// 2 MiB: the highest order that Xen gives a plain domU.
const LARGE: u32 = 9;

/// Returns all rows, in the order in which they are measured.
///
/// The patterns `-far` come last: the frames that a guest sets aside for them are the first that it
/// hands out afterwards.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend((0..=HIGHEST).map(|order| row("cycle", order, BITS, 64, cycle_target(order))));
    rows.push(row("cycle", 0, 64, 64, 1.3));
    rows.push(row("cycle", LARGE, 64, 64, 15.0));
    rows.push(row("hold", 0, BITS, 512, 2.0));
    rows.push(row("hold", 0, BITS, 64, 1.5));
    rows.push(row("hold", 2, 32, 64, 1.5));
    rows.push(row("hold", 4, 64, 64, 2.5));
    rows.push(Row { target: None, ..row("churn", 4, BITS, 10_000, 0.0) });
    rows.extend((0..=HIGHEST).map(|order| row("cycle-far", order, BITS, 64, cycle_target(order))));
    rows.push(row("hold-far", 0, BITS, 512, 2.0));
    rows.push(row("hold-far", 0, BITS, 64, 1.5));
    rows.push(row("hold-far", LARGE, BITS, 8, 1.5));
    rows.push(row("churn-far", 4, BITS, 10_000, 3.0));
    rows.extend((0..=HIGHEST).map(strict));
    rows.extend([0, 4, LARGE].map(bare));
    rows
}

fn entry(pattern: &str, order: u32, bits: u32, count: u32) -> BenchEntry {
    BenchEntry { pattern: pattern.to_owned(), order, bits, count }
}

fn row(pattern: &str, order: u32, bits: u32, count: u32, target: f64) -> Row {
    let here = entry(pattern, order, bits, count);
    Row { linux: Some(here.clone()), here, target: Some(target) }
}

/// Linux has no reserve, so each of its operations exchanges where the mask requires it.
fn strict(order: u32) -> Row {
    let linux = Some(entry("cycle", order, BITS, 64));
    Row { here: entry("strict", order, BITS, 64), linux, target: Some(strict_target(order)) }
}

fn bare(order: u32) -> Row {
    Row { here: entry("bare", order, BITS, 64), linux: None, target: None }
}

fn cycle_target(order: u32) -> f64 {
    match order {
        0..=3 => 5.0,
        4..=8 => 8.0,
        _ => 15.0,
    }
}

fn strict_target(order: u32) -> f64 {
    match order {
        0..=3 => 1.0,
        4..=8 => 1.15,
        _ => 1.6,
    }
}

/// Returns the words of `bench=` for these entries, each once.
pub fn list<'r>(entries: impl IntoIterator<Item = &'r BenchEntry>) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in entries.into_iter().map(BenchEntry::to_string) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_listed_once_for_linux() {
        let rows = all();
        let linux = list(rows.iter().filter_map(|row| row.linux.as_ref()));
        assert!(linux.starts_with("cycle:0:30:64,cycle:1:30:64,"), "{linux}");
        assert_eq!(linux.matches("cycle:9:30:64").count(), 1, "{linux}");
        assert!(!linux.contains("strict") && !linux.contains("bare"), "{linux}");
    }

    #[test]
    fn a_guest_s_command_line_holds_the_list() {
        // Xen copies 1,023 bytes.
        let here = list(all().iter().map(|row| &row.here));
        assert!(here.len() < 900, "{} bytes", here.len());
    }

    #[test]
    fn targets_follow_the_order() {
        assert_eq!([0, 3, 4, 8, 9, 10].map(cycle_target), [5.0, 5.0, 8.0, 8.0, 15.0, 15.0]);
        assert_eq!([0, 3, 4, 8, 9, 10].map(strict_target), [1.0, 1.0, 1.15, 1.15, 1.6, 1.6]);
    }
}
