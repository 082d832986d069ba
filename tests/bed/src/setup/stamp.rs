//! A file beside a product that holds what the product was made from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The stamp of one product.
#[derive(Debug)]
pub struct Stamp {
    path: PathBuf,
    inputs: String,
}

impl Stamp {
    /// Names the stamp and the inputs that its product is to be made from.
    pub fn new(path: &Path, inputs: &str) -> Self {
        Self { path: path.to_owned(), inputs: inputs.to_owned() }
    }

    /// Returns true if the product was made, whole, from these very inputs.
    pub fn holds(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text == self.inputs)
    }

    /// Says that the product is whole. Called last.
    pub fn write(&self) -> Result<()> {
        fs::write(&self.path, &self.inputs).map_err(|e| Error::file("writing", &self.path, e))
    }
}
