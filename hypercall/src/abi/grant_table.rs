//! `public/grant_table.h`.

use super::assert_layout;

/// The lowest reference that a guest may use. The toolstack uses lower ones for the rings of console
/// and xenstore (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const FIRST_FREE_REFERENCE: u32 = 8;

/// `GTF_permit_access`: the other domain may map the frame.
pub const PERMIT_ACCESS: u16 = 1;
/// `GTF_reading`: the other domain maps the frame readable.
pub const READING: u16 = 1 << 3;
/// `GTF_writing`: the other domain maps the frame writable.
pub const WRITING: u16 = 1 << 4;

/// `grant_entry_v1_t`: what the table says of one reference.
///
/// Xen changes `flags` at any time. Access it only through raw pointers, by atomic operations.
#[repr(C)]
pub struct GrantEntry {
    /// `GTF_*`.
    pub flags: u16,
    /// The domain that may use the reference.
    pub domid: u16,
    /// The frame: a machine frame of a PV guest, a guest frame of a translated one.
    pub frame: u32,
}
assert_layout!(GrantEntry, size 8, flags @ 0, domid @ 2, frame @ 4);

/// `struct gnttab_setup_table`.
#[repr(C)]
pub struct SetupTable {
    /// The domain, normally the caller.
    pub dom: u16,
    /// The number of frames of the table.
    pub nr_frames: u32,
    /// `GNTST_*`: 0, or a negative number.
    pub status: i16,
    /// The list that Xen fills, with an entry per frame.
    pub frame_list: *mut u64,
}
assert_layout!(SetupTable, size 24, dom @ 0, nr_frames @ 4, status @ 8, frame_list @ 16);
