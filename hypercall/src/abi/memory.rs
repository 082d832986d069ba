//! `public/memory.h`: reservations, the exchange, machine-to-physical and memory maps.

use super::assert_layout;
use crate::DomId;

/// `struct xen_memory_reservation`: a list of extents of one order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryReservation {
    /// The list: the first frame of each extent. Xen reads or writes it, by the operation.
    pub extent_start: *mut u64,
    /// The number of extents in the list.
    pub nr_extents: u64,
    /// Each extent is `1 << extent_order` frames.
    pub extent_order: u32,
    /// `XENMEMF_*`: address bits in bits 0..8, node plus one in 8..16, flags above. See
    /// [`MemFlags`](crate::ops::MemFlags).
    pub mem_flags: u32,
    /// The domain that has the memory.
    pub domid: DomId,
}
assert_layout!(MemoryReservation, size 32,
    extent_start @ 0, nr_extents @ 8, extent_order @ 16, mem_flags @ 20, domid @ 24);

/// `struct xen_memory_exchange`: the argument of `XENMEM_exchange`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryExchange {
    /// The in-extents, which the guest gives to Xen: the `Gfn` of each.
    pub input: MemoryReservation,
    /// The out-extents, which Xen gives to the guest: the `Pfn` of each before the call, the `Gfn`
    /// after it.
    pub output: MemoryReservation,
    /// The number of in-extents exchanged; 0 before the call.
    pub nr_exchanged: u64,
}
assert_layout!(MemoryExchange, size 72, input @ 0, output @ 32, nr_exchanged @ 64);

/// `struct xen_machphys_mapping`: the place of the machine-to-physical table of a PV guest.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MachphysMapping {
    /// The first virtual address of the table.
    pub v_start: u64,
    /// The first virtual address past the table.
    pub v_end: u64,
    /// The highest machine frame number that the table has an entry for.
    pub max_mfn: u64,
}
assert_layout!(MachphysMapping, size 24, v_start @ 0, v_end @ 8, max_mfn @ 16);

/// `XENMAPSPACE_shared_info`: the space of the page that a domain shares with Xen.
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;

/// `struct xen_add_to_physmap`: a page of Xen's and the frame of a translated guest where it goes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AddToPhysmap {
    /// The domain that has the frame.
    pub domid: DomId,
    /// The number of pages, for `XENMAPSPACE_gmfn_range`; else 0.
    pub size: u16,
    /// The space, `XENMAPSPACE_*`.
    pub space: u32,
    /// The index of the page in that space.
    pub idx: u64,
    /// The frame. The memory that was there returns to Xen.
    pub gpfn: u64,
}
assert_layout!(AddToPhysmap, size 24, domid @ 0, size @ 2, space @ 4, idx @ 8, gpfn @ 16);

/// `struct xen_memory_map`: the argument of `XENMEM_memory_map`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryMap {
    /// The capacity of the buffer in entries before the call, the number written after it.
    pub nr_entries: u32,
    /// The buffer of entries.
    pub buffer: *mut E820Entry,
}
assert_layout!(MemoryMap, size 16, nr_entries @ 0, buffer @ 8);

/// An entry of the memory map, in the format of the BIOS call INT 0x15, EAX=0xE820.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed)]
pub struct E820Entry {
    /// The address of the first byte.
    pub start: u64,
    /// The length in bytes.
    pub length: u64,
    /// The type; 1 is RAM.
    pub kind: u32,
}
assert_layout!(E820Entry, size 20, start @ 0, length @ 8, kind @ 16);
