//! What can be wrong with a start info.

use core::fmt;

/// A field that can't be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartInfoError {
    /// The field, as Xen's headers spell it.
    pub field: &'static str,
    /// Which element, if the field belongs to an element of a table.
    pub index: Option<usize>,
    /// The value found.
    pub value: u64,
    /// Why it can't be.
    pub problem: Problem,
}

/// Why a value can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Not the number or text that starts the structure. The value is the first
    /// eight (PV) or four (PVH) bytes as a little-endian number.
    BadMagic,
    /// Zero where something must be.
    Zero,
    /// Larger than the field can be in truth.
    TooLarge {
        /// The largest value that can be.
        limit: u64,
    },
    /// No multiple of what it must be a multiple of.
    Misaligned {
        /// What it must be a multiple of.
        align: u64,
    },
    /// An address below the region that it must lie in.
    Below {
        /// Start of the region.
        start: u64,
    },
    /// Something starts at a good place, but is too long for it.
    RunsPast {
        /// Its length, in the unit of the value.
        len: u64,
        /// The first place past the region.
        end: u64,
    },
    /// Start plus length does not fit into 64 bits.
    Overflow {
        /// The length.
        len: u64,
    },
    /// The caller's memory has nothing there.
    Unreadable {
        /// How many bytes were wanted.
        len: usize,
    },
    /// A text without its closing NUL.
    Unterminated {
        /// How many bytes were looked at.
        within: usize,
    },
    /// A text that is no UTF-8. The value is the offending byte.
    NotUtf8 {
        /// Where that byte is, from the start of the text.
        offset: usize,
    },
    /// A reserved field is in use, in a version that has no use for it.
    ReservedInUse,
    /// A region shares addresses with an earlier one, and one of them is RAM.
    Overlaps {
        /// Which earlier one.
        other: usize,
    },
}

impl StartInfoError {
    /// An error about a plain field.
    pub(crate) const fn new(field: &'static str, value: u64, problem: Problem) -> Self {
        Self { field, index: None, value, problem }
    }

    /// The same error, said about element `index`.
    pub(crate) const fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field)?;
        if let Some(index) = self.index {
            write!(f, " of entry {index}")?;
        }
        write!(f, " is {:#x}: {}", self.value, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic => write!(f, "this is no start info"),
            Self::Zero => write!(f, "must not be zero"),
            Self::TooLarge { limit } => write!(f, "more than {limit:#x} can't be"),
            Self::Misaligned { align } => write!(f, "must be a multiple of {align:#x}"),
            Self::Below { start } => write!(f, "lies below {start:#x}"),
            Self::RunsPast { len, end } => write!(f, "with length {len:#x} runs past {end:#x}"),
            Self::Overflow { len } => write!(f, "with length {len:#x} leaves 64 bits"),
            Self::Unreadable { len } => write!(f, "no {len} bytes to be read there"),
            Self::Unterminated { within } => write!(f, "no NUL within {within} bytes"),
            Self::NotUtf8 { offset } => write!(f, "no UTF-8 at byte {offset}"),
            Self::ReservedInUse => write!(f, "is reserved and must be zero"),
            Self::Overlaps { other } => write!(f, "overlaps entry {other}"),
        }
    }
}

impl core::error::Error for StartInfoError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_message_names_field_element_value_and_reason() {
        let error = StartInfoError::new("nr_pages", 0, Problem::Zero);
        assert_eq!(error.to_string(), "nr_pages is 0x0: must not be zero");
        let error = StartInfoError::new("memmap.size", !0, Problem::Overflow { len: !0 }).at(3);
        assert_eq!(
            error.to_string(),
            "memmap.size of entry 3 is 0xffffffffffffffff: with length 0xffffffffffffffff \
             leaves 64 bits"
        );
    }
}
