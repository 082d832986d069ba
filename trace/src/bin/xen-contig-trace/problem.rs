//! Why the program ends without success.

use std::io;

/// The name in messages.
pub const PROGRAM: &str = "xen-contig-trace";

/// Why the program ends without success.
pub enum Problem {
    /// The output cannot be written, or the input not be read.
    Io(io::Error),
    /// A message with what the user can do.
    User(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::User(message)
    }
}
