//! The log that is read.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use crate::problem::{PROGRAM, Problem};

/// The input: the file, or standard input.
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(File),
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stdin => io::stdin().read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

impl Input {
    /// Opens the file, or standard input if there is no name or it is `-`.
    pub fn open(file: Option<&Path>) -> Result<Self, Problem> {
        match file {
            Some(path) if path != Path::new("-") => match File::open(path) {
                Ok(file) => Ok(Input::File(file)),
                Err(error) => Err(format!("{}: {error}", path.display()).into()),
            },
            _ => {
                if io::stdin().is_terminal() {
                    eprintln!(
                        "{PROGRAM}: reading the log from the terminal; `xl dmesg | {PROGRAM}` or \
                         `{PROGRAM} FILE` is more usual"
                    );
                }
                Ok(Input::Stdin)
            }
        }
    }
}

/// Makes the message for an input that cannot be read.
pub fn cannot_read(file: Option<&Path>, error: &io::Error) -> Problem {
    let name = file.unwrap_or(Path::new("standard input"));
    format!("{}: {error}", name.display()).into()
}
