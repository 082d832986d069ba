//! What is fuzzed. A target takes any bytes, and panics if what it feeds them to does wrong.
//!
//! There is none for ELF notes: this repository writes them, and nothing in it reads them.

mod answer;
mod bytes;
mod command_line;
mod layout;
mod memory_map;
mod pv_start_info;
mod pvh_start_info;
mod xen;

/// A target.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Tries an input.
    pub run: fn(&[u8]),
    /// Longer inputs are of no use.
    pub max_len: usize,
    /// What its format is made of.
    pub words: &'static [&'static [u8]],
    /// What to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub static TARGETS: [Target; 7] = [
    command_line::TARGET,
    pv_start_info::TARGET,
    pvh_start_info::TARGET,
    memory_map::TARGET,
    answer::TARGET,
    layout::TARGET,
    xen::TARGET,
];
