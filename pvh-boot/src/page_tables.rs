//! The first page tables of a PVH guest. A PV guest comes with its own.
//!
//! | virtual | maps | rights |
//! |---|---|---|
//! | 0 | the first 4 GiB | all: the switch to 64-bit mode runs here |
//! | [`LINEAR_BASE`] | the first 4 GiB | no execution |
//! | [`KERNEL_BASE`] | the first GiB | all |
//!
//! Identity and linear mapping share their tables below the top level. The
//! kernel's mapping has a directory of its own, so that the kernel can change
//! rights there without touching the linear mapping. All pages are 2 MiB. The
//! entry fills the tables in at run time; in the image they are zero, in `.bss`.

use core::cell::UnsafeCell;
use core::slice;

use crate::layout::{BOOT_MAPPED, ENTRIES, KERNEL_BASE, LARGE_PAGE_SIZE, LINEAR_BASE, PAGE_SIZE};

/// Entry is valid.
pub(crate) const PRESENT: u32 = 1 << 0;
/// Memory may be written.
pub(crate) const WRITABLE: u32 = 1 << 1;
/// Entry of a second-level table maps 2 MiB.
pub(crate) const LARGE: u32 = 1 << 7;
/// No execution, as seen in the upper half of an entry.
pub(crate) const NO_EXECUTE_HIGH: u32 = 1 << 31;

/// Number of second-level tables for the identity and linear mappings.
pub(crate) const LOW_DIRECTORIES: usize = (BOOT_MAPPED / (ENTRIES * LARGE_PAGE_SIZE)) as usize;

type Table = [u64; ENTRIES as usize];

/// All tables as one object: one symbol, fixed offsets.
#[repr(C, align(4096))]
pub(crate) struct BootTables {
    pml4: UnsafeCell<Table>,
    low_pdpt: UnsafeCell<Table>,
    kernel_pdpt: UnsafeCell<Table>,
    kernel_directory: UnsafeCell<Table>,
    low_directories: UnsafeCell<[Table; LOW_DIRECTORIES]>,
}

// SAFETY: Rust code never reads or writes through this static. The PVH entry
// fills it on the one boot CPU before any Rust runs; afterwards it belongs to the
// CPU's page walker and to whoever the kernel makes its owner by address.
unsafe impl Sync for BootTables {}

const fn empty() -> UnsafeCell<Table> {
    UnsafeCell::new([0; ENTRIES as usize])
}

/// The tables themselves.
pub(crate) static BOOT_TABLES: BootTables = BootTables {
    pml4: empty(),
    low_pdpt: empty(),
    kernel_pdpt: empty(),
    kernel_directory: empty(),
    low_directories: UnsafeCell::new([[0; ENTRIES as usize]; LOW_DIRECTORIES]),
};

/// Offsets of the tables in [`BOOT_TABLES`], for the entry.
pub(crate) mod offset {
    use super::BootTables;
    use core::mem::offset_of;

    pub(crate) const LOW_PDPT: usize = offset_of!(BootTables, low_pdpt);
    pub(crate) const KERNEL_PDPT: usize = offset_of!(BootTables, kernel_pdpt);
    pub(crate) const KERNEL_DIRECTORY: usize = offset_of!(BootTables, kernel_directory);
    pub(crate) const LOW_DIRECTORIES: usize = offset_of!(BootTables, low_directories);

    // The entry loads the address of the whole object into CR3.
    const _: () = assert!(offset_of!(BootTables, pml4) == 0);
}

/// Where the boot page tables lie, so that the kernel can go on using or reclaim
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootTablesRange {
    /// Physical address of the top-level table, first of all; what CR3 holds.
    pub physical: u64,
    /// Number of 4 KiB tables, one after the other.
    pub tables: u64,
}

/// The boot page tables of a PVH guest.
pub fn boot_tables() -> BootTablesRange {
    BootTablesRange {
        physical: &raw const BOOT_TABLES as u64 - KERNEL_BASE,
        tables: size_of::<BootTables>() as u64 / PAGE_SIZE,
    }
}

/// Physical memory as the boot page tables map it: what
/// [`PvhStartInfo::read`](crate::start_info::pvh::PvhStartInfo::read) wants as its
/// `memory`.
///
/// `None` for physical address 0, for an empty or an over-long range.
///
/// # Safety
///
/// - The boot page tables of a PVH guest, or others with the same linear mapping
///   of the range, are in force as long as the slice lives.
/// - Nobody writes to the range as long as the slice lives. The range is the
///   caller's to judge: a domain builder that points its start info into the
///   running stack breaks this, and no reader can notice.
pub unsafe fn boot_memory<'a>(physical: u64, len: usize) -> Option<&'a [u8]> {
    let end = physical.checked_add(len as u64)?;
    if physical == 0 || len == 0 || end > BOOT_MAPPED {
        return None;
    }
    let start = (LINEAR_BASE + physical) as *const u8;
    // SAFETY: the range lies within the first 4 GiB, which the caller guarantees
    // to be mapped readable at `LINEAR_BASE` and not to change meanwhile. Bytes
    // have no alignment and no invalid values; 4 GiB is below `isize::MAX`.
    Some(unsafe { slice::from_raw_parts(start, len) })
}
