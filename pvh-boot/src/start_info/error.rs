//! The error of the start-info readers.

use core::fmt;

/// A field of a start info with a value that the reader does not accept.
///
/// ```
/// use pvh_boot::start_info::{MemoryKind, MemoryRegion, Problem, memory_map};
///
/// let empty = MemoryRegion { start: 0x1000, len: 0, kind: MemoryKind::Ram };
/// let error = memory_map::check(&[empty]).unwrap_err();
/// assert_eq!((error.field(), error.index(), error.value()), ("memmap.size", Some(0), 0));
/// assert_eq!(error.problem(), Problem::Zero);
/// assert_eq!(error.to_string(), "memmap.size of entry 0 is 0x0: it must not be zero");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartInfoError {
    field: &'static str,
    index: Option<usize>,
    value: u64,
    problem: Problem,
}

/// The reason for which a reader does not accept the value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The structure does not start with the magic of a start info.
    ///
    /// The value is the first eight (PV) or four (PVH) bytes as a little-endian number.
    BadMagic,
    /// The value is zero, but must not be.
    Zero,
    /// The value is above a limit.
    TooLarge {
        /// The largest accepted value.
        limit: u64,
    },
    /// The value is not a multiple of its alignment.
    Misaligned {
        /// The alignment, in the unit of the value.
        align: u64,
    },
    /// The value is an address below the region that must contain it.
    Below {
        /// First address of the region.
        start: u64,
    },
    /// The object at this value ends past the region that must contain it.
    RunsPast {
        /// Length of the object, in the unit of the value.
        len: u64,
        /// First place past the region, in the unit of the value.
        end: u64,
    },
    /// The value plus the length of its object does not fit into 64 bits.
    Overflow {
        /// Length of the object in bytes.
        len: u64,
    },
    /// The kernel's `memory` function does not return the bytes at this address.
    Unreadable {
        /// Number of bytes that the reader requested.
        len: usize,
    },
    /// A text does not contain a NUL. The value is its last byte.
    Unterminated {
        /// Number of bytes that the reader searched.
        within: usize,
    },
    /// A text is not UTF-8. The value is the first wrong byte.
    NotUtf8 {
        /// Offset of that byte from the start of the text, in bytes.
        offset: usize,
    },
    /// A reserved field is not zero, in a version of the structure that requires zero.
    ReservedInUse,
    /// A region overlaps an earlier region, and one of the two is RAM.
    Overlaps {
        /// Index of the earlier region in the memory map.
        other: usize,
    },
}

impl StartInfoError {
    /// Makes an error for a field of the structure itself.
    pub(crate) const fn new(field: &'static str, value: u64, problem: Problem) -> Self {
        Self { field, index: None, value, problem }
    }

    /// Returns the same error for a field of table entry `index`.
    pub(crate) const fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }

    /// Returns the name of the field, as Xen's headers spell it.
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// Returns the index of the table entry that contains the field, from 0.
    ///
    /// Returns `None` for a field of the structure itself.
    pub const fn index(&self) -> Option<usize> {
        self.index
    }

    /// Returns the value that the reader found.
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// Returns the reason for which the reader does not accept the value.
    pub const fn problem(&self) -> Problem {
        self.problem
    }
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field)?;
        if let Some(index) = self.index {
            write!(f, " of entry {index}")?;
        }
        let value = self.value;
        match self.problem {
            // The value of these two is a byte of the text and not the value of the field.
            Problem::Unterminated { .. } | Problem::NotUtf8 { .. } => {
                write!(f, " has the byte {value:#x}: {}", self.problem)
            }
            _ => write!(f, " is {value:#x}: {}", self.problem),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic => {
                write!(f, "this is not the magic of a start info; boot the kernel under Xen")
            }
            Self::Zero => write!(f, "it must not be zero"),
            Self::TooLarge { limit } => write!(f, "it must be at most {limit:#x}"),
            Self::Misaligned { align } => write!(f, "it must be a multiple of {align:#x}"),
            Self::Below { start } => write!(f, "it must be at least {start:#x}"),
            Self::RunsPast { len, end } => {
                write!(f, "with its length {len:#x} it ends past {end:#x}")
            }
            Self::Overflow { len } => {
                write!(f, "with its length {len:#x} its end does not fit into 64 bits")
            }
            Self::Unreadable { len } => {
                write!(f, "the kernel cannot read {len} bytes at this address")
            }
            Self::Unterminated { within } => {
                write!(f, "it is the last of {within} bytes without a NUL; shorten the text")
            }
            Self::NotUtf8 { offset } => {
                write!(f, "the text is not UTF-8 at offset {offset}; write it in UTF-8")
            }
            Self::ReservedInUse => write!(f, "it is reserved and must be zero"),
            Self::Overlaps { other } => {
                write!(f, "the region overlaps entry {other}, and one of the two is RAM")
            }
        }
    }
}

impl core::error::Error for StartInfoError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_message_names_field_entry_value_and_reason() {
        let error = StartInfoError::new("nr_pages", 0, Problem::Zero);
        assert_eq!(error.to_string(), "nr_pages is 0x0: it must not be zero");
        let error = StartInfoError::new("memmap.size", !0, Problem::Overflow { len: !0 }).at(3);
        assert_eq!(
            error.to_string(),
            "memmap.size of entry 3 is 0xffffffffffffffff: with its length 0xffffffffffffffff \
             its end does not fit into 64 bits"
        );
    }

    #[test]
    fn a_message_about_a_text_says_that_the_value_is_a_byte() {
        let problem = Problem::Unterminated { within: 1024 };
        let error = StartInfoError::new("cmd_line", b'a'.into(), problem);
        assert_eq!(
            error.to_string(),
            "cmd_line has the byte 0x61: it is the last of 1024 bytes without a NUL; \
             shorten the text"
        );
        let error = StartInfoError::new("cmd_line", 0xff, Problem::NotUtf8 { offset: 9 });
        assert_eq!(
            error.to_string(),
            "cmd_line has the byte 0xff: the text is not UTF-8 at offset 9; write it in UTF-8"
        );
    }
}
