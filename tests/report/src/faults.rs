//! How many faults the host tests tried: each sweep writes a line `<cases> <name>` to a file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::figure::bars::{Bar, BarChart, Scale};
use crate::figure::{Drawn, Series};
use crate::source::{self, modified, utc};

/// The directory of the files.
pub const DIR: &str = "target/tmp/fault-cases";

/// The sweeps of all test programs.
#[derive(Clone, Debug, Serialize)]
pub struct Faults {
    /// Cases of all sweeps.
    pub cases: u64,
    /// All sweeps, those with the most cases first.
    pub sweeps: Vec<Sweep>,
    /// When the last sweep ended.
    pub written: String,
    /// The picture.
    pub figure: Drawn,
}

/// A sweep: one operation, in one state of the guest, with each hypercall failing once by each errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sweep {
    /// The test program.
    pub program: String,
    /// What is swept.
    pub name: String,
    /// How many cases there are.
    pub cases: u64,
}

/// Reads the files; none if no test wrote one.
pub fn of(root: &Path) -> Option<Faults> {
    let dir = root.join(DIR);
    let names = source::names(&dir);
    let read = |name: &String| sweep(name, &fs::read_to_string(dir.join(name)).ok()?);
    let mut sweeps: Vec<Sweep> = names.iter().filter_map(read).collect();
    let written = utc(names.iter().map(|name| modified(&dir.join(name))).max()?);
    sweeps.sort_by_key(|sweep| (u64::MAX - sweep.cases, sweep.name.clone()));
    let cases = sweeps.iter().map(|sweep| sweep.cases).sum();
    Some(Faults { cases, figure: chart(&sweeps).draw(), sweeps, written })
}

fn sweep(file: &str, line: &str) -> Option<Sweep> {
    let (program, _) = file.rsplit_once('-')?;
    let (cases, name) = line.trim().split_once(' ')?;
    let (program, name) = (program.to_owned(), name.to_owned());
    Some(Sweep { program, name, cases: cases.parse().ok()? })
}

fn chart(sweeps: &[Sweep]) -> BarChart {
    let mut by_program: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for sweep in sweeps {
        let (cases, count) = by_program.entry(&sweep.program).or_default();
        *cases += sweep.cases;
        *count += 1;
    }
    let bars = by_program.into_iter().map(|(program, (cases, count))| Bar {
        label: format!("tests/{program}: {count} sweeps"),
        values: vec![(Series::Own, cases as f64)],
        note: cases.to_string(),
    });
    BarChart {
        title: "Faults that the host tests tried".to_owned(),
        caption:
            "Cases by test program. In each case one hypercall of one operation fails with one \
                  errno, and every frame must be accounted for afterwards."
                .to_owned(),
        axis: "cases".to_owned(),
        scale: Scale::Linear,
        series: Vec::new(),
        bars: bars.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_program_and_its_sweep() {
        let expected = Sweep {
            program: "fault_sweep_dma".to_owned(),
            name: "a set, no memory".to_owned(),
            cases: 34,
        };
        assert_eq!(sweep("fault_sweep_dma-10", "34 a set, no memory\n"), Some(expected));
        assert_eq!(sweep("fault_sweep_dma-10", "many"), None);
        assert_eq!(sweep("fault_sweep_dma-10", "x cases"), None);
    }
}
