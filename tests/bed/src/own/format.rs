//! Checks a kernel before anything is fetched or booted: what `xl create` says of a file that is not a
//! kernel is hard to read.

use std::io::Read;

use elf::endian::AnyEndian;
use elf::to_str::e_machine_to_string;
use elf::{ElfBytes, abi};
use flate2::read::GzDecoder;

use crate::choice::GuestMode;

/// The note with the entry point of a PVH guest (`XEN_ELFNOTE_PHYS32_ENTRY` in
/// `include/public/elfnote.h`).
const PHYS32_ENTRY: u32 = 18;

/// The section with which old PV kernels describe themselves.
const OLD_SECTION: &str = "__xen_guest";

/// Where a bzImage has its magic number.
const BZIMAGE_MAGIC: (usize, &[u8]) = (0x202, b"HdrS");

/// Says why `xl create` cannot boot a file as a kernel of this mode.
pub fn problem(bytes: &[u8], mode: GuestMode) -> Option<String> {
    if bytes.starts_with(b"\x1f\x8b") {
        let mut plain = Vec::new();
        return match GzDecoder::new(bytes).read_to_end(&mut plain) {
            Ok(_) => problem(&plain, mode),
            Err(error) => Some(format!("a damaged gzip file ({error})")),
        };
    }
    let (at, magic) = BZIMAGE_MAGIC;
    if bytes.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
        // Linux has its notes in the compressed part.
        return None;
    }
    if !bytes.starts_with(&abi::ELFMAGIC) {
        return Some(if bytes.is_empty() { "empty" } else { "not an ELF file" }.to_owned());
    }
    let file = match ElfBytes::<AnyEndian>::minimal_parse(bytes) {
        Ok(file) => file,
        Err(error) => {
            return Some(format!("a damaged ELF file of {} bytes ({error})", bytes.len()));
        }
    };
    let machine = file.ehdr.e_machine;
    if ![abi::EM_X86_64, abi::EM_386].contains(&machine) {
        return Some(format!("an ELF file for another machine ({})", e_machine_to_string(machine)));
    }
    let notes = xen_notes(&file);
    if mode.is_pvh() && !notes.is_empty() && !notes.contains(&PHYS32_ENTRY) {
        let note = "XEN_ELFNOTE_PHYS32_ENTRY, where a PVH guest starts";
        return Some(format!("an ELF file without the note {note}; TYPE=pv boots a PV kernel"));
    }
    if !mode.is_pvh() && !notes.is_empty() && notes.iter().all(|note| *note == PHYS32_ENTRY) {
        return Some("an ELF file with notes for PVH alone; TYPE=pvh boots it".to_owned());
    }
    let old =
        !mode.is_pvh() && file.section_header_by_name(OLD_SECTION).is_ok_and(|it| it.is_some());
    (notes.is_empty() && !old).then(|| "an ELF file without notes for Xen".to_owned())
}

/// Returns the types of the notes for Xen in all segments and sections.
fn xen_notes(file: &ElfBytes<'_, AnyEndian>) -> Vec<u32> {
    let segments = file.segments().into_iter().flat_map(|all| all.iter());
    let segments = segments.filter(|segment| segment.p_type == abi::PT_NOTE);
    let segments = segments.filter_map(|segment| file.segment_data(&segment).ok());
    let sections = file.section_headers().into_iter().flat_map(|all| all.iter());
    let sections = sections.filter(|section| section.sh_type == abi::SHT_NOTE);
    let sections = sections.filter_map(|section| Some(file.section_data(&section).ok()?.0));
    segments.chain(sections).flat_map(xen_notes_in).collect()
}

/// Returns the types of the notes for Xen in one list of notes.
///
/// Like `elf_note_next` in Xen's `libelf`, and unlike the crate, it rounds to 4 bytes whatever the
/// alignment of the segment is.
fn xen_notes_in(mut notes: &[u8]) -> Vec<u32> {
    let mut types = Vec::new();
    while let Some((header, rest)) = notes.split_at_checked(12) {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
        let name = (word(0) as usize).next_multiple_of(4);
        let whole = name.saturating_add((word(4) as usize).next_multiple_of(4));
        if rest.starts_with(b"Xen\0") && word(0) == 4 {
            types.push(word(8));
        }
        notes = rest.get(whole..).unwrap_or_default();
    }
    types
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns an ELF file with one segment of notes, each with a description of 5 bytes.
    pub fn elf(machine: u8, notes: &[(&[u8; 4], u8)]) -> Vec<u8> {
        let note = |(name, kind): &(&[u8; 4], u8)| {
            let header = [4, 0, 0, 0, 5, 0, 0, 0, *kind, 0, 0, 0];
            [&header[..], *name, b"12345\0\0\0"].concat()
        };
        let notes: Vec<u8> = notes.iter().flat_map(note).collect();
        let mut bytes = vec![0; 64 + 56];
        // 64 bits, little-endian, version 1.
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (at, byte) in [(16, 2), (18, machine), (20, 1), (32, 64), (54, 56), (56, 1), (64, 4)] {
            bytes[at] = byte;
        }
        // The offset of the segment, its size in the file, and its alignment.
        for (at, value) in [(72, 120), (96, notes.len() as u8), (112, 8)] {
            bytes[at] = value;
        }
        bytes.extend(notes);
        bytes
    }

    /// A PV kernel, a PVH kernel, and one that is both.
    pub fn kernels() -> [Vec<u8>; 3] {
        let (gnu, pv, pvh) = ((b"GNU\0", 3), (b"Xen\0", 1), (b"Xen\0", PHYS32_ENTRY as u8));
        [elf(62, &[gnu, pv]), elf(62, &[gnu, pvh]), elf(62, &[pv, gnu, pvh])]
    }

    #[test]
    fn kernels_for_xen_are_accepted() {
        use std::io::Write;
        let [pv, pvh, both] = kernels();
        for (kernel, mode) in [
            (&pv, GuestMode::PvDomu),
            (&pvh, GuestMode::PvhDomu),
            (&both, GuestMode::PvDomu),
            (&both, GuestMode::PvhDomu),
        ] {
            assert_eq!(problem(kernel, mode), None);
        }
        assert!(problem(&pv, GuestMode::PvhDomu).unwrap().contains("TYPE=pv boots"));
        assert!(problem(&pvh, GuestMode::PvDomu).unwrap().contains("TYPE=pvh boots"));
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&pvh).unwrap();
        let packed = packer.finish().unwrap();
        assert_eq!(problem(&packed, GuestMode::PvhDomu), None);
        assert!(problem(&packed[..20], GuestMode::PvhDomu).unwrap().contains("gzip"));
        let mut linux = vec![0; 0x202];
        linux.extend(b"HdrS");
        assert_eq!(problem(&linux, GuestMode::PvhDomu), None);
    }

    #[test]
    fn what_is_not_a_kernel_for_xen_is_named() {
        let said = |bytes: &[u8]| problem(bytes, GuestMode::PvhDomu).unwrap();
        assert!(said(b"").contains("empty"));
        assert!(said(b"#!/bin/sh\n").contains("not an ELF file"));
        let [_, pvh, _] = kernels();
        assert!(said(&pvh[..40]).contains("40 bytes"));
        assert!(said(&elf(183, &[(b"Xen\0", 18)])).contains("EM_AARCH64"));
        assert!(said(&elf(62, &[(b"GNU\0", 18)])).contains("without notes for Xen"));
        assert!(said(&elf(62, &[])).contains("without notes for Xen"));
    }
}
