//! The page tables of a PV guest.
//!
//! The kernel keeps the builder's tables. It hooks the linear mapping, the window and the areas
//! into their top level, and removes the builder's mappings outside the image.
//!
//! Xen accepts page tables only if all their mappings are read-only. Therefore the new tables come
//! from a run of frames that the builder did not map. Each one is filled through one page of the
//! image: the guard page of the boot stack, which has no other use and is unmapped later.

use core::ops::Range;

use hypercall::ops::{MmuExtOp, MmuUpdate, Pte, UvmFlags};
use hypercall::{DomId, Multicall, PageTableFlags, VirtAddr, Xen};
use xen_contig::addr::{MachineAddr, Mfn, PAGE_SIZE, Pfn};
use xen_contig::p2m::{M2p, P2m};

use crate::layout::{
    self, AREAS_BASE, EXECUTE, KERNEL_BASE, LINEAR_BASE, LINEAR_FRAMES, READ, READ_WRITE, TABLE,
    WINDOW_BASE, image, image_frame,
};
use crate::vcpu::{Stack, xen};

/// The number of entries in a table.
const ENTRIES: u64 = 512;

/// The number of calls in a multicall, which needs 8 KiB on the stack.
const BATCH: usize = 128;

/// The builder's page tables. The builder maps them at [`KERNEL_BASE`], like everything that it
/// placed.
#[derive(Clone, Copy, Debug)]
pub struct BootTables {
    /// The address of the top level.
    base: u64,
    m2p: M2p,
}

impl BootTables {
    /// Returns the tables whose top level is mapped at `base`.
    pub const fn new(base: u64, m2p: M2p) -> Self {
        Self { base, m2p }
    }

    /// Returns the frame of the top level.
    fn top(&self) -> Pfn {
        image_frame(self.base)
    }

    /// Returns true if the builder mapped the address.
    fn is_mapped(&self, address: u64) -> bool {
        let mut table = self.base;
        for shift in [39, 30, 21, 12] {
            let index = (address >> shift) % ENTRIES;
            // SAFETY: `table` is a page table, which the builder maps readable. The index is below 512.
            let raw = unsafe { (table as *const u64).add(index as usize).read_volatile() };
            let pte = Pte::from_raw(raw);
            if !pte.is_present() {
                return false;
            }
            // SAFETY: page tables name frames of this domain, which are RAM.
            let Some(pfn) = (unsafe { self.m2p.pfn(pte.mfn()) }) else { return false };
            table = KERNEL_BASE + pfn.number() * PAGE_SIZE as u64;
        }
        true
    }

    /// Returns the first frame that the builder did not map. Its mapping starts with frame 0.
    pub fn mapped_end(&self) -> u64 {
        let first_unmapped =
            (0..).find(|pfn| !self.is_mapped(KERNEL_BASE + pfn * PAGE_SIZE as u64));
        first_unmapped.unwrap_or(0)
    }
}

/// The run of frames for the new page tables.
///
/// It begins with all first-level tables of the linear mapping, in order. The second-level tables
/// and the third-level table follow, then the three tables of the window, and the tables of the
/// virtual areas from the first level up.
#[derive(Clone, Copy, Debug)]
pub struct TableRegion {
    frames: u64,
    first: u64,
    /// The number of first-level tables of the areas. One second-level table names them all.
    areas: u64,
}

impl TableRegion {
    /// Plans the tables of a guest with `frames` frames, from frame `first` on.
    ///
    /// # Panics
    /// If the guest is too large for the linear mapping or too small for its own page tables.
    pub fn plan(frames: u64, first: u64) -> Self {
        assert!(
            frames <= LINEAR_FRAMES,
            "{frames} frames are more than the {LINEAR_FRAMES} that fit the linear mapping; give the \
             guest less memory"
        );
        let areas = u64::from(layout::area_pages(frames)) / ENTRIES;
        let tables = Self { frames, first, areas };
        assert!(
            tables.end() <= frames,
            "not enough memory: page tables need frames {first}..{}, and the guest has {frames} in \
             all",
            tables.end()
        );
        tables
    }

    const fn level1(&self) -> u64 {
        self.frames.div_ceil(ENTRIES)
    }

    const fn level2(&self) -> u64 {
        self.level1().div_ceil(ENTRIES)
    }

    /// Returns the first frame of the run.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Returns the first of the tables of the areas.
    pub const fn areas(&self) -> u64 {
        self.first + self.level1() + self.level2() + 1 + 3
    }

    /// Returns the frame after the run.
    pub const fn end(&self) -> u64 {
        self.areas() + self.areas + 2
    }
}

/// Writes page tables through one page of the image.
struct TableWriter<'a> {
    page: VirtAddr,
    p2m: &'a P2m<'a>,
}

impl TableWriter<'_> {
    fn machine_frame(&self, pfn: u64) -> Mfn {
        match self.p2m.mfn(Pfn::new(pfn)) {
            Some(mfn) => mfn,
            None => panic!(
                "no machine frame backs pfn {pfn:#x} in the P2M; it is needed for a page table"
            ),
        }
    }

    /// Fills the table in frame `table` with `entry(i)`.
    fn fill(&self, table: u64, entry: impl Fn(u64) -> Pte) {
        let pte = Pte::new(self.machine_frame(table), READ_WRITE);
        self.map_page(pte);
        for index in 0..ENTRIES {
            let slot = self.page.as_mut_ptr::<u64>();
            // SAFETY: the page maps the table's frame, which nothing uses yet
            // ([M1](xen_contig::rules#M1)).
            unsafe { slot.add(index as usize).write_volatile(entry(index).raw()) };
        }
    }

    /// Maps at the page what `pte` names.
    fn map_page(&self, pte: Pte) {
        // SAFETY: the page is the guard of the boot stack, which contains no Rust objects.
        let mapped = unsafe { xen().update_va_mapping(self.page, pte, UvmFlags::INVLPG) };
        if let Err(errno) = mapped {
            panic!("mapping the frame of a new page table ({pte:?}): {errno}");
        }
    }
}

/// Builds the linear mapping, the window and the areas, and hooks them into the builder's top level.
///
/// `builders` are the frames of the builder's page tables, which stay in use. Returns the first of
/// the run of first-level tables.
pub fn build(p2m: &P2m<'_>, tables: &TableRegion, boot: &BootTables, builders: Range<u64>) -> Pfn {
    let writer = TableWriter { page: VirtAddr::new(pvh_boot::boot_stack().guard), p2m };
    let image = image();
    let read_only = image_frame(image.text.0).number()..image_frame(image.rodata.1).number();
    let own = tables.first..tables.end();
    let linear_entry = |pfn: u64| {
        if pfn >= tables.frames {
            return Pte::NOT_PRESENT;
        }
        let fixed = [&read_only, &own, &builders].iter().any(|range| range.contains(&pfn));
        let flags = if fixed { READ } else { READ_WRITE };
        p2m.mfn(Pfn::new(pfn)).map_or(Pte::NOT_PRESENT, |mfn| Pte::new(mfn, flags))
    };
    let lower = |first: u64, count: u64, index: u64| {
        if index < count {
            Pte::new(writer.machine_frame(first + index), TABLE)
        } else {
            Pte::NOT_PRESENT
        }
    };

    let level1 = tables.first;
    let level2 = level1 + tables.level1();
    let level3 = level2 + tables.level2();
    let window1 = level3 + 1;
    for table in 0..tables.level1() {
        writer.fill(level1 + table, |index| linear_entry(table * ENTRIES + index));
    }
    for table in 0..tables.level2() {
        let below = table * ENTRIES;
        writer.fill(level2 + table, |index| lower(level1 + below, tables.level1() - below, index));
    }
    writer.fill(level3, |index| lower(level2, tables.level2(), index));
    writer.fill(window1, |_| Pte::NOT_PRESENT);
    writer.fill(window1 + 1, |index| lower(window1, 1, index));
    writer.fill(window1 + 2, |index| lower(window1 + 1, 1, index));
    let (areas1, areas2) = (tables.areas(), tables.areas() + tables.areas);
    for table in areas1..areas2 {
        writer.fill(table, |_| Pte::NOT_PRESENT);
    }
    writer.fill(areas2, |index| lower(areas1, tables.areas, index));
    writer.fill(areas2 + 1, |index| lower(areas2, 1, index));
    writer.map_page(Pte::NOT_PRESENT);

    let top = MachineAddr::of(writer.machine_frame(boot.top().number())).get();
    let hook = |base: u64, table: u64| {
        let entry = top + pvh_boot::layout::pml4_index(base) * 8;
        MmuUpdate::page_table(entry, Pte::new(writer.machine_frame(table), TABLE))
    };
    let hooks =
        [hook(LINEAR_BASE, level3), hook(WINDOW_BASE, window1 + 2), hook(AREAS_BASE, areas2 + 1)];
    let mut done = 0;
    // SAFETY: the slots were empty, so no mapping changes. Xen checks the tables that they name.
    if let Err(errno) = unsafe { xen().mmu_update(&hooks, &mut done, DomId::SELF) } {
        panic!("Xen refused the linear mapping, window or areas (hook {done} of 3): {errno}");
    }
    Pfn::new(level1)
}

/// Removes the builder's mappings outside the image, and sets the rights of the image.
///
/// No page of the image is both writable and executable, and the guard pages of the stacks are not
/// mapped. Afterwards each frame outside the image has only its linear mapping
/// ([S2](xen_contig::rules#S2)).
pub fn drop_boot_mapping(p2m: &P2m<'_>, mapped_end: u64) {
    let image = image();
    let guards = [Stack::Boot, Stack::BootFault].map(|stack| stack.guard());
    let rights = |address: u64| {
        let within = |(start, end): (u64, u64)| (start..end).contains(&address);
        match address {
            _ if guards.contains(&address) => None,
            _ if within(image.text) => Some(EXECUTE),
            _ if within(image.rodata) => Some(READ),
            _ if within(image.data) => Some(READ_WRITE),
            _ => None,
        }
    };
    let mut batch: Multicall<'_, BATCH> = Multicall::new();
    for pfn in 0..mapped_end {
        let address = KERNEL_BASE + pfn * PAGE_SIZE as u64;
        let mfn = p2m.mfn(Pfn::new(pfn));
        let pte =
            rights(address).zip(mfn).map_or(Pte::NOT_PRESENT, |(flags, mfn)| Pte::new(mfn, flags));
        batch.update_va_mapping(VirtAddr::new(address), pte, UvmFlags::empty());
        if batch.is_full() {
            issue(&mut batch);
        }
    }
    issue(&mut batch);
    let mut done = 0;
    // SAFETY: a flush changes no mapping.
    let flushed =
        unsafe { xen().mmuext_op(&[MmuExtOp::tlb_flush_local()], &mut done, DomId::SELF) };
    if let Err(errno) = flushed {
        panic!("flushing the builder's mappings: {errno}");
    }
}

fn issue(batch: &mut Multicall<'_, BATCH>) {
    // SAFETY: the image keeps every right that it uses. No other Rust object is used through the
    // builder's mapping any more. The start info is copied, and P2M and console use the linear
    // mapping.
    if let Err(error) = unsafe { batch.issue(xen()) } {
        panic!("dropping the builder's mappings: {error}");
    }
}

/// Maps a machine frame at a window slot, or removes the mapping if `target` is `None`.
///
/// # Errors
/// Xen does not let the domain map the frame with these flags.
pub fn set_window(
    slot: u64,
    target: Option<(Mfn, PageTableFlags)>,
) -> Result<(), hypercall::XenErrno> {
    let pte = target.map_or(Pte::NOT_PRESENT, |(mfn, flags)| Pte::new(mfn, flags));
    // SAFETY: window slots contain no Rust objects. Their users access them through raw pointers
    // only ([M5](xen_contig::rules#M5)).
    unsafe { xen().update_va_mapping(layout::window(slot), pte, UvmFlags::INVLPG) }.map(|_| ())
}
