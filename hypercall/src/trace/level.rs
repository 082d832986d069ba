//! How much of a trace is printed.

/// How much of a trace is printed. The ring and the summary are kept at every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Level {
    /// Prints nothing.
    #[default]
    Off,
    /// Prints a table of totals at the end.
    Summary,
    /// Prints a line per hypercall, and the table.
    Full,
}
