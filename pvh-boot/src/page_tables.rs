//! The first page tables of a PVH guest.
//!
//! | virtual address | maps | rights |
//! |---|---|---|
//! | 0 | the first 4 GiB | all: the switch to 64-bit mode runs here |
//! | [`LINEAR_BASE`] | the first 4 GiB | no execution |
//! | [`KERNEL_BASE`] | the first GiB | all |
//!
//! The identity mapping and the linear mapping share their tables below the top level. The kernel's
//! mapping has a second-level table of its own, so the kernel can change rights there and leave the
//! linear mapping as it is. All pages are 2 MiB. The tables lie in `.bss`, and the PVH entry fills
//! them.
//!
//! A PV guest starts on the page tables of the domain builder and does not use these.
//!
//! This module exists only for `target_os = "none"`.

use core::cell::UnsafeCell;
use core::slice;

use crate::layout::{BOOT_MAPPED, ENTRIES, KERNEL_BASE, LARGE_PAGE_SIZE, LINEAR_BASE, PAGE_SIZE};

/// The entry is valid.
pub(crate) const PRESENT: u32 = 1 << 0;
/// The CPU may write to the memory.
pub(crate) const WRITABLE: u32 = 1 << 1;
/// The entry of a second-level table maps 2 MiB.
pub(crate) const LARGE: u32 = 1 << 7;
/// The CPU may not execute the memory. The bit is in the upper half of an entry.
pub(crate) const NO_EXECUTE_HIGH: u32 = 1 << 31;

/// Number of second-level tables that the identity and linear mappings share.
pub(crate) const LOW_DIRECTORIES: usize = (BOOT_MAPPED / (ENTRIES * LARGE_PAGE_SIZE)) as usize;

type Table = [u64; ENTRIES as usize];

/// All boot page tables, with one symbol and fixed offsets for the entry.
#[repr(C, align(4096))]
pub(crate) struct PvhTables {
    pml4: UnsafeCell<Table>,
    low_pdpt: UnsafeCell<Table>,
    kernel_pdpt: UnsafeCell<Table>,
    kernel_directory: UnsafeCell<Table>,
    low_directories: UnsafeCell<[Table; LOW_DIRECTORIES]>,
}

// SAFETY: The cells are private and no Rust code accesses them, so threads cannot race through a
// shared reference. The PVH entry fills the tables on the boot vCPU before any Rust code runs. Later
// accesses are the CPU's page walks and the kernel's own, through addresses.
unsafe impl Sync for PvhTables {}

const fn empty() -> UnsafeCell<Table> {
    UnsafeCell::new([0; ENTRIES as usize])
}

/// The boot page tables, which the PVH entry fills.
pub(crate) static BOOT_TABLES: PvhTables = PvhTables {
    pml4: empty(),
    low_pdpt: empty(),
    kernel_pdpt: empty(),
    kernel_directory: empty(),
    low_directories: UnsafeCell::new([[0; ENTRIES as usize]; LOW_DIRECTORIES]),
};

/// Offsets of the tables in [`BOOT_TABLES`], in bytes. The PVH entry uses them.
pub(crate) mod offset {
    use super::PvhTables;
    use core::mem::offset_of;

    pub(crate) const LOW_PDPT: usize = offset_of!(PvhTables, low_pdpt);
    pub(crate) const KERNEL_PDPT: usize = offset_of!(PvhTables, kernel_pdpt);
    pub(crate) const KERNEL_DIRECTORY: usize = offset_of!(PvhTables, kernel_directory);
    pub(crate) const LOW_DIRECTORIES: usize = offset_of!(PvhTables, low_directories);

    // The entry loads the address of the whole object into CR3.
    const _: () = assert!(offset_of!(PvhTables, pml4) == 0);
}

/// The place of the boot page tables of a PVH guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootTablesRange {
    /// Physical address of the first table in bytes.
    ///
    /// It is the top-level table, so `cr3` holds this address.
    pub physical: u64,
    /// Number of consecutive 4 KiB tables.
    pub tables: u64,
}

/// Returns the place of the boot page tables of a PVH guest.
///
/// A kernel that has switched to page tables of its own can use the memory for something else. It may
/// call this function at any time.
pub fn boot_tables() -> BootTablesRange {
    BootTablesRange {
        physical: &raw const BOOT_TABLES as u64 - KERNEL_BASE,
        tables: size_of::<PvhTables>() as u64 / PAGE_SIZE,
    }
}

/// Returns `len` bytes at the physical address `physical`.
///
/// [`PvhStartInfo::read`](crate::start_info::pvh::PvhStartInfo::read) takes this function as its
/// `memory`. The bytes are in the linear mapping. The function returns `None` if `physical` or `len` is
/// 0, or if the range ends above [`BOOT_MAPPED`].
///
/// Call it in a PVH guest, from the entry until the kernel switches to page tables of its own.
///
/// # Safety
///
/// - As long as the slice lives, the page tables in use map the range readable at [`LINEAR_BASE`], as
///   the boot page tables do.
/// - As long as the slice lives, no code writes to the range. The range often comes from the domain
///   builder, and this function cannot check it: a range within the stack in use breaks this rule.
pub unsafe fn boot_memory<'a>(physical: u64, len: usize) -> Option<&'a [u8]> {
    let end = physical.checked_add(len as u64)?;
    if physical == 0 || len == 0 || end > BOOT_MAPPED {
        return None;
    }
    let start = (LINEAR_BASE + physical) as *const u8;
    // SAFETY: The range lies below `BOOT_MAPPED`. The first requirement of `# Safety` says that the
    // page tables map it readable here, the second that it does not change. Any bytes are valid `u8`,
    // and `BOOT_MAPPED` is less than `isize::MAX`.
    Some(unsafe { slice::from_raw_parts(start, len) })
}
