//! Writes first-level entries of areas with few hypercalls.

use core::sync::atomic::Ordering::Relaxed;

use hypercall::ops::Pte;
use hypercall::{PageTableFlags, XenErrno};

use super::tables::{AreaEntry, AreaTables, EntryPlace};
use crate::addr::{Gfn, Mfn};
use crate::paging::PteBatch;

/// Writes entries of areas. It makes no flush ([F1](crate::rules#F1)).
pub(super) struct EntryWriter<'a, T: AreaTables> {
    tables: &'a T,
    batch: PteBatch<'a, T::Xen>,
    /// Entries that were written without a hypercall.
    plain: u64,
}

impl<'a, T: AreaTables> EntryWriter<'a, T> {
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
    /// The page belongs to an area that is being made, so no code uses its address yet.
    pub unsafe fn map(
        &mut self,
        page: u32,
        gfn: Gfn,
        flags: PageTableFlags,
    ) -> Result<(), XenErrno> {
        // An entry takes a Gfn, which in PV is the machine frame.
        let pte = Pte::new(Mfn::new(gfn.number()), flags);
        // SAFETY: no code uses the address of the page, by the requirement of `map`.
        unsafe { self.write(page, pte) }
    }

    /// Drops the entry of a page.
    ///
    /// # Safety
    /// The owner of the area unmapped it, so no code uses the address of the page any more. The page
    /// is claimed, so it belongs to no new area before the entry is dropped.
    pub unsafe fn unmap(&mut self, page: u32) -> Result<(), XenErrno> {
        // SAFETY: no code uses the address of the page, by the requirement of `unmap`.
        unsafe { self.write(page, Pte::NOT_PRESENT) }
    }

    /// Writes an entry, or adds it to the batch.
    ///
    /// # Safety
    /// No code uses the address of the page until the batch is issued.
    unsafe fn write(&mut self, page: u32, pte: Pte) -> Result<(), XenErrno> {
        let AreaEntry(place) = self.tables.entry(page);
        match place {
            // SAFETY: `AreaTables` guarantees that the entry maps this page and nothing else. No code
            // uses the address of the page by the requirement of `write`, so no reference or code is in
            // use through the mapping that the entry changes.
            EntryPlace::Validated(entry) => unsafe { self.batch.write(entry, pte) },
            EntryPlace::Plain(entry) => {
                entry.store(pte.raw(), Relaxed);
                self.plain += 1;
                Ok(())
            }
        }
    }

    /// Has Xen write the entries that were collected.
    ///
    /// # Safety
    /// What [`map`](Self::map) and [`unmap`](Self::unmap) require still holds for all their pages.
    pub unsafe fn issue(&mut self) -> Result<(), XenErrno> {
        // SAFETY: the batch holds entries of this stretch alone, and no code uses their addresses by
        // the requirement of `issue`.
        unsafe { self.batch.issue() }
    }
}
