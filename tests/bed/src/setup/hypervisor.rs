//! The hypervisor, as QEMU's multiboot loader takes it.

use std::fs;
use std::io::Read;
use std::path::Path;

use elf::abi;
use flate2::read::GzDecoder;

use crate::error::{Error, Result};
use crate::xen::{Xen, hypervisor_in};

/// Checks the hypervisor of a Xen that the user names by its path.
pub fn check(xen: &Xen) -> Result<()> {
    match xen {
        Xen::Release(_) => Ok(()),
        Xen::Hypervisor(path) => unpacked(path).map(drop),
        Xen::Tree(tree) => unpacked(&hypervisor_in(tree)?).map(drop),
    }
}

/// Reads a hypervisor, compressed or not, and checks that QEMU's multiboot loader takes it.
pub fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(path).map_err(|e| Error::file("reading", path, e))?;
    if bytes.starts_with(b"\x1f\x8b") {
        let mut plain = Vec::new();
        GzDecoder::new(&bytes[..])
            .read_to_end(&mut plain)
            .map_err(|e| Error::file("decompressing", path, e))?;
        bytes = plain;
    }
    match unfit(&bytes) {
        Some(problem) => Err(Error::BadHypervisor { path: path.to_owned(), problem }),
        None => Ok(bytes),
    }
}

/// Says why QEMU cannot boot a hypervisor, or why it is not Xen.
fn unfit(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"MZ") {
        Some("an EFI program; give the file `xen` or `xen.gz` of the same build")
    } else if !bytes.starts_with(&abi::ELFMAGIC) {
        Some("not an ELF file; give the file `xen` or `xen.gz` that a build of Xen makes")
    } else if bytes.get(abi::EI_CLASS) == Some(&abi::ELFCLASS64) {
        Some(
            "a 64-bit ELF file, probably `xen-syms`, which QEMU cannot boot; give the file `xen` or \
             `xen.gz` of the same build",
        )
    } else if !has_multiboot_header(bytes) || !contains(bytes, VERSION) {
        Some("not Xen; give the file `xen` or `xen.gz` that a build of Xen makes")
    } else {
        None
    }
}

/// How Xen begins its first line (`console_init_preirq` in `drivers/char/console.c`).
const VERSION: &[u8] = b"Xen version %d.%d";

/// Returns true if QEMU finds a multiboot header: in the first 8 KiB, aligned to 4 bytes.
fn has_multiboot_header(bytes: &[u8]) -> bool {
    const MAGIC: [u8; 4] = 0x1bad_b002_u32.to_le_bytes();
    bytes.chunks_exact(4).take(2048).any(|word| word == MAGIC)
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::setup::{make_dir, write};

    #[test]
    fn a_hypervisor_is_unpacked_and_checked() {
        const XEN: &[u8] = b"\x7fELF\x01\x01\x01\0\x02\xb0\xad\x1b Xen version %d.%d%s";
        let dir = std::env::temp_dir().join(format!("bed-hypervisor-{}", std::process::id()));
        make_dir(&dir).unwrap();
        let path = dir.join("xen.gz");
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(XEN).unwrap();
        write(&path, &packer.finish().unwrap()).unwrap();
        assert_eq!(unpacked(&path).unwrap(), XEN);
        for (bytes, words) in [
            (&b"MZ"[..], "EFI"),
            (b"\x7fELF\x02", "xen-syms"),
            (b"\x7fELF\x01\x01\x01\0 Xen version %d.%d", "not Xen"),
            (b"\x7fELF\x01\x01\x01\0\x02\xb0\xad\x1b another kernel", "not Xen"),
            (b"#!/bin/sh", "not an ELF file"),
            (b"", "not an ELF file"),
        ] {
            write(&path, bytes).unwrap();
            let error = check(&Xen::Hypervisor(path.clone())).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("xen.gz"), "{error}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
