//! The reader of the start info of a PV guest.
//!
//! `xen/include/public/xen.h` defines `struct start_info`. For dom0, `dom0_construct_pv` in
//! `xen/arch/x86/pv/dom0_build.c` writes it. For a domU, `start_info_x86_64` in
//! `tools/libs/guest/xg_dom_x86.c` does.

use core::mem::offset_of;
use core::slice;

use xen_sys::start_info;

use super::command_line::{text_until_nul, until_nul};
use super::error::{Problem, StartInfoError};
use super::flags::StartFlags;
use crate::layout::{KERNEL_BASE, PAGE_SIZE};

#[cfg(test)]
mod tests;

// The layout in the headers of Xen 4.17 and 4.20.
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

/// Number of frames that physical addresses of 52 bits can name.
const MAX_FRAMES: u64 = 1 << 40;

/// The highest event channel of any event-channel ABI.
///
/// It is `EVTCHN_FIFO_NR_CHANNELS` of `xen/include/public/event_channel.h`, minus one.
const MAX_PORT: u64 = (1 << 17) - 1;

/// The checked start info of a PV guest.
///
/// An MFN is a machine frame number and a PFN a guest frame number. Frames are 4 KiB. The fields have
/// the names of `struct start_info` (`xen/include/public/xen.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PvStartInfo<'a> {
    /// The magic: `xen-<version>-<platform>`.
    pub magic: &'a str,
    /// Number of frames of the domain. The first frame has PFN 0.
    pub nr_pages: u64,
    /// Machine address of the shared page (`struct shared_info`).
    pub shared_info: u64,
    /// Flags of the domain.
    pub flags: StartFlags,
    /// MFN of the xenstore ring. It is 0 in a dom0, which runs xenstore itself.
    pub store_mfn: u64,
    /// Event channel of the xenstore ring. It is 0 in a dom0.
    pub store_evtchn: u32,
    /// Console of the domain.
    pub console: PvConsole,
    /// Virtual address of the top-level page table in use.
    pub pt_base: u64,
    /// Number of page-table frames, from `pt_base` upwards.
    pub nr_pt_frames: u64,
    /// Virtual address of the P2M: `nr_pages` MFNs of eight bytes, indexed by PFN.
    pub mfn_list: u64,
    /// The module, if the domain has one.
    pub module: Option<PvModule>,
    /// First PFN of the frames that hold the P2M, if it lies outside the boot mapping.
    pub first_p2m_pfn: u64,
    /// Number of these frames. It is 0 for an image without `XEN_ELFNOTE_INIT_P2M`.
    pub nr_p2m_frames: u64,
    /// Command line of the kernel, without its NUL. It may be empty.
    ///
    /// The bytes are those of the user, who may not have written UTF-8. Xen and its tools cut a longer
    /// command line after 1023 bytes, without a message.
    pub cmd_line: &'a [u8],
}

/// The console of a PV guest.
///
/// The enum is exhaustive: the union in `struct start_info` has these two members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PvConsole {
    /// The console of a domU: a ring that a program in dom0 serves.
    DomU {
        /// MFN of the ring.
        mfn: u64,
        /// Event channel of the ring.
        evtchn: u32,
    },
    /// The console of dom0: the hypercall `console_io`. Xen also describes the screen.
    Dom0 {
        /// Offset of `struct dom0_vga_console_info` from the start info, in bytes.
        info_off: u32,
        /// Size of that structure in bytes. It is 0 without a screen.
        info_size: u32,
    },
}

/// The module of a PV guest, for example a RAM disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvModule {
    /// Place of the module.
    pub place: PvModulePlace,
    /// Size of the module in bytes. It is not zero.
    pub len: u64,
}

/// The place of the module of a PV guest.
///
/// The enum is exhaustive: `SIF_MOD_START_PFN` selects one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PvModulePlace {
    /// The domain builder has mapped the module at this virtual address.
    Mapped(u64),
    /// The module starts at this PFN. The domain builder has not mapped it.
    Frame(u64),
}

impl PvConsole {
    /// Checks the fields of the console alone.
    ///
    /// A kernel can set up its console with the result, and then print why [`PvStartInfo::read`]
    /// refuses another field. A kernel may call this function from its first instruction on.
    ///
    /// # Errors
    ///
    /// Returns the first field of the console whose value is not possible in a domain that Xen has
    /// built.
    pub fn read(raw: &start_info) -> Result<Self, StartInfoError> {
        if !StartFlags::new(raw.flags).initial_domain() {
            // SAFETY: Both fields are integers without padding before or between them, so any bits
            // are valid. `raw` references all of their bytes.
            let (mfn, evtchn) = unsafe { (raw.console.domU.mfn, raw.console.domU.evtchn) };
            at_most("console.domU.mfn", mfn, MAX_FRAMES - 1)?;
            at_most("console.domU.evtchn", evtchn.into(), MAX_PORT)?;
            return Ok(Self::DomU { mfn, evtchn });
        }
        // SAFETY: Both fields are integers, so any bits are valid. They cover the first eight bytes
        // of the union, which `raw` references and which are `domU.mfn` in its other member.
        let (info_off, info_size) =
            unsafe { (raw.console.dom0.info_off, raw.console.dom0.info_size) };
        if info_size != 0 {
            // Xen puts the structure into the page of the start info (item 3d of the layout in
            // xen.h).
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
        Ok(Self::Dom0 { info_off, info_size })
    }
}

impl<'a> PvStartInfo<'a> {
    /// Checks every field of `raw`.
    ///
    /// The addresses in the result agree with each other and with the value of
    /// `XEN_ELFNOTE_VIRT_BASE`, [`KERNEL_BASE`]. The reader does not access the memory at these
    /// addresses.
    ///
    /// The result borrows its texts from `raw`. A kernel may call this function from its first
    /// instruction on.
    ///
    /// ```
    /// use pvh_boot::start_info::PvStartInfo;
    ///
    /// /// Returns the number of frames of the domain.
    /// fn frames(raw: &xen_sys::start_info) -> u64 {
    ///     match PvStartInfo::read(raw) {
    ///         Ok(info) => info.nr_pages,
    ///         Err(error) => panic!("start info: {error}"),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the first field whose value is not possible in a domain that Xen has built.
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

        // Without XEN_ELFNOTE_INIT_P2M, the P2M lies below the page tables.
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
            console: PvConsole::read(raw)?,
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
    text_until_nul("magic", bytes)
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

/// Returns a C string of `xen-sys`, which consists of `i8`, as bytes.
fn unsigned<const N: usize>(chars: &[i8; N]) -> &[u8] {
    // SAFETY: `i8` and `u8` have the same size and alignment, and any bits are valid for both. The
    // result has the lifetime of `chars`.
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

/// Checks that the domain has the frames `first..first + count`.
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

/// Checks that `start..start + len` lies in the boot mapping.
///
/// The boot mapping maps the first frames of the domain in order, from [`KERNEL_BASE`] on (item 5 of
/// the layout in xen.h).
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
