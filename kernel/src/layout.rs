//! The kernel's virtual addresses, and the rights of its mappings.
//!
//! | from | what | rights |
//! |---|---|---|
//! | 0 | nothing: a null pointer faults | – |
//! | [`LINEAR_BASE`] | every frame of the guest | read, write; some only read, see below |
//! | [`WINDOW_BASE`] | 2 MiB for single pages: shared pages, aliases, registers | read, write |
//! | [`AREAS_BASE`] | virtual areas, see [`area_pages`] | by area |
//! | [`KERNEL_BASE`] | the image, from 2 MiB on | text RX, rodata R, data and bss RW |
//!
//! The linear mapping of text, rodata and page tables is read-only. A PVH guest writes the
//! first-level tables of the window and of the areas itself, so their linear mapping is writable.

use hypercall::PageTableFlags;
use x86_64::VirtAddr;
use xen_contig::addr::{PAGE_SIZE, Pfn};

pub use pvh_boot::layout::{KERNEL_BASE, LINEAR_BASE};

/// The start of the window for single pages: 512 slots, one first-level table.
pub const WINDOW_BASE: u64 = 0xffff_c900_0000_0000;

/// The number of slots in the window.
pub const WINDOW_SLOTS: u64 = 512;

/// The start of the virtual areas, which have a top-level slot of their own.
pub const AREAS_BASE: u64 = 0xffff_c980_0000_0000;

/// Returns the pages of addresses for virtual areas in a guest of `frames` frames.
///
/// The result is a multiple of 512. 512 MiB of addresses need 1 MiB of page tables and 2 MiB of
/// metadata. A guest of 64 MiB or more gets them; a smaller one gets one page for each frame.
pub const fn area_pages(frames: u64) -> u32 {
    const ALL: u32 = 1 << 17;
    const ROOMY: u64 = 1 << 14;
    if frames >= ROOMY { ALL } else { (frames as u32).next_multiple_of(512) }
}

/// The number of frames that fit the linear mapping: one top-level slot, 512 GiB.
pub const LINEAR_FRAMES: u64 = 1 << 27;

/// Returns the linear address of a frame.
pub fn linear(pfn: Pfn) -> VirtAddr {
    VirtAddr::new(LINEAR_BASE + pfn.number() * PAGE_SIZE as u64)
}

/// Returns the frame of an address in the image.
pub const fn image_frame(address: u64) -> Pfn {
    Pfn::new((address - KERNEL_BASE) / PAGE_SIZE as u64)
}

/// Returns the address of a window slot.
pub fn window(slot: u64) -> VirtAddr {
    debug_assert!(slot < WINDOW_SLOTS);
    VirtAddr::new(WINDOW_BASE + slot * PAGE_SIZE as u64)
}

/// What each window slot is used for.
pub mod slot {
    /// The console ring of a PVH guest, which lies outside its RAM.
    pub const CONSOLE: u64 = 0;
    /// The second mapping of a frame in a self-test.
    pub const ALIAS: u64 = 1;
    /// The grant table.
    pub const GRANT_TABLE: u64 = 510;
    /// A slot at which a self-test maps frames only to see whether Xen permits it.
    pub const PROBE: u64 = 511;
    /// The page that Xen shares with the domain.
    pub const SHARED_INFO: u64 = 3;
    /// The xenstore ring of a PVH guest, which lies outside its RAM.
    pub const XENSTORE: u64 = 4;
    /// The first slot for the registers of devices.
    pub const DEVICES: u64 = 128;
    /// The number of slots for the registers of devices. An e1000 needs 32.
    pub const DEVICE_PAGES: u64 = 64;
}

/// Flags of memory that is read and written.
pub const READ_WRITE: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::ACCESSED)
    .union(PageTableFlags::DIRTY)
    .union(PageTableFlags::NO_EXECUTE);

/// Flags of memory that is only read.
pub const READ: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::ACCESSED).union(PageTableFlags::NO_EXECUTE);

/// Flags of code.
pub const EXECUTE: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::ACCESSED);

/// Flags of an entry that names a lower table.
pub const TABLE: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::ACCESSED)
    .union(PageTableFlags::DIRTY);

/// Flags of a device's registers, which are not cached.
pub const REGISTERS: PageTableFlags =
    READ_WRITE.union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH);

/// Boundaries of the image, from the linker script. All are page-aligned.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Executable code.
    pub text: (u64, u64),
    /// Constants and notes.
    pub rodata: (u64, u64),
    /// Variables, zeroed ones included.
    pub data: (u64, u64),
}

/// Returns the boundaries of the image.
pub fn image() -> Image {
    unsafe extern "C" {
        static __text_start: u8;
        static __text_end: u8;
        static __rodata_start: u8;
        static __rodata_end: u8;
        static __data_start: u8;
        static __bss_end: u8;
    }
    let at = |symbol: *const u8| symbol as u64;
    Image {
        text: (at(&raw const __text_start), at(&raw const __text_end)),
        rodata: (at(&raw const __rodata_start), at(&raw const __rodata_end)),
        data: (at(&raw const __data_start), at(&raw const __bss_end)),
    }
}
