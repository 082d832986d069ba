//! The ELF notes that tell Xen how to start the image.
//!
//! `elf_xen_parse` reads them for a domU and for dom0 (`xen/common/libelf/libelf-dominfo.c`).
//! `xen/include/public/elfnote.h` defines their meaning. A PVH start uses only `PHYS32_ENTRY`. A PV
//! start uses the others.
//!
//! These notes are left out on purpose:
//!
//! * `HV_START_LOW` is for 32-bit guests.
//! * Without `INIT_P2M`, the P2M list stays in the boot mapping, where the kernel expects it.
//! * Without `PHYS32_RELOC`, Xen loads the image at the address for which it is linked.
//! * `SUSPEND_CANCEL` and `BSD_SYMTAB` announce abilities that this crate cannot promise for a kernel.

use core::arch::global_asm;

use crate::layout::KERNEL_BASE;
use crate::pv_entry::pvh_boot_pv_entry;
use crate::pvh_entry::pvh_boot_pvh_entry;

/// Note types: `XEN_ELFNOTE_…` of `xen/include/public/elfnote.h`.
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

/// The `XENFEAT_…` bits that the image supports (`xen/include/public/features.h`).
///
/// `dom0_construct_pv` refuses a kernel whose note lacks `dom0`. The image requires no feature: Xen
/// would refuse to start it as the kind of guest that lacks a required feature.
const SUPPORTED_FEATURES: u32 = 1 << 0 // writable_page_tables, in a PVH guest
    | 1 << 2 // auto_translated_physmap, in a PVH guest
    | 1 << 4 // pae_pgdir_above_4gb
    | 1 << 8 // hvm_callback_vector, in a PVH guest
    | 1 << 11; // dom0

/// The assembly of one note.
///
/// A note consists of the sizes of name and descriptor, the type, the name and the descriptor. Name
/// and descriptor are padded to four bytes.
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
    // Xen refuses any other loader, except for Linux.
    note!("LOADER", ".asciz \"generic\""),
    note!("PAE_MODE", ".asciz \"yes\""),
    note!("FEATURES", ".asciz \"pae_pgdir_above_4gb\""),
    note!("SUPPORTED_FEATURES", ".long {features}"),
    // Mask and value: a page-table entry holds a machine frame if its present bit is set.
    note!("L1_MFN_VALID", ".quad 1, 1"),
    // The domain builder may leave the module unmapped and pass its frame in the start info.
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
    /// The first byte of the notes. [`entry!`](crate::entry) references it.
    #[link_name = "pvh_boot_notes"]
    pub static NOTES: u8;
}
