//! The reader of a PV guest's start info.

#![expect(unsafe_code, reason = "the structure is made of any bytes")]

use std::mem::{MaybeUninit, offset_of};

use pvh_boot::layout::KERNEL_BASE;
use pvh_boot::start_info::{PvConsole, PvModulePlace, PvStartInfo};
use xen_sys::start_info;

use super::Target;

const SIZE: usize = size_of::<start_info>();

pub const TARGET: Target = Target {
    name: "pv_start_info",
    run,
    max_len: SIZE,
    words: &[
        b"xen-3.0-x86_64\0",
        &[0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff],
        &[0, 0x30, 0x2a, 0x80, 0xff, 0xff, 0xff, 0xff],
        &[0, 0x40, 0, 0, 0, 0, 0, 0],
        &[8, 0, 0, 0],
        &[3, 0, 0, 0],
    ],
    seeds: || vec![domain(0), domain(3), domain(8)],
};

/// Returns the start info of a guest of 64 MiB.
///
/// Its image ends at 2.5 MiB. The list, the start info and the page tables follow.
fn domain(flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"xen-3.0-x86_64");
    put(offset_of!(start_info, nr_pages), &0x4000_u64.to_le_bytes());
    put(offset_of!(start_info, shared_info), &0x3f_e000_u64.to_le_bytes());
    put(offset_of!(start_info, flags), &flags.to_le_bytes());
    put(offset_of!(start_info, store_mfn), &0x12345_u64.to_le_bytes());
    put(offset_of!(start_info, store_evtchn), &1_u32.to_le_bytes());
    if flags & 2 == 0 {
        put(offset_of!(start_info, console), &0x12346_u64.to_le_bytes());
        put(offset_of!(start_info, console) + 8, &2_u32.to_le_bytes());
    } else {
        put(offset_of!(start_info, console), &(SIZE as u32).to_le_bytes());
        put(offset_of!(start_info, console) + 4, &40_u32.to_le_bytes());
    }
    put(offset_of!(start_info, mfn_list), &(KERNEL_BASE + 0x28_0000).to_le_bytes());
    put(offset_of!(start_info, pt_base), &(KERNEL_BASE + 0x2a_3000).to_le_bytes());
    put(offset_of!(start_info, nr_pt_frames), &7_u64.to_le_bytes());
    let module = if flags & 8 == 0 { KERNEL_BASE + 0x20_0000 } else { 0x200 };
    put(offset_of!(start_info, mod_start), &module.to_le_bytes());
    put(offset_of!(start_info, mod_len), &5000_u64.to_le_bytes());
    put(offset_of!(start_info, cmd_line), b"selftest=all seed=1");
    bytes
}

fn run(input: &[u8]) {
    let mut raw = MaybeUninit::<start_info>::zeroed();
    let len = input.len().min(SIZE);
    // SAFETY: `len` is at most the length of the input and of the structure, which this function owns.
    unsafe { raw.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(input.as_ptr(), len) };
    // SAFETY: every byte is initialised, and its fields are integers, valid with any bits.
    let raw = unsafe { raw.assume_init() };
    match PvStartInfo::read(&raw) {
        Ok(info) => check_plausible(&info),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Checks an accepted start info, in integers that cannot overflow.
fn check_plausible(info: &PvStartInfo<'_>) {
    let wide = u128::from;
    let bytes = wide(info.nr_pages) << 12;
    assert!(info.nr_pages > 0 && bytes <= 1 << 52);
    let mapped = |what: &str, start: u64, len: u128| {
        assert!(start >= KERNEL_BASE, "{what}: {info:?}");
        assert!(wide(start - KERNEL_BASE) + len <= bytes, "{what}: {info:?}");
        assert!(wide(start) + len <= 1 << 64, "{what}: {info:?}");
    };
    assert!(info.nr_pt_frames > 0 && info.pt_base.is_multiple_of(4096));
    mapped("page tables", info.pt_base, wide(info.nr_pt_frames) << 12);
    assert!(info.mfn_list.is_multiple_of(4096));
    mapped("list", info.mfn_list, wide(info.nr_pages) * 8);
    assert!(wide(info.mfn_list) + wide(info.nr_pages) * 8 <= wide(info.pt_base));
    assert!(info.shared_info.is_multiple_of(4096) && info.shared_info < 1 << 52);
    if info.nr_p2m_frames > 0 {
        assert!(wide(info.first_p2m_pfn) + wide(info.nr_p2m_frames) <= wide(info.nr_pages));
    }
    if let Some(module) = info.module {
        assert!(module.len > 0);
        match module.place {
            PvModulePlace::Mapped(start) => mapped("module", start, wide(module.len)),
            PvModulePlace::Frame(first) => {
                assert!((wide(first) << 12) + wide(module.len) <= bytes, "{info:?}");
            }
        }
    }
    match info.console {
        PvConsole::DomU { mfn, .. } => assert!(mfn < 1 << 40),
        PvConsole::Dom0 { info_off, info_size } => {
            assert!(info_size == 0 || wide(info_off.into()) + wide(info_size.into()) <= 4096);
        }
    }
    assert!(info.magic.starts_with("xen-") && !info.magic.contains('\0'));
    assert!(!info.cmd_line.contains(&0) && info.cmd_line.len() < 1024);
}
