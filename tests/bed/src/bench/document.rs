//! The part of a document that `bench` writes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::setup::write;

/// A document with a place for the table.
#[derive(Clone, Debug)]
pub struct BenchDocument {
    path: PathBuf,
    before: String,
    after: String,
}

const BEGIN: &str = "<!-- begin of what `make bench` writes -->\n";
const END: &str = "<!-- end of what `make bench` writes -->\n";

impl BenchDocument {
    /// Reads the document and finds the place.
    ///
    /// # Errors
    /// The document cannot be read, or has no such place.
    pub fn open(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::file("reading", path, e))?;
        let (before, after) = around(&text).ok_or_else(|| {
            let lines = format!("`{}` and, after it, `{}`", BEGIN.trim_end(), END.trim_end());
            Error::Usage(format!("`{}` has no line {lines}", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), before: before.to_owned(), after: after.to_owned() })
    }

    /// Puts the table in its place.
    ///
    /// # Errors
    /// The document cannot be written.
    pub fn write(&self, table: &str) -> Result<()> {
        let Self { path, before, after } = self;
        write(path, format!("{before}{BEGIN}{table}{END}{after}").as_bytes())
    }
}

/// Returns what stands before and after the place.
fn around(text: &str) -> Option<(&str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_place_changes() {
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(around(&text), Some(("a\n", "b\n")));
        assert_eq!(around(&format!("{END}{BEGIN}")), None);
        assert_eq!(around(&format!("a\n{END}")), None);
        assert_eq!(around(&format!("a\n{BEGIN}")), None);
    }

    #[test]
    fn a_document_without_a_place_is_refused() {
        let error = BenchDocument::open(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml") && error.contains("make bench"), "{error}");
    }
}
