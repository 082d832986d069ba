//! The GDT that takes a PVH guest into 64-bit mode.
//!
//! A PV guest does not need a GDT of its own: Xen provides flat segments at Xen's selectors.

/// Selector of the 64-bit code segment that the PVH entry loads into `cs`.
pub const CODE_SELECTOR: u16 = 8;

/// Selector of the data segment that the PVH entry loads into `ds`, `es` and `ss`.
pub const DATA_SELECTOR: u16 = 16;

/// Present, ring 0, code, readable, long mode, largest limit, granularity 4 KiB.
const CODE_64: u64 = 0x00af_9b00_0000_ffff;

/// Present, ring 0, data, writable, largest limit, granularity 4 KiB.
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// A GDT with a null descriptor, a code and a data segment.
///
/// The accessed bits are set, so the CPU does not write to the table. It can lie in read-only memory.
#[repr(C, align(8))]
pub(crate) struct BootGdt([u64; 3]);

/// The GDT that the PVH entry loads.
pub(crate) static BOOT_GDT: BootGdt = BootGdt([0, CODE_64, DATA]);

/// The limit that `lgdt` expects: the size of the table in bytes, minus one.
pub(crate) const BOOT_GDT_LIMIT: u16 = size_of::<BootGdt>() as u16 - 1;
