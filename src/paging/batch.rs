//! Many first-level entries written with few hypercalls.

use core::fmt;

use arrayvec::ArrayVec;
use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};

use crate::addr::{MachineAddr, Pfn};

/// Entries in one `mmu_update`: a whole first-level table. The batch is 8 KiB, which a kernel
/// stack of 64 KiB bears: one at a time.
const BATCH: usize = 512;

/// A page-table write that Xen refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PteError {
    /// The frame whose entry it was.
    pub pfn: Pfn,
    /// What Xen answered.
    pub errno: XenErrno,
}

impl fmt::Display for PteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xen refused the page-table entry of pfn {}: {}", self.pfn, self.errno)
    }
}

impl core::error::Error for PteError {}

/// Collects writes of consecutive frames' entries and hands them to Xen by the table.
///
/// Nothing in here flushes a TLB: `mmu_update` does not by itself, see the flush rule in
/// [`exchange`](crate::exchange).
#[derive(Debug)]
pub struct PteBatch<'a, X> {
    xen: &'a X,
    updates: ArrayVec<MmuUpdate, BATCH>,
    next: Pfn,
}

impl<'a, X: Xen> PteBatch<'a, X> {
    /// A batch whose first write is for `first`.
    pub const fn new(xen: &'a X, first: Pfn) -> Self {
        Self { xen, updates: ArrayVec::new_const(), next: first }
    }

    /// The first frame whose entry is not known to be written.
    pub const fn next(&self) -> Pfn {
        self.next
    }

    /// Adds the write of the next frame's entry; issues the batch when it is full.
    ///
    /// # Safety
    /// As for [`Xen::mmu_update`].
    ///
    /// # Errors
    /// The frame whose write Xen refused; all before it were written, none from it on.
    pub unsafe fn write(&mut self, entry: MachineAddr, pte: Pte) -> Result<(), PteError> {
        self.updates.push(MmuUpdate::page_table(entry.get(), pte));
        if self.updates.is_full() {
            // SAFETY: the caller's.
            unsafe { self.issue()? };
        }
        Ok(())
    }

    /// Hands what was collected to Xen.
    ///
    /// # Safety
    /// As for [`Xen::mmu_update`].
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub unsafe fn issue(&mut self) -> Result<(), PteError> {
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
                self.next = self.next.add(count);
                Ok(())
            }
            Err(errno) => {
                self.next = self.next.add(u64::from(done).min(count - 1));
                Err(PteError { pfn: self.next, errno })
            }
        }
    }
}
