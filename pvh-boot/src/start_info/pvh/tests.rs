//! Tests of the reader with a model of physical memory.

use std::vec::Vec;

use super::*;
use crate::start_info::MemoryKind;

/// A model of physical memory that has bytes only from `base` on.
#[derive(Clone)]
struct BootMemory {
    base: u64,
    bytes: Vec<u8>,
}

const BASE: u64 = 0x10_0000;
const INFO: u32 = 0x10_0018;
const CMDLINE: u64 = BASE + 0x100;
const MODULES: u64 = BASE + 0x200;
const MODULE_TEXT: u64 = BASE + 0x280;
const MAP: u64 = BASE + 0x300;
/// Offset of the start info in the bytes of [`BootMemory`].
const AT: usize = (INFO as u64 - BASE) as usize;

impl BootMemory {
    fn get(&self, address: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }

    fn read(&self) -> Result<PvhStartInfo<'_>, StartInfoError> {
        PvhStartInfo::read(INFO, |address, len| self.get(address, len))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    fn region(&mut self, index: usize, start: u64, len: u64, kind: u32) {
        let at = (MAP - BASE) as usize + index * REGION_SIZE;
        self.u64(at, start);
        self.u64(at + 8, len);
        self.u32(at + 16, kind);
        self.u32(at + 20, 0);
    }
}

/// Returns two pages of memory with the start info of a domU. It uses all fields.
fn good() -> BootMemory {
    let mut ram = BootMemory { base: BASE, bytes: std::vec![0; 0x2000] };
    ram.u32(AT, MAGIC);
    ram.u32(AT + 4, 1);
    ram.u32(AT + 8, 0);
    ram.u32(AT + 12, 1);
    ram.u64(AT + 16, MODULES);
    ram.u64(AT + 24, CMDLINE);
    ram.u64(AT + 32, 0xfc00_8000);
    ram.u64(AT + 40, MAP);
    ram.u32(AT + 48, 3);
    ram.put(0x100, b"selftest=none exit=hold\0");
    ram.u64(0x200, 0x80_0000);
    ram.u64(0x208, 0x1234);
    ram.u64(0x210, MODULE_TEXT);
    ram.put(0x280, b"a module\0");
    ram.region(0, 0, 0x400_0000, 1);
    ram.region(1, 0xfc00_0000, 0x9000, 3);
    ram.region(2, 0xfeff_8000, 0x8000, 2);
    ram
}

/// Changes one field of a valid start info and expects an error that names it.
#[track_caller]
fn refused(change: impl FnOnce(&mut BootMemory), expected: StartInfoError) {
    let mut ram = good();
    change(&mut ram);
    assert_eq!(ram.read(), Err(expected));
}

fn error(field: &'static str, value: u64, problem: Problem) -> StartInfoError {
    StartInfoError::new(field, value, problem)
}

#[test]
fn a_good_start_info_is_read() {
    let ram = good();
    let info = ram.read().unwrap();
    assert_eq!((info.version, info.flags.bits()), (1, 0));
    assert_eq!(info.cmd_line, b"selftest=none exit=hold");
    assert_eq!(info.rsdp, Some(0xfc00_8000));
    let module = PvhModule { start: 0x80_0000, len: 0x1234, cmd_line: b"a module" };
    assert_eq!(info.modules.as_slice(), [module]);
    let kinds: Vec<_> = info.memory_map.iter().map(|region| region.kind).collect();
    assert_eq!(kinds, [MemoryKind::Ram, MemoryKind::Acpi, MemoryKind::Reserved]);
    assert_eq!((info.memory_map[1].start, info.memory_map[1].len), (0xfc00_0000, 0x9000));
}

#[test]
fn the_start_info_that_xen_writes_for_dom0_is_read() {
    // Version 0 with the flags of dom0. All other fields are zero.
    let mut ram = BootMemory { base: BASE, bytes: std::vec![0; AT + SIZE_V0] };
    ram.u32(AT, MAGIC);
    ram.u32(AT + 8, 3);
    let info = ram.read().unwrap();
    assert_eq!((info.version, info.cmd_line, info.rsdp), (0, &b""[..], None));
    assert!(info.flags.privileged() && info.flags.initial_domain());
    assert!(info.modules.is_empty() && info.memory_map.is_empty());
}

#[test]
fn only_versions_above_0_have_a_memory_map() {
    let mut ram = good();
    ram.u32(AT + 4, 0);
    ram.u32(AT + 52, !0);
    assert!(ram.read().unwrap().memory_map.is_empty(), "version 0 does not have these fields");
    ram.u32(AT + 4, 2);
    ram.u32((MAP - BASE) as usize + 20, !0);
    let info = ram.read().unwrap();
    assert_eq!((info.version, info.memory_map.len()), (2, 3), "version 2 may use reserved fields");
}

#[test]
fn bytes_without_the_magic_are_refused() {
    refused(|ram| ram.u32(AT, 0), error("magic", 0, Problem::BadMagic));
    let flipped = MAGIC ^ 0x8000;
    refused(|ram| ram.u32(AT, flipped), error("magic", flipped.into(), Problem::BadMagic));
    let ram = good();
    let zero = PvhStartInfo::read(0, |address, len| ram.get(address, len));
    assert_eq!(zero, Err(error("hvm_start_info", 0, Problem::Zero)));
    let far = PvhStartInfo::read(!0, |address, len| ram.get(address, len));
    let problem = Problem::Unreadable { len: SIZE_V0 };
    assert_eq!(far, Err(error("hvm_start_info", 0xffff_ffff, problem)));
}

#[test]
fn a_slice_of_another_length_counts_as_unreadable() {
    let ram = good();
    for off in [-1isize, 1] {
        let info =
            PvhStartInfo::read(INFO, |address, len| ram.get(address, len.checked_add_signed(off)?));
        let problem = Problem::Unreadable { len: SIZE_V0 };
        assert_eq!(info, Err(error("hvm_start_info", INFO.into(), problem)));
    }
}

#[test]
fn counts_above_the_limits_are_refused() {
    for (at, field, limit) in [
        (AT + 12, "nr_modules", MAX_MODULES as u64),
        (AT + 48, "memmap_entries", MAX_REGIONS as u64),
    ] {
        for count in [limit as u32 + 1, 1 << 31, !0] {
            let problem = Problem::TooLarge { limit };
            refused(|ram| ram.u32(at, count), error(field, count.into(), problem));
        }
    }
}

#[test]
fn tables_outside_of_memory_are_refused() {
    for (at, field, len) in
        [(AT + 16, "modlist_paddr", MODULE_SIZE), (AT + 40, "memmap_paddr", 3 * REGION_SIZE)]
    {
        refused(|ram| ram.u64(at, 0), error(field, 0, Problem::Zero));
        let unreadable = Problem::Unreadable { len };
        for away in [8, BASE + 0x2000 - 8, 1 << 40] {
            refused(|ram| ram.u64(at, away), error(field, away, unreadable));
        }
        let overflow = Problem::Overflow { len: len as u64 };
        refused(|ram| ram.u64(at, !7), error(field, !7, overflow));
    }
    let mut ram = good();
    ram.u64(AT + 16, 0);
    ram.u32(AT + 12, 0);
    assert!(ram.read().unwrap().modules.is_empty(), "a table without entries needs no address");
}

#[test]
fn a_wrong_command_line_is_refused() {
    let field = "cmdline_paddr";
    let away = 1 << 40;
    let unreadable = Problem::Unreadable { len: 4096 };
    refused(|ram| ram.u64(AT + 24, away), error(field, away, unreadable));
    let value = b'a'.into();
    let endless = |ram: &mut BootMemory| {
        ram.bytes.resize(0x5000, b'a');
        ram.bytes[0x2000 - 0x100..].fill(b'a');
        ram.u64(AT + 24, BASE + 0x1f80);
    };
    let problem = Problem::Unterminated { within: MAX_COMMAND_LINE };
    refused(endless, error(field, value, problem));
    refused(|ram| ram.u64(AT + 24, !0), error(field, !0, Problem::Overflow { len: 1 }));
}

#[test]
fn a_command_line_may_end_with_the_memory_and_cross_pages() {
    let mut ram = good();
    ram.put(0x1ffe, b"x\0");
    ram.u64(AT + 24, BASE + 0x1ffe);
    assert_eq!(ram.read().unwrap().cmd_line, b"x");
    ram.put(0x1ffe, b"\xff\0");
    assert_eq!(ram.read().unwrap().cmd_line, b"\xff", "the bytes need not be UTF-8");
    ram.put(0x0ffe, b"across\0");
    ram.u64(AT + 24, BASE + 0x0ffe);
    assert_eq!(ram.read().unwrap().cmd_line, b"across");
    ram.bytes.resize(0x4000, 0);
    ram.bytes[0x1001..0x2000].fill(b'y');
    ram.u64(AT + 24, BASE + 0x1001);
    assert_eq!(ram.read().unwrap().cmd_line.len(), MAX_COMMAND_LINE - 1, "the longest text");
}

#[test]
fn a_wrong_module_is_refused_with_its_index() {
    let zero = error("modlist.paddr", 0, Problem::Zero).at(0);
    refused(|ram| ram.u64(0x200, 0), zero);
    let problem = Problem::Overflow { len: 0x1234 };
    refused(|ram| ram.u64(0x200, !0), error("modlist.paddr", !0, problem).at(0));
    let second = |ram: &mut BootMemory| {
        ram.u32(AT + 12, 2);
        ram.u64(0x220, 0x90_0000);
        ram.u64(0x230, 4);
    };
    let problem = Problem::Unreadable { len: 4092 };
    refused(second, error("modlist.cmdline_paddr", 4, problem).at(1));
}

#[test]
fn a_wrong_memory_region_is_refused_with_its_index() {
    let empty = error("memmap.size", 0, Problem::Zero).at(1);
    refused(|ram| ram.region(1, 0x1_0000_0000, 0, 1), empty);
    let past = error("memmap.addr", 2, Problem::Overflow { len: !1 }).at(2);
    refused(|ram| ram.region(2, 2, !1, 2), past);
    let clash = error("memmap.addr", 0x3ff_ffff, Problem::Overlaps { other: 0 }).at(1);
    refused(|ram| ram.region(1, 0x3ff_ffff, 1, 3), clash);
    let twice = error("memmap.addr", 0, Problem::Overlaps { other: 0 }).at(1);
    refused(|ram| ram.region(1, 0, 0x400_0000, 1), twice);
}

#[test]
fn reserved_fields_in_use_are_refused_in_version_1() {
    let problem = Problem::ReservedInUse;
    refused(|ram| ram.u32(AT + 52, 7), error("reserved", 7, problem));
    let at = (MAP - BASE) as usize + REGION_SIZE + 20;
    refused(|ram| ram.u32(at, 7), error("memmap.reserved", 7, problem).at(1));
}

#[test]
fn tables_at_the_limits_are_read() {
    let mut ram = good();
    ram.u32(AT + 48, MAX_REGIONS as u32);
    for index in 0..MAX_REGIONS {
        ram.region(index, index as u64 * 0x1000, 0x1000, 1);
    }
    ram.u32(AT + 12, MAX_MODULES as u32);
    ram.u64(AT + 16, BASE + 0x1800);
    for index in 0..MAX_MODULES {
        ram.u64(0x1800 + index * MODULE_SIZE, 0x1000);
    }
    let info = ram.read().unwrap();
    assert_eq!((info.modules.len(), info.memory_map.len()), (MAX_MODULES, MAX_REGIONS));
}

#[test]
fn a_memory_that_ends_early_is_refused() {
    let whole = good();
    let needed = (MAP - BASE) as usize + 3 * REGION_SIZE;
    for len in 0..whole.bytes.len() {
        let cut = BootMemory { base: BASE, bytes: whole.bytes[..len].to_vec() };
        let read = cut.read();
        assert!(read.is_err() || len >= needed, "{len} bytes");
    }
}

#[test]
fn no_flipped_bit_and_no_extreme_number_makes_the_reader_panic() {
    let whole = good();
    for bit in 0..8 * 0x400 {
        let mut ram = whole.clone();
        ram.bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(info) = ram.read() {
            assert_eq!(memory_map::check(&info.memory_map), Ok(()));
        }
    }
    for at in (0..0x400).step_by(4) {
        for value in [0, 1, 7, BASE, BASE + 0x1fff, 1 << 31, 1 << 63, !7, !0] {
            let mut ram = whole.clone();
            ram.u64(at, value);
            if let Ok(info) = ram.read() {
                assert_eq!(memory_map::check(&info.memory_map), Ok(()));
            }
        }
    }
}

#[test]
fn random_bytes_after_a_good_magic_never_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut ram = good();
    for _ in 0..2000 {
        for byte in &mut ram.bytes[..0x400] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        ram.u32(AT, MAGIC);
        ram.u32(AT + 12, state as u32 % 40);
        ram.u32(AT + 48, (state >> 32) as u32 % 140);
        for pointer in [AT + 16, AT + 24, AT + 40] {
            ram.u64(pointer, BASE + state % 0x2100);
        }
        if let Ok(info) = ram.read() {
            assert_eq!(memory_map::check(&info.memory_map), Ok(()));
        }
    }
}
