//! Writes many first-level entries with few hypercalls.

use arrayvec::ArrayVec;
use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};

use crate::addr::MachineAddr;

/// Entries in one `mmu_update`: a whole first-level table. The batch takes 8 KiB of the stack, so at
/// most one exists at a time.
const BATCH: usize = 512;

/// Collects writes of first-level entries and hands them to Xen in batches of 512.
///
/// Nothing here flushes a TLB ([F1](crate::rules#F1)). In 4.17 and 4.20, Xen does not flush for these
/// writes either. `do_mmu_update` in `x86/mm.c` flushes only for tables above the first level. For an
/// entry that is cleared, `mod_l1_entry` drops the reference on the frame and does no more.
///
/// There are three exceptions, and no rule relies on any of them. A batch may also hold second-level
/// entries, when whole tables are unhooked; for these Xen flushes on its own account. To map a frame may
/// flush if that changes the type of the frame, for example from a page table to data (`_get_page_type`).
/// During a live migration Xen also updates the shadow page tables of the domain.
#[derive(Debug)]
pub(crate) struct PteBatch<'a, X> {
    xen: &'a X,
    updates: ArrayVec<MmuUpdate, BATCH>,
    done: u64,
}

impl<'a, X: Xen> PteBatch<'a, X> {
    /// Returns an empty batch.
    pub const fn new(xen: &'a X) -> Self {
        Self { xen, updates: ArrayVec::new_const(), done: 0 }
    }

    /// Returns how many writes Xen has done, counted from the first. After an error this is the place
    /// of the write that Xen refused.
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// Adds a write. Issues the batch before it if the batch is full.
    ///
    /// # Safety
    /// No reference or code is in use through the mapping that the write changes.
    ///
    /// # Errors
    /// Xen refused a write. It has done all before it ([`done`](Self::done)), and none from it on.
    pub unsafe fn write(&mut self, entry: MachineAddr, pte: Pte) -> Result<(), XenErrno> {
        if self.updates.is_full() {
            // SAFETY: each write in the batch was added under the requirement of `write` or
            // `write_row`, which is that of `issue`.
            unsafe { self.issue()? };
        }
        self.updates.push(MmuUpdate::page_table(entry.get(), pte));
        Ok(())
    }

    /// Returns the writes that Xen has not been asked for: at most 512.
    pub fn pending(&self) -> &[MmuUpdate] {
        &self.updates
    }

    /// Adds writes of the `count` entries that lie side by side from `first` on. Issues the batch
    /// whenever it is full and more is to come.
    ///
    /// # Safety
    /// No reference or code is in use through the mappings that the writes change.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub unsafe fn write_row(
        &mut self,
        first: MachineAddr,
        count: usize,
        ptes: impl Iterator<Item = Pte>,
    ) -> Result<(), XenErrno> {
        let mut entry = first.get();
        let mut updates = ptes.map(|pte| {
            let update = MmuUpdate::page_table(entry, pte);
            entry += size_of::<Pte>() as u64;
            update
        });
        let mut left = count;
        while left > 0 {
            if self.updates.is_full() {
                // SAFETY: each write in the batch was added under the requirement of `write` or
                // `write_row`, which is that of `issue`.
                unsafe { self.issue()? };
            }
            let added = left.min(self.updates.remaining_capacity());
            self.updates.extend(updates.by_ref().take(added));
            left -= added;
        }
        Ok(())
    }

    /// Hands the collected writes to Xen.
    ///
    /// # Safety
    /// No reference or code is in use through the mappings that the writes change.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub unsafe fn issue(&mut self) -> Result<(), XenErrno> {
        if self.updates.is_empty() {
            return Ok(());
        }
        let mut done = 0;
        // SAFETY: the writes change no mapping that is in use: the function's requirement. Updates and
        // counter are exclusively borrowed, so nothing else touches them during the call
        // ([M3](crate::rules#M3)).
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
                Err(errno)
            }
        }
    }
}
