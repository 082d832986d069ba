//! The descriptors that take a PVH guest into 64-bit mode.
//!
//! A PV guest needs none: Xen provides flat segments at its own selectors.

/// Selector of the 64-bit code segment that the PVH entry leaves in `cs`.
pub const CODE_SELECTOR: u16 = 8;

/// Selector of the data segment that the PVH entry leaves in `ds`, `es` and `ss`.
pub const DATA_SELECTOR: u16 = 16;

/// Present, ring 0, code, readable, long mode, limit and granularity at maximum.
const CODE_64: u64 = 0x00af_9b00_0000_ffff;

/// Present, ring 0, data, writable, limit and granularity at maximum.
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// The table. Both descriptors have their accessed bit set, so that the CPU does
/// not write to it and it can live in read-only memory.
#[repr(C, align(8))]
pub(crate) struct BootGdt([u64; 3]);

/// The GDT that the PVH entry loads.
pub(crate) static BOOT_GDT: BootGdt = BootGdt([0, CODE_64, DATA]);

/// The limit that `lgdt` wants: size minus one.
pub(crate) const BOOT_GDT_LIMIT: u16 = size_of::<BootGdt>() as u16 - 1;
