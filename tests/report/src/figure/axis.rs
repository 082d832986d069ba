//! An axis with ticks at given values.

use std::ops::Range;

use plotters::coord::ranged1d::{
    KeyPointHint, NoDefaultFormatting, Ranged, ReversibleRanged, ValueFormatter,
};
use plotters::coord::types::RangedCoordf64;

/// A range of values, the values that have a line and a number, and how the numbers are written.
#[derive(Clone)]
pub struct Axis {
    range: RangedCoordf64,
    ticks: Vec<f64>,
    write: fn(f64) -> String,
}

impl Axis {
    /// Makes an axis from `from` to `to`.
    pub fn new(from: f64, to: f64, ticks: Vec<f64>, write: fn(f64) -> String) -> Self {
        Self { range: (from..to).into(), ticks, write }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.range()
    }
}

impl ReversibleRanged for Axis {
    fn unmap(&self, pixel: i32, limit: (i32, i32)) -> Option<f64> {
        self.range.unmap(pixel, limit)
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.write)(*value)
    }
}

/// Returns round numbers in a range, about `count` of them at most: a power of two apart.
pub fn binary_ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    multiples(from, to, 2f64.powf(least(from, to, count).log2().ceil()).max(1.0))
}

/// Returns round numbers in a range, about `count` of them at most: 1, 2 or 5 times a power of ten apart.
pub fn ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let least = least(from, to, count);
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least);
    multiples(from, to, factor.unwrap_or(10.0) * power)
}

/// Returns every whole number in a range.
pub fn whole_ticks(from: f64, to: f64) -> Vec<f64> {
    multiples(from, to, 1.0)
}

fn least(from: f64, to: f64, count: usize) -> f64 {
    ((to - from) / count.max(1) as f64).max(f64::MIN_POSITIVE)
}

fn multiples(from: f64, to: f64, step: f64) -> Vec<f64> {
    let (first, last) = ((from / step).ceil(), (to / step).floor());
    let count = (last - first).clamp(-1.0, 63.0) as i64;
    (0..=count).map(|index| (first + index as f64) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 100.0, 4), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(3.0, 11.0, 5), [4.0, 6.0, 8.0, 10.0]);
        assert_eq!(whole_ticks(2.5, 4.0), [3.0, 4.0]);
        let hex = binary_ticks(f64::from(0x400), f64::from(0x47f), 4);
        assert_eq!(hex, [1024.0, 1056.0, 1088.0, 1120.0]);
    }

    #[test]
    fn a_range_without_a_round_number_has_no_tick() {
        assert!(whole_ticks(0.2, 0.8).is_empty());
    }
}
