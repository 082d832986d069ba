//! The lines `bench: …` of the image and of the module for Linux.

use std::str::FromStr;

use super::rows::BenchEntry;

/// What was measured of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchLine {
    /// The entry.
    pub entry: BenchEntry,
    /// Operations that succeeded.
    pub ok: u64,
    /// Allocations that exchanged memory with Xen.
    pub exchanged: u64,
    /// Ticks of an allocation, on average.
    pub alloc: u64,
    /// Ticks of a release, on average.
    pub free: u64,
    /// Ticks of the longest allocation.
    pub max: u64,
    /// Hypercalls in all. Linux does not count its own.
    pub calls: Option<u64>,
}

impl BenchLine {
    /// Ticks of an allocation and its release.
    pub fn ticks(&self) -> u64 {
        self.alloc + self.free
    }
}

/// Returns the measured lines of a log. In the log of Linux a time stands before each.
///
/// # Errors
/// A line that begins as one of the measured lines but is not.
pub fn measured(log: &str) -> Result<Vec<BenchLine>, String> {
    let lines = log.lines().filter_map(|line| Some(line.split_once("bench: pattern=")?.1));
    lines.map(|fields| parse(fields).ok_or_else(|| format!("malformed: `{fields}`"))).collect()
}

/// Reads what follows `pattern=`.
fn parse(text: &str) -> Option<BenchLine> {
    let (pattern, rest) = text.trim_end().split_once(' ')?;
    let fields: Option<Vec<(&str, &str)>> =
        rest.split(' ').map(|field| field.split_once('=')).collect();
    let fields = fields?;
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let expected = ["order", "bits", "count", "ok", "exchanged", "alloc", "free", "max", "calls"];
    if names != expected && names != expected[..8] {
        return None;
    }
    let value = |index: usize| fields.get(index)?.1.parse::<u64>().ok();
    let small = |index| u32::try_from(value(index)?).ok();
    Some(BenchLine {
        entry: BenchEntry {
            pattern: pattern.to_owned(),
            order: small(0)?,
            bits: small(1)?,
            count: small(2)?,
        },
        ok: value(3)?,
        exchanged: value(4)?,
        alloc: value(5)?,
        free: value(6)?,
        max: value(7)?,
        calls: match fields.len() {
            8 => None,
            _ => Some(value(8)?),
        },
    })
}

impl FromStr for BenchLine {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.strip_prefix("bench: pattern=").and_then(parse).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "bench: pattern=hold-far order=9 bits=30 count=8 ok=8 exchanged=3 \
                        alloc=700 free=50 max=900 calls=24";

    #[test]
    fn a_line_is_read() {
        let line: BenchLine = OURS.parse().unwrap();
        assert_eq!(line.entry.to_string(), "hold-far:9:30:8");
        assert_eq!((line.ok, line.exchanged, line.ticks()), (8, 3, 750));
        assert_eq!((line.max, line.calls), (900, Some(24)));
    }

    #[test]
    fn linux_writes_a_time_before_it_and_no_calls() {
        let log = format!("[    0.1] boot\n[    3.7] {}\nall done", OURS.replace(" calls=24", ""));
        let lines = measured(&log).unwrap();
        assert_eq!((lines.len(), lines[0].calls), (1, None));
    }

    #[test]
    fn a_malformed_line_is_named() {
        for bad in [
            OURS.replace("ok=8", "ok=x"),
            OURS.replace("ok=8 ", ""),
            OURS.replace("order", "size"),
            OURS.replace("calls=24", "calls=24 more=1"),
        ] {
            assert!(measured(&bad).unwrap_err().contains("malformed: `hold-far "), "{bad}");
        }
        assert_eq!(measured("bench: bad entry \"x\"").unwrap(), []);
    }
}
