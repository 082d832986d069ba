//! The page tables of a PVH guest.
//!
//! The kernel builds new tables without an identity mapping. They contain pages of 2 MiB where the
//! same rights apply to the whole page.

use core::ops::Range;
use core::sync::atomic::Ordering;

use hypercall::PageTableFlags;
use x86_64::PhysAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;
use xen_contig::addr::{Gfn, PAGE_SIZE};

use crate::layout::{
    self, AREAS_BASE, EXECUTE, KERNEL_BASE, LINEAR_BASE, READ, READ_WRITE, TABLE, image,
};
use crate::paging::{ADDRESS, own_entry};
use crate::vcpu::Stack;

const PAGE: u64 = PAGE_SIZE as u64;
const LARGE: u64 = 2 << 20;
const ENTRIES: u64 = 512;

/// Page tables under construction.
///
/// The tables are frames below 4 GiB, which the boot page tables map at the linear base.
pub struct TableBuilder {
    top: u64,
    /// The first table. The others follow it, up to the spare memory.
    first: u64,
    /// The first-level tables of window and areas, which the kernel writes.
    written: [Range<u64>; 2],
    /// The memory from which tables are cut.
    spare: Range<u64>,
}

impl TableBuilder {
    /// Starts with an empty top-level table.
    ///
    /// Tables are cut from `spare`, which is unused physical memory below 4 GiB.
    pub fn new(spare: Range<u64>) -> Self {
        let mut builder = Self { top: 0, first: spare.start, written: [0..0, 0..0], spare };
        builder.top = builder.table();
        builder
    }

    /// Allocates an empty table.
    fn table(&mut self) -> u64 {
        let table = self.spare.start;
        assert!(
            table + PAGE <= self.spare.end,
            "no memory below 4 GiB remains for the page tables; give the guest more memory"
        );
        self.spare.start += PAGE;
        for index in 0..ENTRIES {
            // SAFETY: the frame is spare, and the boot page tables map it at the linear base.
            unsafe { entry(table, index).write_volatile(0) };
        }
        table
    }

    /// Maps the page of `size` bytes at `virt` to `phys`.
    fn map(&mut self, virt: u64, phys: u64, size: u64, flags: PageTableFlags) {
        let last = if size == LARGE { 21 } else { 12 };
        let mut table = self.top;
        for shift in [39, 30, 21, 12] {
            let slot = entry(table, (virt >> shift) % ENTRIES);
            if shift == last {
                let huge = if size == LARGE { PageTableFlags::HUGE_PAGE.bits() } else { 0 };
                // SAFETY: the slot belongs to a table of this builder, which is not in use yet.
                unsafe { slot.write_volatile(phys | flags.bits() | huge) };
                return;
            }
            // SAFETY: the slot belongs to a table of this builder.
            let present = unsafe { slot.read_volatile() };
            table = if present != 0 {
                present & ADDRESS
            } else {
                let lower = self.table();
                // SAFETY: the slot belongs to a table of this builder, which is not in use yet.
                unsafe { slot.write_volatile(lower | TABLE.bits()) };
                lower
            };
        }
    }

    /// Maps RAM at the linear base. Text and constants of the image are read-only there too.
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

    /// Maps the image with its rights, except the guard pages of the stacks.
    pub fn map_image(&mut self) {
        let image = image();
        let guards = [Stack::Boot, Stack::BootFault].map(|stack| stack.guard());
        for ((start, end), flags) in
            [(image.text, EXECUTE), (image.rodata, READ), (image.data, READ_WRITE)]
        {
            for virt in (start..end).step_by(PAGE_SIZE).filter(|virt| !guards.contains(virt)) {
                self.map(virt, virt - KERNEL_BASE, PAGE, flags);
            }
        }
    }

    /// Makes all tables read-only in the linear mapping, except the first-level tables of window and
    /// areas.
    fn protect_tables(&mut self) {
        let mut table = self.first;
        // To split a large page needs another table, so the end may move.
        while table < self.spare.start {
            if !self.written.iter().any(|tables| tables.contains(&table)) {
                self.protect(table);
            }
            table += PAGE;
        }
    }

    /// Makes a frame of RAM read-only in the linear mapping.
    fn protect(&mut self, phys: u64) {
        let index = |shift: u32| ((LINEAR_BASE + phys) >> shift) % ENTRIES;
        let mut table = self.top;
        for shift in [39, 30] {
            // SAFETY: `map_linear` has mapped the frame, so there is a table on each level.
            table = unsafe { entry(table, index(shift)).read_volatile() } & ADDRESS;
        }
        let slot = entry(table, index(21));
        // SAFETY: the slot belongs to a table of this builder.
        let mut present = unsafe { slot.read_volatile() };
        if present & PageTableFlags::HUGE_PAGE.bits() != 0 {
            let lower = self.table();
            let small = present & !PageTableFlags::HUGE_PAGE.bits();
            for index in 0..ENTRIES {
                // SAFETY: the slot belongs to the table that was just allocated.
                unsafe { entry(lower, index).write_volatile(small + index * PAGE) };
            }
            present = lower | TABLE.bits();
            // SAFETY: the slot belongs to a table of this builder, which is not in use yet.
            unsafe { slot.write_volatile(present) };
        }
        // SAFETY: the slot belongs to a table of this builder, which is not in use yet.
        unsafe { entry(present & ADDRESS, index(12)).write_volatile(phys | READ.bits()) };
    }

    /// Allocates the tables of the window, so that [`set_window`] finds them.
    pub fn make_window(&mut self) {
        self.map(layout::WINDOW_BASE, 0, PAGE, PageTableFlags::empty());
        // The first-level table is the last one that is allocated.
        self.written[0] = self.spare.start - PAGE..self.spare.start;
    }

    /// Maps a frame at a window slot.
    pub fn map_window(&mut self, slot: u64, frame: Gfn) {
        self.map(layout::window(slot).as_u64(), frame.number() * PAGE, PAGE, READ_WRITE);
    }

    /// Allocates the first-level tables of the virtual areas, so that [`own_entry`] finds them.
    pub fn make_areas(&mut self, pages: u32) {
        for page in (0..u64::from(pages)).step_by(ENTRIES as usize) {
            self.map(AREAS_BASE + page * PAGE, 0, PAGE, PageTableFlags::empty());
            // One second-level table names them all, so only first-level tables follow the first.
            let first = if page == 0 { self.spare.start - PAGE } else { self.written[1].start };
            self.written[1] = first..self.spare.start;
        }
    }

    /// Protects the new tables, loads them, and returns the remaining spare memory.
    ///
    /// # Safety
    /// RAM, image and window are mapped. Addresses that only the boot page tables map are no longer
    /// used.
    pub unsafe fn switch(mut self) -> Range<u64> {
        self.protect_tables();
        let frame = PhysFrame::containing_address(PhysAddr::new(self.top));
        // SAFETY: by this function's contract the new tables map everything that is in use. They map
        // the image, and with it the running code and its stack, at the same addresses as before.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
        self.spare
    }
}

/// Maps a frame at a window slot, or removes the mapping if `target` is `None`.
pub fn set_window(slot: u64, target: Option<(Gfn, PageTableFlags)>) {
    let address = layout::window(slot);
    let pte = target.map_or(0, |(gfn, flags)| (gfn.number() * PAGE) | flags.bits());
    // SAFETY: this is a PVH guest. The builder allocated the window's table, which is never freed,
    // after it protected the other tables. Window slots contain no Rust objects.
    unsafe { own_entry(address) }.store(pte, Ordering::Relaxed);
    tlb::flush(address);
}

/// Returns the address of an entry of a table in the linear mapping of the boot page tables.
fn entry(table: u64, index: u64) -> *mut u64 {
    (LINEAR_BASE + table + index * 8) as *mut u64
}
