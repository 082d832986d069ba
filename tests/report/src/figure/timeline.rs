//! The timeline of a transaction: a bar per phase, with its hypercalls.

use plotters::prelude::*;

use super::axis::{Axis, ticks};
use super::canvas::{AXIS, Area, Drawn, INK, OWN, PALE, WHOLE, draw, is_narrow, rows, why, words};

/// A part of a transaction. Times are in ns since the transaction began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it began.
    pub start: u64,
    /// How long it took.
    pub duration: u64,
    /// How many hypercalls it made.
    pub count: u64,
    /// When each of the hypercalls that were traced began, and how long it took.
    pub calls: Vec<(u64, u64)>,
}

/// Heights, in pixels.
const LABEL: i32 = 20;
const BAR: i32 = 16;
const GAP: i32 = 12;

/// Draws the phases of a transaction that took `duration` ns.
pub fn timeline(title: &str, caption: &str, duration: u64, phases: &[Phase]) -> Drawn {
    let height = (LABEL + BAR + GAP) as u32 * phases.len() as u32 + AXIS + 4;
    draw(title, caption, WHOLE, |_| height, |area| paint(area, duration, phases))
}

fn paint(area: &Area<'_>, duration: u64, phases: &[Phase]) -> Result<(), String> {
    let (width, _) = area.dim_in_pixel();
    let end = phases.iter().map(|phase| phase.start.saturating_add(phase.duration)).max();
    let end = duration.max(end.unwrap_or(0)).max(1);
    let (unit, name) = match end {
        0..10_000 => (1.0, "ns"),
        10_000..10_000_000 => (1e3, "µs"),
        _ => (1e6, "ms"),
    };
    let scaled = |ns: u64| ns as f64 / unit;
    let to = scaled(end);
    let count = if is_narrow(area) { 4 } else { 8 };
    let x = Axis::new(0.0, to, ticks(0.0, to, count), |time| format!("{time}"));
    let chart = rows(area, x, 4, &format!("{name} since the transaction began"))?;
    let plot = chart.plotting_area();
    let pixel = |ns: u64| plot.map_coordinate(&(scaled(ns), 0)).0;
    let mut y = 4;
    for phase in phases {
        let label = format!("{}: {}, {}", phase.name, time(phase.duration), calls(phase));
        // The label begins with its bar, or earlier if it would be cut on the right.
        let room = width as i32 - 16 - label.chars().count() as i32 * 8;
        let x = pixel(phase.start).min(room).max(16);
        area.draw(&Text::new(label, (x, y + 9), words(INK))).map_err(why)?;
        let y_bar = y + LABEL;
        let bar = |start: u64, duration: u64, inset: i32| {
            let left = pixel(start);
            let right = pixel(start.saturating_add(duration)).max(left + 2);
            [(left, y_bar + inset), (right, y_bar + BAR - inset)]
        };
        let whole = bar(phase.start, phase.duration, 0);
        area.draw(&Rectangle::new(whole, PALE.filled())).map_err(why)?;
        for (start, duration) in &phase.calls {
            area.draw(&Rectangle::new(bar(*start, *duration, 4), OWN.filled())).map_err(why)?;
        }
        area.draw(&Rectangle::new(whole, OWN.stroke_width(1))).map_err(why)?;
        y += LABEL + BAR + GAP;
    }
    Ok(())
}

fn calls(phase: &Phase) -> String {
    match phase.count {
        0 => "no hypercall".to_owned(),
        1 => "1 hypercall".to_owned(),
        count => format!("{count} hypercalls"),
    }
}

/// Returns a duration with three digits and its unit.
pub fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_its_bar_and_every_hypercall_one_in_it() {
        let phase = |name: &str, start, calls: &[(u64, u64)]| Phase {
            name: name.to_owned(),
            start,
            duration: 1000,
            count: calls.len() as u64,
            calls: calls.to_vec(),
        };
        let phases = [phase("plan", 0, &[]), phase("exchange", 1000, &[(1100, 5), (1500, 300)])];
        let figure = timeline("t", "c", 2500, &phases).unwrap();
        for words in ["plan: 1.0 µs, no hypercall", "exchange: 1.0 µs, 2 hypercalls", "ns since"]
        {
            assert!(figure.narrow.contains(words), "{words} is not in {}", figure.narrow);
        }
        assert_eq!(figure.wide.matches("fill=\"var(--pale)\"").count(), 2);
        assert_eq!(figure.wide.matches("fill=\"var(--own)\" stroke=\"none\"").count(), 2);
    }

    #[test]
    fn hostile_times_are_drawn() {
        let (start, duration) = (u64::MAX, u64::MAX);
        let (name, calls) = ("<x>".to_owned(), vec![(0, u64::MAX)]);
        let phase = Phase { name, start, duration, count: u64::MAX, calls };
        assert!(timeline("t", "c", 0, &[phase]).is_ok());
        assert!(timeline("t", "c", 0, &[]).is_ok());
    }

    #[test]
    fn durations_have_three_digits() {
        let all = [999, 1_500, 262_144, 41_000_000, 2_000_000_000].map(time);
        assert_eq!(all, ["999 ns", "1.5 µs", "262 µs", "41.0 ms", "2.0 s"]);
    }
}
