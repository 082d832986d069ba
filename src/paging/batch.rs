//! Many first-level entries written with few hypercalls.

use core::fmt;

use arrayvec::ArrayVec;
use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};

use crate::addr::{MachineAddr, Pfn};

/// Entries in one `mmu_update`: a whole first-level table. The batch is 8 KiB, which a kernel
/// stack of 64 KiB bears: one at a time.
const BATCH: usize = 512;

/// A page-table write that Xen refused, by its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PteError {
    /// The frame whose entry it was.
    pub pfn: Pfn,
    /// What Xen answered.
    pub errno: XenErrno,
}

impl PteError {
    /// The error of a batch whose first write was for `first`.
    pub(crate) const fn of(refusal: Refusal, first: Pfn) -> Self {
        Self { pfn: first.add(refusal.index), errno: refusal.errno }
    }
}

impl fmt::Display for PteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xen refused the page-table entry of pfn {}: {}", self.pfn, self.errno)
    }
}

impl core::error::Error for PteError {}

/// A write that Xen refused, by its place among those of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How many writes came before it; all of them were done.
    pub index: u64,
    /// What Xen answered.
    pub errno: XenErrno,
}

/// Collects writes of first-level entries and hands them to Xen by the table.
///
/// Nothing in here flushes a TLB, see [F1](crate::rules#F1). Nor does Xen of
/// its own accord, 4.17 and 4.20 alike: `do_mmu_update` in its `x86/mm.c` flushes for the tables above
/// the first level alone, and `mod_l1_entry`, for an entry that is dropped, gives the reference on
/// the frame back and no more. Two things are Xen's own business. To *map* a frame may flush, when it
/// changes its type, say from a page table's (`_get_page_type`). And a domain that runs on shadow
/// page tables, as in a live migration, has them kept up to date.
#[derive(Debug)]
pub struct PteBatch<'a, X> {
    xen: &'a X,
    updates: ArrayVec<MmuUpdate, BATCH>,
    done: u64,
}

impl<'a, X: Xen> PteBatch<'a, X> {
    /// An empty batch.
    pub const fn new(xen: &'a X) -> Self {
        Self { xen, updates: ArrayVec::new_const(), done: 0 }
    }

    /// How many writes Xen has done.
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// Adds a write; issues the batch when it is full.
    ///
    /// # Safety
    /// As for [`Xen::mmu_update`].
    ///
    /// # Errors
    /// The write that Xen refused; all before it were done, none from it on.
    pub unsafe fn write(&mut self, entry: MachineAddr, pte: Pte) -> Result<(), Refusal> {
        self.updates.push(MmuUpdate::page_table(entry.get(), pte));
        if self.updates.is_full() {
            // SAFETY: the caller's.
            unsafe { self.issue()? };
        }
        Ok(())
    }

    /// Adds writes of entries that lie side by side, from `first` on; issues the batch whenever it is
    /// full.
    ///
    /// # Safety
    /// As for [`Xen::mmu_update`].
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub unsafe fn write_row(
        &mut self,
        first: MachineAddr,
        ptes: impl Iterator<Item = Pte>,
    ) -> Result<(), Refusal> {
        let mut entry = first.get();
        let mut updates = ptes.map(|pte| {
            let update = MmuUpdate::page_table(entry, pte);
            entry += size_of::<Pte>() as u64;
            update
        });
        loop {
            let room = self.updates.remaining_capacity();
            self.updates.extend(updates.by_ref().take(room));
            if !self.updates.is_full() {
                return Ok(());
            }
            // SAFETY: the caller's.
            unsafe { self.issue()? };
        }
    }

    /// Hands what was collected to Xen.
    ///
    /// # Safety
    /// As for [`Xen::mmu_update`].
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub unsafe fn issue(&mut self) -> Result<(), Refusal> {
        if self.updates.is_empty() {
            return Ok(());
        }
        let mut done = 0;
        // SAFETY: the caller's.
        let result = unsafe { self.xen.mmu_update(&self.updates, &mut done, DomId::SELF) };
        let count = self.updates.len() as u64;
        self.updates.clear();
        match result {
            Ok(_) => {
                self.done += count;
                Ok(())
            }
            Err(errno) => {
                self.done += u64::from(done).min(count - 1);
                Err(Refusal { index: self.done, errno })
            }
        }
    }
}
