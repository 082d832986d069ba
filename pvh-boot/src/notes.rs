//! The ELF notes by which Xen recognises the image and learns how to start it.
//!
//! Read by `elf_xen_parse` in `xen/common/libelf/libelf-dominfo.c`, for domUs as
//! well as for dom0; the meaning of each is in `xen/include/public/elfnote.h`. For
//! a PVH start only `PHYS32_ENTRY` counts; the rest is for PV.
//!
//! Left out on purpose: `HV_START_LOW` (32-bit guests only), `INIT_P2M` (the list
//! stays in the boot mapping), `SUSPEND_CANCEL`, `BSD_SYMTAB`, and `PHYS32_RELOC`
//! (the image runs where it was linked to).

use core::arch::global_asm;

use crate::layout::KERNEL_BASE;
use crate::pv_entry::pvh_boot_pv_entry;
use crate::pvh_entry::pvh_boot_pvh_entry;

/// Note types of `xen/include/public/elfnote.h` (`XEN_ELFNOTE_…`).
mod kind {
    pub(super) const ENTRY: u32 = 1;
    pub(super) const HYPERCALL_PAGE: u32 = 2;
    pub(super) const VIRT_BASE: u32 = 3;
    pub(super) const PADDR_OFFSET: u32 = 4;
    pub(super) const XEN_VERSION: u32 = 5;
    pub(super) const GUEST_OS: u32 = 6;
    pub(super) const GUEST_VERSION: u32 = 7;
    pub(super) const LOADER: u32 = 8;
    pub(super) const PAE_MODE: u32 = 9;
    pub(super) const FEATURES: u32 = 10;
    pub(super) const L1_MFN_VALID: u32 = 13;
    pub(super) const MOD_START_PFN: u32 = 16;
    pub(super) const SUPPORTED_FEATURES: u32 = 17;
    pub(super) const PHYS32_ENTRY: u32 = 18;
}

/// Bits of `xen/include/public/features.h` (`XENFEAT_…`) that the image can live
/// with. Without `DOM0`, `dom0_construct_pv` refuses a kernel that has the note.
/// None is required: a required bit that the other world lacks would shut it out.
const SUPPORTED_FEATURES: u32 = 1 << 0 // writable_page_tables: as PVH
    | 1 << 2 // auto_translated_physmap: as PVH
    | 1 << 4 // pae_pgdir_above_4gb
    | 1 << 8 // hvm_callback_vector: as PVH
    | 1 << 11; // dom0

/// One note: sizes of name and descriptor, type, name, descriptor, each padded to
/// four bytes.
macro_rules! note {
    ($kind:literal, $descriptor:expr) => {
        concat!(
            ".balign 4\n .long 4, 3f - 2f, {",
            $kind,
            "}\n .asciz \"Xen\"\n 2: ",
            $descriptor,
            "\n 3: .balign 4"
        )
    };
}

global_asm!(
    ".pushsection .note.Xen, \"a\", @note",
    ".balign 4",
    ".globl pvh_boot_notes",
    "pvh_boot_notes:",
    note!("PHYS32_ENTRY", ".quad {pvh_entry} + {to_physical}"),
    note!("ENTRY", ".quad {pv_entry}"),
    note!("HYPERCALL_PAGE", ".quad HYPERCALL_PAGE"),
    note!("VIRT_BASE", ".quad {virt_base}"),
    note!("PADDR_OFFSET", ".quad 0"),
    note!("XEN_VERSION", ".asciz \"xen-3.0\""),
    note!("GUEST_OS", ".asciz \"xen-contig\""),
    note!("GUEST_VERSION", concat!(".asciz \"", env!("CARGO_PKG_VERSION"), "\"")),
    // Any loader other than "generic" is refused unless the guest is Linux.
    note!("LOADER", ".asciz \"generic\""),
    note!("PAE_MODE", ".asciz \"yes\""),
    note!("FEATURES", ".asciz \"pae_pgdir_above_4gb\""),
    note!("SUPPORTED_FEATURES", ".long {features}"),
    // A PTE with its present bit clear holds no machine frame: mask and value.
    note!("L1_MFN_VALID", ".quad 1, 1"),
    // An initial RAM disk need not be mapped: start_info may give its frame.
    note!("MOD_START_PFN", ".long 1"),
    ".popsection",
    PHYS32_ENTRY = const kind::PHYS32_ENTRY,
    ENTRY = const kind::ENTRY,
    HYPERCALL_PAGE = const kind::HYPERCALL_PAGE,
    VIRT_BASE = const kind::VIRT_BASE,
    PADDR_OFFSET = const kind::PADDR_OFFSET,
    XEN_VERSION = const kind::XEN_VERSION,
    GUEST_OS = const kind::GUEST_OS,
    GUEST_VERSION = const kind::GUEST_VERSION,
    LOADER = const kind::LOADER,
    PAE_MODE = const kind::PAE_MODE,
    FEATURES = const kind::FEATURES,
    SUPPORTED_FEATURES = const kind::SUPPORTED_FEATURES,
    L1_MFN_VALID = const kind::L1_MFN_VALID,
    MOD_START_PFN = const kind::MOD_START_PFN,
    pvh_entry = sym pvh_boot_pvh_entry,
    pv_entry = sym pvh_boot_pv_entry,
    to_physical = const KERNEL_BASE.wrapping_neg(),
    virt_base = const KERNEL_BASE,
    features = const SUPPORTED_FEATURES,
);

unsafe extern "C" {
    /// The first byte of the notes, for [`entry!`](crate::entry) to refer to.
    #[link_name = "pvh_boot_notes"]
    pub static NOTES: u8;
}
