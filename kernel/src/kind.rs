//! The two kinds of guest that this kernel boots as.

/// Which kind of guest this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Paravirtualised.
    Pv,
    /// Translated, booted directly.
    Pvh,
}
