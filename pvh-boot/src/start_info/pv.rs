//! Reader of the `struct start_info` of a PV guest
//! (`xen/include/public/xen.h`; written by `dom0_construct_pv` in
//! `xen/arch/x86/pv/dom0_build.c` and by `start_info_x86_64` in
//! `tools/libs/guest/xg_dom_x86.c`).

use core::mem::offset_of;
use core::slice;

use xen_sys::start_info;

use super::command_line::until_nul;
use super::error::{Problem, StartInfoError};
use super::flags::StartFlags;
use crate::layout::{KERNEL_BASE, PAGE_SIZE};

#[cfg(test)]
mod tests;

// The layout of Xen 4.17 and 4.20, against which the reader was written.
const _: () = {
    assert!(size_of::<start_info>() == 1168);
    assert!(offset_of!(start_info, nr_pages) == 32);
    assert!(offset_of!(start_info, shared_info) == 40);
    assert!(offset_of!(start_info, flags) == 48);
    assert!(offset_of!(start_info, store_mfn) == 56);
    assert!(offset_of!(start_info, store_evtchn) == 64);
    assert!(offset_of!(start_info, console) == 72);
    assert!(offset_of!(start_info, pt_base) == 88);
    assert!(offset_of!(start_info, nr_pt_frames) == 96);
    assert!(offset_of!(start_info, mfn_list) == 104);
    assert!(offset_of!(start_info, mod_start) == 112);
    assert!(offset_of!(start_info, mod_len) == 120);
    assert!(offset_of!(start_info, cmd_line) == 128);
    assert!(offset_of!(start_info, first_p2m_pfn) == 1152);
    assert!(offset_of!(start_info, nr_p2m_frames) == 1160);
};

/// Frames that 52-bit physical addresses can name.
const MAX_FRAMES: u64 = 1 << 40;

/// The highest port that any event-channel ABI has
/// (`EVTCHN_FIFO_NR_CHANNELS` in `xen/include/public/event_channel.h`, minus one).
const MAX_PORT: u64 = (1 << 17) - 1;

/// What a PV guest knows at its start. Frame numbers are plain numbers here: an
/// MFN is a machine frame, a PFN a frame of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvStartInfo<'a> {
    /// The whole magic, `xen-<version>-<platform>`.
    pub magic: &'a str,
    /// Frames of the domain, PFN 0 upwards.
    pub nr_pages: u64,
    /// Machine address of the shared info page.
    pub shared_info: u64,
    /// What kind of domain this is.
    pub flags: StartFlags,
    /// MFN of the xenstore ring; 0 in a dom0, which runs the store itself.
    pub store_mfn: u64,
    /// Event channel of the xenstore ring; 0 in a dom0.
    pub store_evtchn: u32,
    /// The console.
    pub console: PvConsole,
    /// Virtual address of the top-level page table that is in force.
    pub pt_base: u64,
    /// Page-table frames, from `pt_base` upwards.
    pub nr_pt_frames: u64,
    /// Virtual address of the list of MFNs, indexed by PFN: `nr_pages` of them.
    pub mfn_list: u64,
    /// The initial module, if there is one.
    pub module: Option<PvModule>,
    /// First PFN of frames that hold the list, if it lies outside of the boot
    /// mapping.
    pub first_p2m_pfn: u64,
    /// Number of such frames; 0 as long as no `XEN_ELFNOTE_INIT_P2M` asks for it.
    pub nr_p2m_frames: u64,
    /// The kernel's command line.
    pub cmd_line: &'a str,
}

/// The console of a PV guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PvConsole {
    /// A ring that the toolstack serves.
    DomU {
        /// MFN of the ring.
        mfn: u64,
        /// Event channel of the ring.
        evtchn: u32,
    },
    /// Dom0 writes by `console_io`; Xen describes the screen.
    Dom0 {
        /// Offset of `struct dom0_vga_console_info` from the start info.
        info_off: u32,
        /// Its size; 0 if there is no screen.
        info_size: u32,
    },
}

/// The initial module, a RAM disk for other kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvModule {
    /// Where it is.
    pub place: PvModulePlace,
    /// Its size in bytes.
    pub len: u64,
}

/// Where the module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PvModulePlace {
    /// Mapped, at this virtual address.
    Mapped(u64),
    /// Not mapped, from this PFN on.
    Frame(u64),
}

impl<'a> PvStartInfo<'a> {
    /// Judges every field of `raw`.
    ///
    /// The addresses in the result are consistent with each other and with an
    /// image whose `XEN_ELFNOTE_VIRT_BASE` is [`KERNEL_BASE`]; that there is memory
    /// behind them only Xen can promise.
    pub fn read(raw: &'a start_info) -> Result<Self, StartInfoError> {
        let magic = magic(raw)?;
        let nr_pages = at_most("nr_pages", raw.nr_pages, MAX_FRAMES)?;
        nonzero("nr_pages", nr_pages)?;

        let shared_info = nonzero("shared_info", raw.shared_info)?;
        at_most("shared_info", shared_info, (MAX_FRAMES - 1) * PAGE_SIZE)?;
        page_aligned("shared_info", shared_info)?;

        let flags = StartFlags::new(raw.flags);
        let store_mfn = at_most("store_mfn", raw.store_mfn, MAX_FRAMES - 1)?;
        at_most("store_evtchn", raw.store_evtchn.into(), MAX_PORT)?;

        let nr_pt_frames = nonzero("nr_pt_frames", raw.nr_pt_frames)?;
        at_most("nr_pt_frames", nr_pt_frames, nr_pages)?;
        let pt_base = page_aligned("pt_base", raw.pt_base)?;
        in_boot_mapping("pt_base", pt_base, nr_pt_frames * PAGE_SIZE, nr_pages)?;

        // Without XEN_ELFNOTE_INIT_P2M the list comes before the page tables.
        let mfn_list = page_aligned("mfn_list", raw.mfn_list)?;
        let list_len = nr_pages * size_of::<u64>() as u64;
        in_boot_mapping("mfn_list", mfn_list, list_len, nr_pages)?;
        if mfn_list + list_len > pt_base {
            let problem = Problem::RunsPast { len: list_len, end: pt_base };
            return Err(StartInfoError::new("mfn_list", mfn_list, problem));
        }

        if raw.nr_p2m_frames != 0 {
            let (first, count) = (raw.first_p2m_pfn, raw.nr_p2m_frames);
            frames_in_domain("first_p2m_pfn", first, count, nr_pages)?;
        }

        Ok(Self {
            magic,
            nr_pages,
            shared_info,
            flags,
            store_mfn,
            store_evtchn: raw.store_evtchn,
            console: console(raw, flags)?,
            pt_base,
            nr_pt_frames,
            mfn_list,
            module: module(raw, flags, nr_pages)?,
            first_p2m_pfn: raw.first_p2m_pfn,
            nr_p2m_frames: raw.nr_p2m_frames,
            cmd_line: until_nul("cmd_line", unsigned(&raw.cmd_line))?,
        })
    }
}

fn magic(raw: &start_info) -> Result<&str, StartInfoError> {
    let bytes = unsigned(&raw.magic);
    if !bytes.starts_with(b"xen-") {
        let first = bytes.iter().take(8).rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        return Err(StartInfoError::new("magic", first, Problem::BadMagic));
    }
    until_nul("magic", bytes)
}

fn console(raw: &start_info, flags: StartFlags) -> Result<PvConsole, StartInfoError> {
    if !flags.initial_domain() {
        // SAFETY: both fields are integers without padding before or between them,
        // valid with any bits, and `raw` is a reference to all of them.
        let (mfn, evtchn) = unsafe { (raw.console.domU.mfn, raw.console.domU.evtchn) };
        at_most("console.domU.mfn", mfn, MAX_FRAMES - 1)?;
        at_most("console.domU.evtchn", evtchn.into(), MAX_PORT)?;
        return Ok(PvConsole::DomU { mfn, evtchn });
    }
    // SAFETY: as above; the two cover the first eight bytes of the union, which
    // are `domU.mfn` in the other view.
    let (info_off, info_size) = unsafe { (raw.console.dom0.info_off, raw.console.dom0.info_size) };
    if info_size != 0 {
        // Item 3d of the start-of-day layout: it is in the page of the start info.
        let (start, len) = (u64::from(info_off), u64::from(info_size));
        let after = size_of::<start_info>() as u64;
        if start < after {
            let problem = Problem::Below { start: after };
            return Err(StartInfoError::new("console.dom0.info_off", start, problem));
        }
        if start + len > PAGE_SIZE {
            let problem = Problem::RunsPast { len, end: PAGE_SIZE };
            return Err(StartInfoError::new("console.dom0.info_off", start, problem));
        }
    }
    Ok(PvConsole::Dom0 { info_off, info_size })
}

fn module(
    raw: &start_info,
    flags: StartFlags,
    nr_pages: u64,
) -> Result<Option<PvModule>, StartInfoError> {
    let (start, len) = (raw.mod_start, raw.mod_len);
    if len == 0 {
        return Ok(None);
    }
    at_most("mod_len", len, nr_pages * PAGE_SIZE)?;
    let place = if flags.module_by_frame() {
        frames_in_domain("mod_start", start, len.div_ceil(PAGE_SIZE), nr_pages)?;
        PvModulePlace::Frame(start)
    } else {
        page_aligned("mod_start", start)?;
        in_boot_mapping("mod_start", start, len, nr_pages)?;
        PvModulePlace::Mapped(start)
    };
    Ok(Some(PvModule { place, len }))
}

/// C strings are of `i8` in the header; texts are of bytes.
fn unsigned<const N: usize>(chars: &[i8; N]) -> &[u8] {
    // SAFETY: `i8` and `u8` have the same size and alignment, and every bit pattern
    // is valid for both; the lifetime is that of the argument.
    unsafe { slice::from_raw_parts(chars.as_ptr().cast(), N) }
}

fn nonzero(field: &'static str, value: u64) -> Result<u64, StartInfoError> {
    match value {
        0 => Err(StartInfoError::new(field, value, Problem::Zero)),
        _ => Ok(value),
    }
}

fn at_most(field: &'static str, value: u64, limit: u64) -> Result<u64, StartInfoError> {
    if value > limit {
        return Err(StartInfoError::new(field, value, Problem::TooLarge { limit }));
    }
    Ok(value)
}

fn page_aligned(field: &'static str, value: u64) -> Result<u64, StartInfoError> {
    if !value.is_multiple_of(PAGE_SIZE) {
        let problem = Problem::Misaligned { align: PAGE_SIZE };
        return Err(StartInfoError::new(field, value, problem));
    }
    Ok(value)
}

/// Frames `first..first + count` must be the domain's.
fn frames_in_domain(
    field: &'static str,
    first: u64,
    count: u64,
    nr_pages: u64,
) -> Result<(), StartInfoError> {
    match first.checked_add(count) {
        Some(end) if end <= nr_pages => Ok(()),
        _ => {
            let problem = Problem::RunsPast { len: count, end: nr_pages };
            Err(StartInfoError::new(field, first, problem))
        }
    }
}

/// `start..start + len` must be in the boot mapping, which maps the first frames of
/// the domain from [`KERNEL_BASE`] on, one to one (item 5 of the layout).
fn in_boot_mapping(
    field: &'static str,
    start: u64,
    len: u64,
    nr_pages: u64,
) -> Result<(), StartInfoError> {
    let Some(offset) = start.checked_sub(KERNEL_BASE) else {
        let problem = Problem::Below { start: KERNEL_BASE };
        return Err(StartInfoError::new(field, start, problem));
    };
    let end = KERNEL_BASE.saturating_add(nr_pages * PAGE_SIZE);
    match offset.checked_add(len) {
        Some(past) if past <= end - KERNEL_BASE => Ok(()),
        _ => Err(StartInfoError::new(field, start, Problem::RunsPast { len, end })),
    }
}
