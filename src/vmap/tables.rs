//! The first-level tables beneath the areas.

use core::sync::atomic::Ordering::Relaxed;

use hypercall::ops::Pte;
use hypercall::{PageTableFlags, VirtAddr, Xen};

use crate::addr::{Gfn, MachineAddr, Mfn, PAGE_SIZE, Pfn};
use crate::paging::{FlushClock, PteBatch, Refusal};
use crate::sync::AtomicU64;

/// A first-level entry.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// Of a PV guest: written by Xen, which validates it and counts references.
    Validated(MachineAddr),
    /// Of a translated guest: its own memory.
    Plain(&'a AtomicU64),
}

/// A stretch of virtual addresses with first-level tables of its own, set aside for areas.
///
/// # Safety
/// Duties of the implementor:
/// * nobody else maps or uses anything in `pages()` pages from `base()` on;
/// * [`entry`](Self::entry) is the entry of that page in every address space of the guest, for
///   good, and maps nothing at first;
/// * [`flushes`](Self::flushes) is the clock of this domain, the one that the transactions use.
pub unsafe trait AreaTables {
    /// The seam to Xen.
    type Xen: Xen;

    /// The seam to Xen, as the calling vCPU uses it.
    fn xen(&self) -> &Self::Xen;

    /// By which all flushes of the domain are made.
    fn flushes(&self) -> &FlushClock;

    /// What goes into an entry for a frame; `None` where nothing lies beneath it.
    fn gfn(&self, pfn: Pfn) -> Option<Gfn>;

    /// The first address.
    fn base(&self) -> VirtAddr;

    /// How many pages.
    fn pages(&self) -> u32;

    /// The entry of a page below [`pages`](Self::pages).
    fn entry(&self, page: u32) -> Entry<'_>;

    /// The address of a page.
    fn address(&self, page: u32) -> VirtAddr {
        self.base() + u64::from(page) * PAGE_SIZE as u64
    }
}

/// Writes entries, by as few hypercalls as can be. Flushes nothing.
pub(super) struct Writer<'a, T: AreaTables> {
    tables: &'a T,
    batch: PteBatch<'a, T::Xen>,
    /// Entries that took no hypercall.
    plain: u64,
}

impl<'a, T: AreaTables> Writer<'a, T> {
    pub fn new(tables: &'a T) -> Self {
        Self { tables, batch: PteBatch::new(tables.xen()), plain: 0 }
    }

    /// How many entries are written for certain, counted from the first.
    pub const fn done(&self) -> u64 {
        self.plain + self.batch.done()
    }

    /// Maps a page.
    ///
    /// # Safety
    /// The page is an area's that nobody uses yet.
    pub unsafe fn map(
        &mut self,
        page: u32,
        gfn: Gfn,
        flags: PageTableFlags,
    ) -> Result<(), Refusal> {
        // A Gfn is what goes into an entry, and in PV that is the machine frame.
        // SAFETY: the caller's.
        unsafe { self.write(page, Pte::new(Mfn::new(gfn.number()), flags)) }
    }

    /// Drops the entry of a page.
    ///
    /// # Safety
    /// The page is an area's that its owner has unmapped.
    pub unsafe fn unmap(&mut self, page: u32) -> Result<(), Refusal> {
        // SAFETY: the caller's.
        unsafe { self.write(page, Pte::NOT_PRESENT) }
    }

    unsafe fn write(&mut self, page: u32, pte: Pte) -> Result<(), Refusal> {
        match self.tables.entry(page) {
            // SAFETY: the caller's.
            Entry::Validated(entry) => unsafe { self.batch.write(entry, pte) },
            Entry::Plain(entry) => {
                entry.store(pte.raw(), Relaxed);
                self.plain += 1;
                Ok(())
            }
        }
    }

    /// Has Xen write what was collected.
    ///
    /// # Safety
    /// As for the writes.
    pub unsafe fn issue(&mut self) -> Result<(), Refusal> {
        // SAFETY: the caller's.
        unsafe { self.batch.issue() }
    }
}
