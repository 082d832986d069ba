//! The reader of a PVH guest's start info and of the structures that it points to.
//!
//! The first byte of the input says how the caller answers reads of memory. The other bytes are the
//! guest's memory from [`BASE`] on.

use pvh_boot::start_info::PvhStartInfo;
use pvh_boot::start_info::pvh::{MAGIC, MAX_COMMAND_LINE};

use super::{Target, memory_map};

/// The address of the memory and of the structure.
const BASE: u64 = 0x1000;

pub const TARGET: Target = Target {
    name: "pvh_start_info",
    run,
    max_len: 2 * 4096,
    words: &[
        &MAGIC.to_le_bytes(),
        &[0, 0x10, 0, 0, 0, 0, 0, 0],
        &[0x80, 0x10, 0, 0, 0, 0, 0, 0],
        &[0xf0, 0x1f, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0],
        b"selftest=all\0",
    ],
    seeds: || vec![domain(1), domain(0), domain(2)],
};

/// Returns memory with two modules and their texts, three regions and a command line.
fn domain(version: u32) -> Vec<u8> {
    let mut bytes = vec![0; 1 + 0x1000];
    let mut put = |at: usize, field: &[u8]| bytes[1 + at..][..field.len()].copy_from_slice(field);
    let at = |offset: u64| (BASE + offset).to_le_bytes();
    put(0, &MAGIC.to_le_bytes());
    put(4, &version.to_le_bytes());
    put(8, &3_u32.to_le_bytes());
    put(12, &2_u32.to_le_bytes());
    put(16, &at(0x80));
    put(24, &at(0x200));
    put(32, &0xe_0000_u64.to_le_bytes());
    put(40, &at(0x100));
    put(48, &3_u32.to_le_bytes());
    for module in [0, 1] {
        put(0x80 + 32 * module, &0x20_0000_u64.to_le_bytes());
        put(0x88 + 32 * module, &0x1234_u64.to_le_bytes());
        put(0x90 + 32 * module, &at(0x220));
    }
    let regions: [(u64, u64, u32); 3] =
        [(0, 0xa_0000, 1), (0xa_0000, 0x6_0000, 2), (0x10_0000, 1 << 30, 1)];
    for (index, (start, len, kind)) in regions.into_iter().enumerate() {
        put(0x100 + 24 * index, &start.to_le_bytes());
        put(0x108 + 24 * index, &len.to_le_bytes());
        put(0x110 + 24 * index, &kind.to_le_bytes());
    }
    put(0x200, b"selftest=all\0");
    put(0x220, b"ramdisk\0");
    bytes
}

fn run(input: &[u8]) {
    let (&behaviour, memory) = input.split_first().unwrap_or((&0, &[]));
    let answer = |address: u64, len: usize| {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        let end = start.checked_add(len)?;
        match behaviour {
            // These two return too few or too many bytes. The reader must notice.
            0x80.. => memory.get(start..end.min(memory.len())),
            0x40.. => memory.get(start..),
            _ => memory.get(start..end),
        }
    };
    let address = if behaviour & 0x3f == 0x3f { u32::MAX } else { BASE as u32 };
    match PvhStartInfo::read(address, answer) {
        Ok(info) => check_plausible(&info, memory),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Checks an accepted start info.
fn check_plausible(info: &PvhStartInfo<'_>, memory: &[u8]) {
    assert_eq!(memory.get(..4), Some(&MAGIC.to_le_bytes()[..]));
    memory_map::check_verdict(&info.memory_map, None);
    assert!(info.version > 0 || info.memory_map.is_empty());
    assert_ne!(info.rsdp, Some(0));
    for module in &info.modules {
        assert!(module.start > 0 && module.start.checked_add(module.len).is_some(), "{module:?}");
    }
    let texts = info.modules.iter().map(|module| module.cmd_line).chain([info.cmd_line]);
    for text in texts {
        assert!(!text.contains(&0) && text.len() < MAX_COMMAND_LINE);
        let mut bytes = text.to_vec();
        bytes.push(0);
        let found = memory.windows(bytes.len()).any(|window| window == bytes);
        assert!(text.is_empty() || found, "{text:?} is nowhere in memory");
    }
}
