//! Tests of the reader with valid domains and with one wrong field.

use core::mem::MaybeUninit;
use std::boxed::Box;

use super::*;

const SIZE: usize = size_of::<start_info>();

/// The bytes of a start info, with its alignment.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Raw([u8; SIZE]);

impl Raw {
    fn view(&self) -> &start_info {
        // SAFETY: The bytes have the size of the structure, at least its alignment, and are
        // initialised. All fields are integers, so any bits are valid.
        unsafe { &*(&raw const self.0).cast() }
    }
}

fn zeroed() -> Box<start_info> {
    // SAFETY: All fields are integers or unions of integers, so zeros are valid.
    Box::new(unsafe { MaybeUninit::zeroed().assume_init() })
}

fn put(text: &mut [i8], value: &[u8]) {
    text.fill(0);
    for (to, from) in text.iter_mut().zip(value) {
        *to = *from as i8;
    }
}

/// Returns the bytes of a start info at the offsets of the header.
fn bytes_of(info: &start_info) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, unsigned(&info.magic));
    put(32, &info.nr_pages.to_le_bytes());
    put(40, &info.shared_info.to_le_bytes());
    put(48, &info.flags.to_le_bytes());
    put(56, &info.store_mfn.to_le_bytes());
    put(64, &info.store_evtchn.to_le_bytes());
    // SAFETY: Both fields are integers, so any bits are valid. `info` references all of their bytes.
    let (mfn, evtchn) = unsafe { (info.console.domU.mfn, info.console.domU.evtchn) };
    put(72, &mfn.to_le_bytes());
    put(80, &evtchn.to_le_bytes());
    put(88, &info.pt_base.to_le_bytes());
    put(96, &info.nr_pt_frames.to_le_bytes());
    put(104, &info.mfn_list.to_le_bytes());
    put(112, &info.mod_start.to_le_bytes());
    put(120, &info.mod_len.to_le_bytes());
    put(128, unsigned(&info.cmd_line));
    put(1152, &info.first_p2m_pfn.to_le_bytes());
    put(1160, &info.nr_p2m_frames.to_le_bytes());
    bytes
}

#[test]
fn the_reader_uses_the_offsets_of_the_header() {
    for good in [dom_u(), dom_0()] {
        let raw = Raw(bytes_of(&good));
        assert_eq!(PvStartInfo::read(raw.view()), PvStartInfo::read(&good));
    }
}

/// Returns a domU of 64 MiB.
///
/// The image ends at 2.5 MiB. The P2M, the start info and the page tables follow.
fn dom_u() -> Box<start_info> {
    let mut raw = zeroed();
    put(&mut raw.magic, b"xen-3.0-x86_64");
    raw.nr_pages = 0x4000;
    raw.shared_info = 0x3f_e000;
    raw.store_mfn = 0x12345;
    raw.store_evtchn = 1;
    raw.console.domU.mfn = 0x12346;
    raw.console.domU.evtchn = 2;
    raw.mfn_list = KERNEL_BASE + 0x28_0000;
    raw.pt_base = KERNEL_BASE + 0x2a_3000;
    raw.nr_pt_frames = 7;
    put(&mut raw.cmd_line, b"selftest=all seed=1");
    raw
}

fn dom_0() -> Box<start_info> {
    let mut raw = dom_u();
    raw.flags = xen_sys::SIF_PRIVILEGED | xen_sys::SIF_INITDOMAIN;
    (raw.store_mfn, raw.store_evtchn) = (0, 0);
    raw.console.domU.mfn = 0;
    raw.console.domU.evtchn = 0;
    raw.console.dom0.info_off = SIZE as u32;
    raw.console.dom0.info_size = 40;
    raw
}

/// Changes one field of a valid start info and expects an error that names it.
#[track_caller]
fn refused(
    mut good: Box<start_info>,
    change: impl FnOnce(&mut start_info),
    field: &'static str,
    value: u64,
    problem: Problem,
) {
    change(&mut good);
    assert_eq!(PvStartInfo::read(&good), Err(StartInfoError::new(field, value, problem)));
}

#[test]
fn a_good_dom_u_is_read() {
    let raw = dom_u();
    let info = PvStartInfo::read(&raw).unwrap();
    assert_eq!(info.magic, "xen-3.0-x86_64");
    assert_eq!((info.nr_pages, info.shared_info), (0x4000, 0x3f_e000));
    assert_eq!((info.store_mfn, info.store_evtchn), (0x12345, 1));
    assert_eq!(info.console, PvConsole::DomU { mfn: 0x12346, evtchn: 2 });
    assert_eq!((info.pt_base, info.nr_pt_frames), (0xffff_ffff_802a_3000, 7));
    assert_eq!(info.mfn_list, 0xffff_ffff_8028_0000);
    assert_eq!((info.module, info.nr_p2m_frames), (None, 0));
    assert_eq!(info.cmd_line, b"selftest=all seed=1");
    assert!(!info.flags.privileged() && !info.flags.initial_domain());
}

#[test]
fn a_good_dom_0_is_read() {
    let info = dom_0();
    let info = PvStartInfo::read(&info).unwrap();
    assert!(info.flags.privileged() && info.flags.initial_domain());
    assert_eq!(info.console, PvConsole::Dom0 { info_off: SIZE as u32, info_size: 40 });

    let mut raw = dom_0();
    raw.console.dom0.info_off = 0;
    raw.console.dom0.info_size = 0;
    let info = PvStartInfo::read(&raw).unwrap();
    assert_eq!(info.console, PvConsole::Dom0 { info_off: 0, info_size: 0 }, "no screen");
}

#[test]
fn a_module_has_an_address_or_a_frame() {
    let mut raw = dom_u();
    (raw.mod_start, raw.mod_len) = (KERNEL_BASE + 0x26_0000, 0x1_0001);
    let module = PvStartInfo::read(&raw).unwrap().module.unwrap();
    assert_eq!(module.place, PvModulePlace::Mapped(KERNEL_BASE + 0x26_0000));
    assert_eq!(module.len, 0x1_0001);

    raw.flags = xen_sys::SIF_MOD_START_PFN;
    (raw.mod_start, raw.mod_len) = (0x3ffe, 0x1001);
    let module = PvStartInfo::read(&raw).unwrap().module.unwrap();
    assert_eq!(module.place, PvModulePlace::Frame(0x3ffe), "the module ends with the last frame");

    raw.mod_len = 0;
    assert_eq!(PvStartInfo::read(&raw).unwrap().module, None);
}

#[test]
fn a_wrong_magic_is_refused() {
    let foreign = u64::from_le_bytes(*b"linux\0\0\0");
    refused(dom_u(), |i| put(&mut i.magic, b"linux"), "magic", foreign, Problem::BadMagic);
    refused(dom_u(), |i| i.magic.fill(0), "magic", 0, Problem::BadMagic);
    let endless = Problem::Unterminated { within: 32 };
    refused(
        dom_u(),
        |i| put(&mut i.magic, &[b"xen-".as_slice(), &[b'x'; 28]].concat()),
        "magic",
        b'x'.into(),
        endless,
    );
}

#[test]
fn wrong_sizes_are_refused() {
    refused(dom_u(), |i| i.nr_pages = 0, "nr_pages", 0, Problem::Zero);
    let limit = 1 << 40;
    let big = limit + 1;
    refused(dom_u(), |i| i.nr_pages = big, "nr_pages", big, Problem::TooLarge { limit });
    refused(dom_u(), |i| i.nr_pages = !0, "nr_pages", !0, Problem::TooLarge { limit });
}

#[test]
fn a_wrong_shared_info_is_refused() {
    let field = "shared_info";
    refused(dom_u(), |i| i.shared_info = 0, field, 0, Problem::Zero);
    let align = 4096;
    refused(dom_u(), |i| i.shared_info += 8, field, 0x3f_e008, Problem::Misaligned { align });
    let limit = (1 << 52) - 4096;
    let big = 1 << 52;
    refused(dom_u(), |i| i.shared_info = big, field, big, Problem::TooLarge { limit });
}

#[test]
fn wrong_store_and_console_are_refused() {
    let (mfn, limit) = (1 << 40, (1 << 40) - 1);
    let (port, last) = (1 << 17, (1 << 17) - 1);
    let frame = Problem::TooLarge { limit };
    let channel = Problem::TooLarge { limit: last };
    refused(dom_u(), |i| i.store_mfn = mfn, "store_mfn", mfn, frame);
    refused(dom_u(), |i| i.store_evtchn = port, "store_evtchn", port.into(), channel);
    refused(dom_u(), |i| i.console.domU.mfn = mfn, "console.domU.mfn", mfn, frame);
    refused(dom_u(), |i| i.console.domU.evtchn = port, "console.domU.evtchn", port.into(), channel);

    let field = "console.dom0.info_off";
    let start = SIZE as u64;
    refused(dom_0(), |i| i.console.dom0.info_off = 128, field, 128, Problem::Below { start });
    let past = Problem::RunsPast { len: 4096, end: 4096 };
    refused(dom_0(), |i| i.console.dom0.info_size = 4096, field, start, past);
    let past = Problem::RunsPast { len: u32::MAX.into(), end: 4096 };
    let max = |i: &mut start_info| {
        i.console.dom0.info_off = u32::MAX;
        i.console.dom0.info_size = u32::MAX;
    };
    refused(dom_0(), max, field, u32::MAX.into(), past);
}

#[test]
fn wrong_page_tables_are_refused() {
    refused(dom_u(), |i| i.nr_pt_frames = 0, "nr_pt_frames", 0, Problem::Zero);
    let limit = 0x4000;
    refused(
        dom_u(),
        |i| i.nr_pt_frames = 0x4001,
        "nr_pt_frames",
        0x4001,
        Problem::TooLarge { limit },
    );
    let start = KERNEL_BASE;
    refused(dom_u(), |i| i.pt_base = 0x1000, "pt_base", 0x1000, Problem::Below { start });
    let odd = KERNEL_BASE + 0x2a_3010;
    refused(dom_u(), |i| i.pt_base = odd, "pt_base", odd, Problem::Misaligned { align: 4096 });
    let last = KERNEL_BASE + 0x4000 * 4096 - 4096;
    let past = Problem::RunsPast { len: 7 * 4096, end: KERNEL_BASE + 0x4000 * 4096 };
    refused(dom_u(), |i| i.pt_base = last, "pt_base", last, past);
    let top = 0u64.wrapping_sub(4096);
    refused(dom_u(), |i| i.pt_base = top, "pt_base", top, past);
}

#[test]
fn a_wrong_p2m_is_refused() {
    let field = "mfn_list";
    let odd = KERNEL_BASE + 0x28_0008;
    refused(dom_u(), |i| i.mfn_list = odd, field, odd, Problem::Misaligned { align: 4096 });
    refused(dom_u(), |i| i.mfn_list = 0, field, 0, Problem::Below { start: KERNEL_BASE });
    let top = 0u64.wrapping_sub(4096);
    let end = KERNEL_BASE + 0x4000 * 4096;
    let past = Problem::RunsPast { len: 0x2_0000, end };
    refused(dom_u(), |i| i.mfn_list = top, field, top, past);
    let into = KERNEL_BASE + 0x29_0000;
    let past = Problem::RunsPast { len: 0x2_0000, end: KERNEL_BASE + 0x2a_3000 };
    refused(dom_u(), |i| i.mfn_list = into, field, into, past);
}

#[test]
fn wrong_p2m_frames_are_refused() {
    let field = "first_p2m_pfn";
    let set = |first, count| {
        move |i: &mut start_info| (i.first_p2m_pfn, i.nr_p2m_frames) = (first, count)
    };
    let past = |len| Problem::RunsPast { len, end: 0x4000 };
    refused(dom_u(), set(0x3fff, 2), field, 0x3fff, past(2));
    refused(dom_u(), set(!0, !0), field, !0, past(!0));
    let mut raw = dom_u();
    set(!0, 0)(&mut raw);
    assert!(PvStartInfo::read(&raw).is_ok(), "without frames, the first one does not count");
}

#[test]
fn a_wrong_module_is_refused() {
    let set = |start, len| move |i: &mut start_info| (i.mod_start, i.mod_len) = (start, len);
    let limit = 0x4000 * 4096;
    refused(dom_u(), set(0, !0), "mod_len", !0, Problem::TooLarge { limit });
    refused(dom_u(), set(0, 1), "mod_start", 0, Problem::Below { start: KERNEL_BASE });
    let odd = KERNEL_BASE + 1;
    refused(dom_u(), set(odd, 1), "mod_start", odd, Problem::Misaligned { align: 4096 });
    let last = KERNEL_BASE + limit - 4096;
    let past = Problem::RunsPast { len: 4097, end: KERNEL_BASE + limit };
    refused(dom_u(), set(last, 4097), "mod_start", last, past);

    let by_frame = |start, len| {
        move |i: &mut start_info| {
            i.flags = xen_sys::SIF_MOD_START_PFN;
            (i.mod_start, i.mod_len) = (start, len);
        }
    };
    let past = |len| Problem::RunsPast { len, end: 0x4000 };
    refused(dom_u(), by_frame(0x3fff, 4097), "mod_start", 0x3fff, past(2));
    refused(dom_u(), by_frame(!0, 1), "mod_start", !0, past(1));
}

#[test]
fn a_command_line_without_nul_is_refused_and_any_other_is_returned() {
    let endless = Problem::Unterminated { within: 1024 };
    refused(dom_u(), |i| i.cmd_line.fill(b'a' as i8), "cmd_line", b'a'.into(), endless);
    let mut raw = dom_u();
    put(&mut raw.cmd_line, b"selftest=\xfe\0");
    assert_eq!(PvStartInfo::read(&raw).unwrap().cmd_line, b"selftest=\xfe");
    put(&mut raw.cmd_line, &[b'a'; 1023]);
    assert_eq!(PvStartInfo::read(&raw).unwrap().cmd_line.len(), 1023);
    raw.cmd_line.fill(0);
    assert_eq!(PvStartInfo::read(&raw).unwrap().cmd_line, b"");
}

#[test]
fn the_console_is_read_although_another_field_is_wrong() {
    let mut raw = dom_u();
    let console = PvStartInfo::read(&raw).unwrap().console;
    raw.nr_pages = 0;
    assert_eq!(PvStartInfo::read(&raw).unwrap_err().field(), "nr_pages");
    assert_eq!(PvConsole::read(&raw), Ok(console));
}

/// Checks what must hold for each accepted start info.
fn check_consistent(info: &PvStartInfo<'_>) {
    assert!(info.nr_pages > 0 && info.nr_pages <= MAX_FRAMES);
    assert!(info.mfn_list.checked_add(info.nr_pages * 8).unwrap() <= info.pt_base);
    let tables = (info.pt_base - KERNEL_BASE) / PAGE_SIZE + info.nr_pt_frames;
    assert!(tables <= info.nr_pages);
    assert_eq!((info.shared_info | info.pt_base | info.mfn_list) % PAGE_SIZE, 0);
    if let Some(PvModule { place: PvModulePlace::Frame(first), len }) = info.module {
        assert!(first + len.div_ceil(PAGE_SIZE) <= info.nr_pages);
    }
}

#[test]
fn no_flipped_bit_and_no_extreme_number_makes_the_reader_panic() {
    for good in [dom_u(), dom_0()] {
        let bytes = bytes_of(&good);
        for bit in 0..8 * SIZE {
            let mut raw = Raw(bytes);
            raw.0[bit / 8] ^= 1 << (bit % 8);
            if let Ok(info) = PvStartInfo::read(raw.view()) {
                check_consistent(&info);
            }
        }
        for at in (0..SIZE).step_by(8) {
            for value in [0, 1, 0xfff, 0x1000, KERNEL_BASE, 1 << 40, 1 << 63, !0xfff, !0] {
                for second in
                    (0..SIZE).step_by(8).filter(|&i| i == at || !(128..=1144).contains(&i))
                {
                    let mut raw = Raw(bytes);
                    raw.0[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
                    raw.0[second..second + 8].copy_from_slice(&u64::to_le_bytes(value));
                    if let Ok(info) = PvStartInfo::read(raw.view()) {
                        check_consistent(&info);
                    }
                }
            }
        }
    }
}

#[test]
fn random_bytes_are_refused() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2000 {
        let mut raw = Raw([0; SIZE]);
        for byte in &mut raw.0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        assert!(PvStartInfo::read(raw.view()).is_err());
        raw.0[..5].copy_from_slice(b"xen-\0");
        assert!(PvStartInfo::read(raw.view()).is_err());
    }
}
