//! `public/memory.h`: reservations, the exchange, machine-to-physical and memory maps.

use super::assert_layout;
use crate::DomId;

/// `XENMEM_increase_reservation`.
pub const XENMEM_INCREASE_RESERVATION: u32 = 0;
/// `XENMEM_decrease_reservation`.
pub const XENMEM_DECREASE_RESERVATION: u32 = 1;
/// `XENMEM_maximum_ram_page`.
pub const XENMEM_MAXIMUM_RAM_PAGE: u32 = 2;
/// `XENMEM_current_reservation`.
pub const XENMEM_CURRENT_RESERVATION: u32 = 3;
/// `XENMEM_maximum_reservation`.
pub const XENMEM_MAXIMUM_RESERVATION: u32 = 4;
/// `XENMEM_populate_physmap`.
pub const XENMEM_POPULATE_PHYSMAP: u32 = 6;
/// `XENMEM_add_to_physmap`.
pub const XENMEM_ADD_TO_PHYSMAP: u32 = 7;
/// `XENMEM_memory_map`.
pub const XENMEM_MEMORY_MAP: u32 = 9;
/// `XENMEM_exchange`.
pub const XENMEM_EXCHANGE: u32 = 11;
/// `XENMEM_machphys_mapping`.
pub const XENMEM_MACHPHYS_MAPPING: u32 = 12;

/// `struct xen_memory_reservation`: a list of extents of one order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryReservation {
    /// The first frame of each extent; read or written by Xen as the operation says.
    pub extent_start: *mut u64,
    /// Number of extents in the list.
    pub nr_extents: u64,
    /// Each extent is `1 << extent_order` frames.
    pub extent_order: u32,
    /// `XENMEMF_*`: address bits in 0..8, node plus one in 8..16, flags above.
    pub mem_flags: u32,
    /// Whose memory.
    pub domid: DomId,
}
assert_layout!(MemoryReservation, size 32,
    extent_start @ 0, nr_extents @ 8, extent_order @ 16, mem_flags @ 20, domid @ 24);

/// `struct xen_memory_exchange`: the argument of `XENMEM_exchange`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryExchange {
    /// The extents given up: `Gfn` of each.
    pub input: MemoryReservation,
    /// The extents wanted: `Pfn` of each on the way in, `Gfn` on the way out.
    pub output: MemoryReservation,
    /// In-extents exchanged so far. Starts at 0; Xen counts it up.
    pub nr_exchanged: u64,
}
assert_layout!(MemoryExchange, size 72, input @ 0, output @ 32, nr_exchanged @ 64);

/// `struct xen_machphys_mapping`: where a PV guest finds the machine-to-physical table.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MachphysMapping {
    /// First virtual address of the table.
    pub v_start: u64,
    /// First virtual address behind it.
    pub v_end: u64,
    /// The highest machine frame number that it can be asked for.
    pub max_mfn: u64,
}
assert_layout!(MachphysMapping, size 24, v_start @ 0, v_end @ 8, max_mfn @ 16);

/// `XENMAPSPACE_shared_info`: the page that a domain shares with Xen.
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;

/// `struct xen_add_to_physmap`: puts a page of Xen's at a frame of a translated guest.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AddToPhysmap {
    /// Whose frame.
    pub domid: DomId,
    /// How many pages, for the one space that takes a number; else 0.
    pub size: u16,
    /// `XENMAPSPACE_*`.
    pub space: u32,
    /// Which page of that space.
    pub idx: u64,
    /// The frame. What is there goes back to Xen.
    pub gpfn: u64,
}
assert_layout!(AddToPhysmap, size 24, domid @ 0, size @ 2, space @ 4, idx @ 8, gpfn @ 16);

/// `struct xen_memory_map`: the argument of `XENMEM_memory_map`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryMap {
    /// Room in the buffer on the way in, entries written on the way out.
    pub nr_entries: u32,
    /// The entries.
    pub buffer: *mut E820Entry,
}
assert_layout!(MemoryMap, size 16, nr_entries @ 0, buffer @ 8);

/// An entry of the memory map, as BIOS INT 0x15 EAX=0xE820 returns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed)]
pub struct E820Entry {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// 1 is RAM.
    pub kind: u32,
}
assert_layout!(E820Entry, size 20, start @ 0, length @ 8, kind @ 16);
