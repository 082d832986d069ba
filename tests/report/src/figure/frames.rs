//! The frame map: which machine frame backs each pseudo-physical frame, before and after an exchange.

use plotters::prelude::*;

use super::axis::{Axis, binary_ticks};
use super::canvas::{Area, Drawn, INK, Series, WHOLE, draw, is_narrow, styled, why, words};

/// Frames that are next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first frame.
    pub first: u64,
    /// How many there are.
    pub count: u64,
}

/// What an exchange did to the memory of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameMap {
    /// The pseudo-physical frames.
    pub at: Vec<Run>,
    /// The machine frames that backed them before, in the same order.
    pub before: Vec<Run>,
    /// The machine frames that back them after, in the same order.
    pub after: Vec<Run>,
    /// How many bits the addresses of the new frames may have, if there is a limit.
    pub bits: Option<u32>,
}

/// A run of pseudo-physical frames that a run of machine frames backs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    at: u64,
    machine: u64,
    count: u64,
}

/// Of more frames than these, runs are drawn as lines.
const DOTS: u64 = 64;

/// Runs that would be a shorter line, in pixels, are a dot.
const SHORTEST: f64 = 8.0;

/// Bits of an address within a frame.
const FRAME_BITS: u32 = 12;

impl FrameMap {
    /// Draws the picture.
    pub fn draw(&self, title: &str, caption: &str) -> Drawn {
        let height = |width| if width > 400 { 420 } else { 640 };
        draw(title, caption, WHOLE, height, |area| self.paint(area))
    }

    fn paint(&self, area: &Area<'_>) -> Result<(), String> {
        let parts = if is_narrow(area) { (2, 1) } else { (1, 2) };
        let panels = area.split_evenly(parts);
        let machine = || self.before.iter().chain(&self.after);
        let (x, y) = (range(self.at.iter()), range(machine()));
        let limit = self.limit(y);
        let y = (y.0, y.1.max(limit.map_or(0.0, |(frame, _)| frame + (y.1 - y.0) / 15.0)));
        for (panel, name, series, machine) in [
            (&panels[0], "before", Series::Other, &self.before),
            (&panels[1], "after", Series::Own, &self.after),
        ] {
            let mapped = mapped(&self.at, machine);
            let title = format!("{name}: {} in the machine", runs(&mapped));
            Panel { title, series, mapped, x, y, limit }.paint(panel)?;
        }
        Ok(())
    }

    /// Returns the first frame above the limit and its bits, if that is near the frames.
    fn limit(&self, (low, high): (f64, f64)) -> Option<(f64, u32)> {
        let bits = self.bits.filter(|bits| (FRAME_BITS..64).contains(bits))?;
        let frame = (1u64 << (bits - FRAME_BITS)) as f64;
        (low < frame && frame < high + (high - low) / 3.0).then_some((frame, bits))
    }
}

/// Pairs two lists of frames that are in the same order.
fn mapped(at: &[Run], machine: &[Run]) -> Vec<Mapped> {
    let (mut at, mut machine) = (at.iter().copied(), machine.iter().copied());
    let (mut here, mut there) = (at.next(), machine.next());
    let mut pairs = Vec::new();
    while let (Some(pseudo), Some(real)) = (here, there) {
        let count = pseudo.count.min(real.count);
        if count > 0 {
            pairs.push(Mapped { at: pseudo.first, machine: real.first, count });
        }
        here = pseudo.after(count).or_else(|| at.next());
        there = real.after(count).or_else(|| machine.next());
    }
    pairs
}

impl Run {
    /// Returns what remains after some frames.
    fn after(self, count: u64) -> Option<Self> {
        let remaining = self.count.checked_sub(count).filter(|count| *count > 0)?;
        Some(Self { first: self.first.saturating_add(count), count: remaining })
    }
}

/// Returns the frames from the first to the last one, with a margin of a twentieth.
fn range<'r>(runs: impl Iterator<Item = &'r Run> + Clone) -> (f64, f64) {
    let first = runs.clone().map(|run| run.first).min().unwrap_or(0);
    let last = runs.map(|run| run.first.saturating_add(run.count)).max().unwrap_or(1);
    let margin = (last - first) as f64 / 20.0 + 0.5;
    (first as f64 - margin, last as f64 + margin)
}

/// One of the two states.
struct Panel {
    title: String,
    series: Series,
    mapped: Vec<Mapped>,
    x: (f64, f64),
    y: (f64, f64),
    limit: Option<(f64, u32)>,
}

impl Panel {
    fn paint(&self, area: &Area<'_>) -> Result<(), String> {
        let Self { series, mapped, x: (left, right), y: (low, high), .. } = self;
        area.draw(&Text::new(self.title.clone(), (88, 12), words(INK))).map_err(why)?;
        let hex = |value| format!("{:#x}", value as u64);
        let xs = Axis::new(*left, *right, binary_ticks(left.max(0.0), *right, 3), hex);
        let ys = Axis::new(*low, *high, binary_ticks(low.max(0.0), *high, 6), hex);
        let mut chart = ChartBuilder::on(area)
            .margin_top(26)
            .margin_right(20)
            .margin_bottom(4)
            .x_label_area_size(44)
            .y_label_area_size(88)
            .build_cartesian_2d(xs, ys)
            .map_err(why)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_labels(4).y_labels(8).x_desc("pseudo-physical frame").y_desc("machine frame");
        styled(&mut mesh).draw().map_err(why)?;
        if let Some((frame, bits)) = self.limit {
            let ends = [(*left, frame), (*right, frame)];
            let line = plotters::element::DashedPathElement::new(ends, 6, 4, INK.stroke_width(1));
            chart.draw_series([line]).map_err(why)?;
            // Away from the frames.
            let are_above = mapped.iter().all(|mapped| mapped.machine as f64 >= frame);
            let offset = if are_above { 10 } else { -10 };
            let words = Text::new(format!("limit of {bits} bits"), (8, offset), words(INK));
            chart.draw_series([EmptyElement::at((*left, frame)) + words]).map_err(why)?;
        }
        let (colour, width) = match series {
            Series::Own => (series.line(), 5),
            Series::Other => (series.line(), 3),
        };
        let total = mapped.iter().fold(0u64, |sum, it| sum.saturating_add(it.count));
        // A line of a few pixels would hardly be seen.
        let pixels = f64::from(area.dim_in_pixel().0) / (right - left);
        let (dots, lines): (Vec<&Mapped>, Vec<&Mapped>) = mapped
            .iter()
            .partition(|mapped| total <= DOTS || (mapped.count as f64) * pixels < SHORTEST);
        for Mapped { at, machine, count } in lines {
            let ends = [(*at, *machine), (at + (count - 1), machine + (count - 1))];
            let ends = ends.map(|(at, machine)| (at as f64, machine as f64));
            let line = PathElement::new(ends, colour.stroke_width(width));
            chart.draw_series([line]).map_err(why)?;
        }
        let frames = dots.iter().flat_map(|it| {
            let shown = if total <= DOTS { it.count } else { 1 };
            (0..shown).map(|n| (it.at + n, it.machine + n))
        });
        let style = match series {
            Series::Own => colour.filled(),
            Series::Other => colour.stroke_width(2),
        };
        let circle = |(at, machine)| Circle::new((at as f64, machine as f64), 3, style);
        chart.draw_series(frames.map(circle)).map_err(why)?;
        Ok(())
    }
}

/// Returns how many runs of neighbours there are, in words.
fn runs(mapped: &[Mapped]) -> String {
    let are_neighbours = |pair: &&[Mapped]| pair[0].machine + pair[0].count == pair[1].machine;
    let joints = mapped.windows(2).filter(are_neighbours).count();
    match mapped.len().saturating_sub(joints) {
        1 => "one run".to_owned(),
        count => format!("{count} runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64) -> Run {
        Run { first, count }
    }

    #[test]
    fn two_lists_of_runs_are_paired_frame_by_frame() {
        let pairs = mapped(&[run(0x400, 4), run(0x500, 4)], &[run(9, 1), run(70, 5), run(20, 2)]);
        let tuples: Vec<_> = pairs.iter().map(|it| (it.at, it.machine, it.count)).collect();
        assert_eq!(tuples, [(0x400, 9, 1), (0x401, 70, 3), (0x500, 73, 2), (0x502, 20, 2)]);
        assert_eq!(runs(&pairs), "3 runs");
        assert_eq!(mapped(&[run(1, 3)], &[]), []);
    }

    #[test]
    fn the_picture_has_both_axes_and_a_dot_per_frame() {
        let map = FrameMap {
            at: vec![run(0x400, 8)],
            before: vec![run(0x9f3, 1), run(0x204, 3), run(0xa1c, 4)],
            after: vec![run(0x7c4, 8)],
            bits: Some(23),
        };
        let figure = map.draw("t", "c").unwrap();
        for svg in [figure.wide, figure.narrow] {
            for words in [
                "before: 3 runs",
                "after: one run",
                "machine frame",
                "0x400",
                "0x800",
                "limit of 23 bits",
            ] {
                assert!(svg.contains(words), "{words} is not in {svg}");
            }
            assert_eq!(svg.matches("<circle").count(), 16);
        }
    }

    #[test]
    fn a_hostile_range_is_drawn() {
        let whole = vec![run(0, u64::MAX)];
        let map = FrameMap {
            at: whole.clone(),
            before: whole.clone(),
            after: vec![run(5, 0)],
            bits: Some(64),
        };
        assert!(map.draw("t", "c").is_ok());
        let none = FrameMap { at: Vec::new(), before: Vec::new(), after: Vec::new(), bits: None };
        assert!(none.draw("t", "c").is_ok());
    }
}
