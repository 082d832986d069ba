//! Checks the image before it is booted: Xen's message about a file that is not a kernel is hard to
//! read.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// Reads the image, which must be a 64-bit x86 ELF executable.
pub fn load(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NoImage { path: path.to_owned() },
        _ => Error::file("reading the image", path, error),
    })?;
    match problem(&bytes) {
        Some(problem) => Err(Error::BadImage { path: path.to_owned(), problem }),
        None => Ok(bytes),
    }
}

fn problem(bytes: &[u8]) -> Option<String> {
    const HEADER: usize = 64;
    const CLASS_64: u8 = 2;
    const EXECUTABLE: u8 = 2;
    const X86_64: u8 = 62;
    if bytes.is_empty() {
        Some("empty".to_owned())
    } else if !bytes.starts_with(b"\x7fELF") {
        Some("no ELF file".to_owned())
    } else if bytes.len() < HEADER {
        Some(format!("cut off after {} bytes", bytes.len()))
    } else if bytes[4] != CLASS_64 || bytes[18] != X86_64 {
        Some("for another machine".to_owned())
    } else if bytes[16] != EXECUTABLE {
        Some(format!("an ELF file of type {}, not a fixed-position executable", bytes[16]))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[16] = 2;
        bytes[18] = 62;
        bytes
    }

    #[test]
    fn only_an_executable_for_x86_64_will_do() {
        assert_eq!(problem(&header()), None);
        assert!(problem(b"").unwrap().contains("empty"));
        assert!(problem(b"#!/bin/sh").unwrap().contains("no ELF"));
        assert!(problem(&header()[..40]).unwrap().contains("40 bytes"));
        let mut shared = header();
        shared[16] = 3;
        assert!(problem(&shared).unwrap().contains("type 3"));
        let mut arm = header();
        arm[18] = 183;
        assert!(problem(&arm).unwrap().contains("another machine"));
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = load(Path::new("/nonexistent/xen-contig")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/xen-contig") && error.contains("make image"));
    }
}
