//! A run that was saved, and the comparison with it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::report::BenchReport;
use crate::error::{Error, Result};

/// The figures of a saved run: the ticks of an allocation and a release, by entry.
#[derive(Clone, Debug)]
pub struct SavedBench {
    name: String,
    rows: Vec<(String, u64)>,
}

/// A row that takes more ticks than before by this factor is worse. Below it lies what the host's
/// compiler can change.
const WORSE: f64 = 1.03;

impl SavedBench {
    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be read, or was not written by `bench`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::file("reading", path, e))?;
        let name = path.display().to_string();
        let rows = rows(&text).ok_or_else(|| {
            let expected = "`bench` did not write it; name a file target/bed/<xen>/bench.json";
            Error::Usage(format!("cannot compare with `{name}`: {expected}"))
        })?;
        Ok(Self { name, rows })
    }

    /// Says how each row has changed. Also returns the rows that are worse, or that are gone.
    pub fn compare(&self, now: &BenchReport) -> (Vec<String>, std::result::Result<(), String>) {
        let mut said = vec![format!("compared with {}, allocation + release here:", self.name)];
        let mut worse = Vec::new();
        for (entry, before) in &self.rows {
            let find = |row: &&super::report::MeasuredRow| row.row.here.to_string() == *entry;
            let Some(row) = now.rows().iter().find(find) else {
                worse.push(format!("{entry} is not measured any more"));
                continue;
            };
            let ticks = row.here.ticks();
            let change = (ticks as f64 / (*before).max(1) as f64 - 1.0) * 100.0;
            said.push(format!("  {entry}: {before}, now {ticks} ({change:+.1} %)"));
            if ticks as f64 > *before as f64 * WORSE {
                worse.push(format!("{entry}: {change:+.1} %"));
            }
        }
        (said, if worse.is_empty() { Ok(()) } else { Err(worse.join(", ")) })
    }
}

fn rows(text: &str) -> Option<Vec<(String, u64)>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let rows = value.get("rows")?.as_array()?.iter().map(|row| {
        let here = row.get("here")?;
        let ticks = |name: &str| here.get(name)?.as_u64();
        Some((row.get("entry")?.as_str()?.to_owned(), ticks("alloc")? + ticks("free")?))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    fn saved(here: u64) -> SavedBench {
        SavedBench { name: "old".to_owned(), rows: rows(&report(6000, here).json()).unwrap() }
    }

    #[test]
    fn a_report_is_read_again() {
        let saved = saved(2000);
        assert_eq!(saved.rows[0], ("cycle:0:30:64".to_owned(), 2000));
        assert_eq!(saved.rows.len(), report(6000, 2000).rows().len());
        assert!(rows("{}").is_none() && rows("").is_none());
        assert!(rows(r#"{"rows":[{"entry":"x"}]}"#).is_none());
    }

    #[test]
    fn what_is_worse_is_named() {
        let (said, result) = saved(2000).compare(&report(6000, 2000));
        assert_eq!(result, Ok(()));
        assert_eq!(said[1], "  cycle:0:30:64: 2000, now 2000 (+0.0 %)");
        let (said, result) = saved(2000).compare(&report(6000, 2200));
        assert!(said[1].ends_with("now 2200 (+10.0 %)"), "{said:?}");
        assert!(result.unwrap_err().starts_with("cycle:0:30:64: +10.0 %, "));
        assert_eq!(saved(2000).compare(&report(6000, 1000)).1, Ok(()));
        assert_eq!(saved(2000).compare(&report(6000, 2050)).1, Ok(()), "2.5 %");
    }

    #[test]
    fn a_row_that_is_gone_is_named() {
        let old = SavedBench { name: "old".to_owned(), rows: vec![("cycle:0:13:1".to_owned(), 5)] };
        let (_, result) = old.compare(&report(6000, 2000));
        assert_eq!(result.unwrap_err(), "cycle:0:13:1 is not measured any more");
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let error = SavedBench::load(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml") && error.contains("bench.json"), "{error}");
    }
}
