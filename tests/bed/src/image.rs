//! Checks the image before it is booted: Xen's message about a file that is not a kernel is hard to
//! read.

use std::fs;
use std::io;
use std::path::Path;

use elf::endian::AnyEndian;
use elf::file::Class;
use elf::to_str::{e_machine_to_string, e_type_to_string};
use elf::{ElfBytes, abi};

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
    if bytes.is_empty() {
        return Some("empty".to_owned());
    }
    if !bytes.starts_with(&abi::ELFMAGIC) {
        return Some("not an ELF file".to_owned());
    }
    let header = match ElfBytes::<AnyEndian>::minimal_parse(bytes) {
        Ok(file) => file.ehdr,
        Err(error) => {
            return Some(format!("a damaged ELF file of {} bytes ({error})", bytes.len()));
        }
    };
    if header.class != Class::ELF64 || header.e_machine != abi::EM_X86_64 {
        let machine = e_machine_to_string(header.e_machine);
        Some(format!("for another machine ({:?}, {machine})", header.class))
    } else if header.e_type != abi::ET_EXEC {
        Some(format!(
            "an ELF file of type {}, not a fixed-position executable",
            e_type_to_string(header.e_type)
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        // 64 bits, little-endian, version 1.
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[20] = 1;
        bytes
    }

    #[test]
    fn only_an_executable_for_x86_64_will_do() {
        assert_eq!(problem(&header()), None);
        assert!(problem(b"").unwrap().contains("empty"));
        assert!(problem(b"#!/bin/sh").unwrap().contains("not an ELF"));
        assert!(problem(&header()[..40]).unwrap().contains("40 bytes"));
        let mut shared = header();
        shared[16] = 3;
        assert!(problem(&shared).unwrap().contains("ET_DYN"));
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
