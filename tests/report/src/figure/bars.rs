//! Horizontal bars, each with its label above it, so that they fit a narrow screen.

use plotters::prelude::*;

use super::axis::{Axis, ticks, whole_ticks};
use super::canvas::{AXIS, Area, COLUMN, Drawn, INK, Series, draw, is_narrow, rows, why, words};

/// A picture of bars.
#[derive(Clone, Debug)]
pub struct BarChart {
    /// What the picture shows.
    pub title: String,
    /// How it is read.
    pub caption: String,
    /// The unit of the values.
    pub axis: String,
    /// The scale of the values.
    pub scale: Scale,
    /// Names of the series for the legend, if there is one.
    pub series: Vec<(Series, String)>,
    /// The bars, from top to bottom.
    pub bars: Vec<Bar>,
}

/// Bars under one label.
#[derive(Clone, Debug)]
pub struct Bar {
    /// The label.
    pub label: String,
    /// The values, from top to bottom.
    pub values: Vec<(Series, f64)>,
    /// Words after the longest bar.
    pub note: String,
}

/// The scale of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// From the power of ten below the least value.
    Logarithmic,
}

/// Heights, in pixels.
const LABEL: i32 = 18;
const BAR: i32 = 9;
const GAP: i32 = 10;
const LEGEND: i32 = 28;

impl BarChart {
    /// Draws the picture.
    pub fn draw(&self) -> Drawn {
        let height = self.bars.iter().map(height).sum::<i32>() as u32 + self.legend() as u32 + AXIS;
        draw(&self.title, &self.caption, COLUMN, |_| height, |area| self.paint(area))
    }

    fn legend(&self) -> i32 {
        if self.series.is_empty() { 4 } else { LEGEND }
    }

    fn paint(&self, area: &Area<'_>) -> Result<(), String> {
        let (width, _) = area.dim_in_pixel();
        let values = || self.bars.iter().flat_map(|bar| &bar.values).map(|(_, value)| *value);
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(1.0, f64::max));
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1.0).log10(),
        };
        let from = if self.scale == Scale::Linear { 0.0 } else { at(least).floor() };
        // Room for the words after the longest bar.
        let longest =
            self.bars.iter().map(|bar| bar.note.chars().count()).max().unwrap_or(0) as u32;
        let room = f64::from(width - 20) / f64::from((width - 20).saturating_sub(longest * 8 + 12));
        let to = from + (at(most) - from).max(0.1) * room;
        let x = match self.scale {
            Scale::Linear => {
                Axis::new(from, to, ticks(from, to, if is_narrow(area) { 4 } else { 8 }), short)
            }
            Scale::Logarithmic => {
                Axis::new(from, to, whole_ticks(from, to), |power| short(10f64.powf(power)))
            }
        };
        let top = self.legend();
        let chart = rows(area, x, top, &self.axis)?;
        self.paint_legend(area)?;

        let plot = chart.plotting_area();
        let (left, _) = plot.get_pixel_range();
        let pixel = |value: f64| plot.map_coordinate(&(at(value).max(from), 0)).0;
        let mut y = top;
        for bar in &self.bars {
            area.draw(&Text::new(bar.label.clone(), (left.start, y + 8), words(INK)))
                .map_err(why)?;
            let middle = y + LABEL + BAR * bar.values.len() as i32 / 2;
            let mut end = left.start;
            for (index, (series, value)) in bar.values.iter().enumerate() {
                let y = y + LABEL + BAR * index as i32;
                let x = pixel(*value).max(left.start + 1);
                let corners = [(left.start, y), (x, y + BAR - 1)];
                area.draw(&Rectangle::new(corners, series.fill().filled())).map_err(why)?;
                area.draw(&Rectangle::new(corners, series.line().stroke_width(1))).map_err(why)?;
                end = end.max(x);
            }
            area.draw(&Text::new(bar.note.clone(), (end + 6, middle), words(INK))).map_err(why)?;
            y += self::height(bar);
        }
        Ok(())
    }

    fn paint_legend(&self, area: &Area<'_>) -> Result<(), String> {
        let mut x = 16;
        for (series, name) in &self.series {
            let corners = [(x, 4), (x + 18, 14)];
            area.draw(&Rectangle::new(corners, series.fill().filled())).map_err(why)?;
            area.draw(&Rectangle::new(corners, series.line().stroke_width(1))).map_err(why)?;
            area.draw(&Text::new(name.clone(), (x + 25, 9), words(INK))).map_err(why)?;
            x += 45 + 8 * name.chars().count() as i32;
        }
        Ok(())
    }
}

fn height(bar: &Bar) -> i32 {
    LABEL + BAR * bar.values.len() as i32 + GAP
}

/// Returns a number in few letters: `10k`.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, bars: Vec<Bar>) -> BarChart {
        let series = vec![(Series::Other, "Linux".to_owned())];
        let (title, caption, axis) = ("t".to_owned(), "c".to_owned(), "ticks".to_owned());
        BarChart { title, caption, axis, scale, series, bars }
    }

    fn bar(label: &str, value: f64) -> Bar {
        let values = vec![(Series::Own, value), (Series::Other, value / 2.0)];
        Bar { label: label.to_owned(), values, note: "2.0×".to_owned() }
    }

    #[test]
    fn every_bar_has_label_note_and_a_rectangle_per_value() {
        let bars = vec![bar("order 0", 1000.0), bar("order <9>", 3_000_000.0)];
        let figure = chart(Scale::Logarithmic, bars).draw().unwrap();
        for word in ["order 0", "order &lt;9&gt;", "2.0×", "Linux", "10k", "1M", "ticks"] {
            assert!(figure.wide.contains(word), "{word} is not in {}", figure.wide);
        }
        let areas = figure.wide.matches("fill=\"var(--own)\" stroke=\"none\"").count();
        assert_eq!(areas, 2);
    }

    #[test]
    fn a_chart_without_bars_or_values_is_drawn() {
        assert!(chart(Scale::Linear, Vec::new()).draw().is_ok());
        assert!(chart(Scale::Linear, vec![bar("a", 0.0)]).draw().is_ok());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 500.0, 10_000.0, 2_500_000.0].map(short), ["0", "500", "10k", "2.5M"]);
    }
}
