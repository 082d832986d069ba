//! A PVH guest's page tables: new ones, 2 MiB pages where rights allow, no identity mapping.

use arrayvec::ArrayVec;
use core::ops::Range;
use core::sync::atomic::AtomicU64;

use hypercall::PageTableFlags;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr};
use xen_contig::addr::{Gfn, PAGE_SIZE};

use super::{EXECUTE, READ, READ_WRITE, TABLE};
use crate::layout::{self, AREAS_BASE, KERNEL_BASE, LINEAR_BASE, WINDOW_BASE, image};

const PAGE: u64 = PAGE_SIZE as u64;
const LARGE: u64 = 2 << 20;
/// The bits of an entry that name a frame.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page tables under construction. Tables are frames below 4 GiB, which the boot page tables map
/// at the linear base.
pub struct Builder {
    top: u64,
    /// Frames that the tables are cut from.
    spare: Range<u64>,
}

impl Builder {
    /// A builder that cuts its tables from `spare`, physical addresses below 4 GiB.
    pub fn new(spare: Range<u64>) -> Self {
        let mut builder = Self { top: 0, spare };
        builder.top = builder.table();
        builder
    }

    /// A new, empty table.
    fn table(&mut self) -> u64 {
        let table = self.spare.start;
        assert!(table + PAGE <= self.spare.end, "not enough memory for the page tables");
        self.spare.start += PAGE;
        for index in 0..512 {
            // SAFETY: the frame is spare ([M1](xen_contig::rules#M1)) and mapped at the linear
            // base.
            unsafe { entry(table, index).write_volatile(0) };
        }
        table
    }

    /// Maps the page of `size` bytes at `virt` to `phys`.
    fn map(&mut self, virt: u64, phys: u64, size: u64, flags: PageTableFlags) {
        let last = if size == LARGE { 21 } else { 12 };
        let mut table = self.top;
        for shift in [39, 30, 21, 12] {
            let slot = entry(table, (virt >> shift) % 512);
            if shift == last {
                let huge = if size == LARGE { PageTableFlags::HUGE_PAGE.bits() } else { 0 };
                // SAFETY: a slot of a table that this builder made and nobody uses yet.
                unsafe { slot.write_volatile(phys | flags.bits() | huge) };
                return;
            }
            // SAFETY: as above.
            let present = unsafe { slot.read_volatile() };
            table = if present != 0 {
                present & ADDRESS
            } else {
                let lower = self.table();
                // SAFETY: as above.
                unsafe { slot.write_volatile(lower | TABLE.bits()) };
                lower
            };
        }
    }

    /// Maps RAM at the linear base. Text and constants of the image are read-only there, too.
    pub fn map_linear(&mut self, ram: Range<u64>) {
        let image = image();
        let fixed = image.text.0 - KERNEL_BASE..image.rodata.1 - KERNEL_BASE;
        let mut phys = ram.start;
        while phys + PAGE <= ram.end {
            let large = phys.is_multiple_of(LARGE)
                && phys + LARGE <= ram.end
                && (phys + LARGE <= fixed.start || phys >= fixed.end);
            let size = if large { LARGE } else { PAGE };
            let flags = if fixed.contains(&phys) { READ } else { READ_WRITE };
            self.map(LINEAR_BASE + phys, phys, size, flags);
            phys += size;
        }
    }

    /// Maps the image with its rights, leaving out the stack's guard page.
    pub fn map_image(&mut self) {
        let image = image();
        let guard = pvh_boot::boot_stack().guard;
        for ((start, end), flags) in
            [(image.text, EXECUTE), (image.rodata, READ), (image.data, READ_WRITE)]
        {
            for virt in (start..end).step_by(PAGE_SIZE).filter(|virt| *virt != guard) {
                self.map(virt, virt - KERNEL_BASE, PAGE, flags);
            }
        }
    }

    /// Maps single pages at window slots, whatever lies beneath them. The window's tables are made
    /// even if there are none, so that [`set_window`] finds them.
    pub fn map_window(&mut self, pages: &ArrayVec<(u64, u64), 4>) {
        self.map(WINDOW_BASE, 0, PAGE, PageTableFlags::empty());
        for (slot, phys) in pages {
            self.map(layout::window(*slot).as_u64(), *phys, PAGE, READ_WRITE);
        }
        debug_assert!(pages.iter().all(|(slot, _)| layout::window(*slot).as_u64() >= WINDOW_BASE));
    }

    /// Makes the first-level tables of the virtual areas, so that [`area_entry`] finds them.
    pub fn make_areas(&mut self, pages: u32) {
        for page in (0..u64::from(pages)).step_by(512) {
            self.map(AREAS_BASE + page * PAGE, 0, PAGE, PageTableFlags::empty());
        }
    }

    /// Goes over to the new tables. Returns the spare memory that is left.
    ///
    /// # Safety
    /// RAM, image and window are mapped, and nothing is in use at an address that only the boot
    /// page tables map.
    pub unsafe fn switch(self) -> Range<u64> {
        let frame = PhysFrame::containing_address(PhysAddr::new(self.top));
        // SAFETY: the new tables map the image and this stack where they are; the caller's word
        // covers the rest.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
        self.spare
    }
}

/// Maps a frame at a window slot, or nothing.
pub fn set_window(slot: u64, target: Option<(Gfn, PageTableFlags)>) {
    let address = layout::window(slot);
    let pte = target.map_or(0, |(gfn, flags)| (gfn.number() * PAGE) | flags.bits());
    // SAFETY: the builder made the window's tables. Window slots hold nothing of Rust's; who uses
    // one keeps to raw pointers ([M5](xen_contig::rules#M5)).
    unsafe { entry_of(address).write_volatile(pte) };
    tlb::flush(address);
}

/// The first-level entry of an address in an area.
pub fn area_entry(address: VirtAddr) -> &'static AtomicU64 {
    // SAFETY: the builder made the areas' tables, which are never freed; all accesses to their
    // entries are atomic.
    unsafe { AtomicU64::from_ptr(entry_of(address)) }
}

/// The first-level entry of an address.
///
/// # Safety
/// There is a first-level table for it.
unsafe fn entry_of(address: VirtAddr) -> *mut u64 {
    let index = |shift: u32| (address.as_u64() >> shift) % 512;
    let mut table = Cr3::read().0.start_address().as_u64();
    for shift in [39, 30, 21] {
        // SAFETY: the builder makes tables of RAM, which the linear mapping shows.
        table = unsafe { entry(table, index(shift)).read_volatile() } & ADDRESS;
    }
    entry(table, index(12))
}

/// The address of an entry of a table: the boot page tables and the kernel's own both show tables
/// at the linear base.
fn entry(table: u64, index: u64) -> *mut u64 {
    (LINEAR_BASE + table + index * 8) as *mut u64
}
