//! Times and frames as people read them.

use xen_contig_trace::{FrameRuns, TracedCall};

/// The number of runs of frames that a short list shows at most.
const RUNS: usize = 4;

/// Prints a duration with the unit that leaves one to three digits before the point.
pub fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s "), (1_000_000, "ms"), (1_000, "µs")];
    let unit = UNITS.into_iter().find(|(size, _)| ns >= *size);
    match unit {
        // Whole numbers: a float would round 999.9996 µs to 1000.000 µs.
        Some((size, name)) => {
            format!("{}.{:03} {name}", ns / size, ns % size / (size / 1000))
        }
        None => format!("{ns} ns"),
    }
}

/// Prints a time in ns as seconds with 9 decimals.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// Prints how frames moved, `0x7d000+8 => 0x7fc50+8 at 0x400+8`, or nothing if none are known.
pub fn frames(call: &TracedCall, all: bool) -> Option<String> {
    let list = |runs: &FrameRuns| if all { runs.to_string() } else { short(runs) };
    let (given, taken) = (&call.frames_in, &call.frames_out);
    let moved = match (given.is_empty(), taken.is_empty()) {
        (false, false) => format!("{} => {}", list(given), list(taken)),
        (false, true) if call.operation() == Some("decrease_reservation") && !call.is_error() => {
            format!("{} => Xen", list(given))
        }
        (false, true) => format!("{} => none", list(given)),
        (true, false) => format!("Xen => {}", list(taken)),
        (true, true) if call.frames_at.is_empty() => return None,
        (true, true) => return Some(format!("at {}", list(&call.frames_at))),
    };
    if call.frames_at.is_empty() {
        return Some(moved);
    }
    Some(format!("{moved} at {}", list(&call.frames_at)))
}

/// Prints the first runs and the number of all other frames.
fn short(list: &FrameRuns) -> String {
    if list.runs.len() <= RUNS {
        return list.to_string();
    }
    let (shown, _) = list.runs.split_at(RUNS - 1);
    let shown = FrameRuns { runs: shown.to_vec(), cut: 0 };
    format!("{shown} ({} frames more)", list.frames() - shown.frames())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_keeps_its_digits() {
        assert_eq!(duration(0), "0 ns");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(41_250), "41.250 µs");
        assert_eq!(duration(999_999), "999.999 µs");
        assert_eq!(duration(1_000_000), "1.000 ms");
        assert_eq!(duration(61_000_000_000), "61.000 s ");
    }

    #[test]
    fn a_time_has_nine_decimals() {
        assert_eq!(seconds(8_033_075_006), "8.033075006");
        assert_eq!(seconds(5), "0.000000005");
    }
}
