//! The fuzz targets. A target takes any bytes, and panics if the code under test fails.
//!
//! ELF notes have no target, because nothing in this repository reads them.

mod answer;
mod bytes;
mod command_line;
mod layout;
mod memory_map;
mod pv_start_info;
mod pvh_start_info;
mod xen;

/// A fuzz target.
#[derive(Debug)]
pub struct Target {
    /// The name of the target and of its corpus.
    pub name: &'static str,
    /// Runs an input.
    pub run: fn(&[u8]),
    /// The longest useful input in bytes.
    pub max_len: usize,
    /// Byte strings that the format consists of.
    pub words: &'static [&'static [u8]],
    /// Returns the first inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub static TARGETS: [Target; 7] = [
    command_line::TARGET,
    pv_start_info::TARGET,
    pvh_start_info::TARGET,
    memory_map::TARGET,
    answer::TARGET,
    layout::TARGET,
    xen::TARGET,
];
