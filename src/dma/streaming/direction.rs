//! Who writes the bytes of a mapping.

/// Who reads and who writes the bytes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads.
    ToDevice,
    /// The device writes.
    FromDevice,
    /// The device reads and writes.
    Bidirectional,
}

impl Direction {
    /// Returns true if the device may write.
    pub(super) const fn is_written(self) -> bool {
        matches!(self, Self::FromDevice | Self::Bidirectional)
    }
}
