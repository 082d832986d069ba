//! The page-table entries that a PVH guest writes itself.

use core::sync::atomic::AtomicU64;

use x86_64::VirtAddr;
use x86_64::registers::control::Cr3;

use crate::layout::LINEAR_BASE;

/// The bits of an entry that name a frame.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Returns the first-level entry of an address in a PVH guest.
///
/// # Safety
/// - The guest is a PVH guest, and the linear mapping maps all its page tables.
/// - There is a first-level table for the address. It is never freed, and it is writable in the
///   linear mapping.
pub unsafe fn own_entry(address: VirtAddr) -> &'static AtomicU64 {
    let index = |shift: u32| (address.as_u64() >> shift) % 512;
    let slot = |table: u64, index: u64| (LINEAR_BASE + table + index * 8) as *mut u64;
    let mut table = Cr3::read().0.start_address().as_u64();
    for shift in [39, 30, 21] {
        // SAFETY: by this function's contract there is a table on each level, and the linear
        // mapping maps it. After boot the entries that name lower tables never change.
        table = unsafe { slot(table, index(shift)).read_volatile() } & ADDRESS;
    }
    // SAFETY: by this function's contract the table is mapped writable and never freed. The entry is
    // aligned, and all accesses to it are atomic.
    unsafe { AtomicU64::from_ptr(slot(table, index(12))) }
}
