//! `mmu_update`, `update_va_mapping` and `mmuext_op`.

use hypercall::ops::{MmuExtKind, MmuExtOp, MmuUpdate, MmuUpdateKind, Pte, UvmFlags};
use hypercall::{DomId, XenErrno};

use crate::fault::Cut;
use crate::frame::PageType;
use crate::machine::MachineState;

impl MachineState {
    /// Runs `one` for each entry until one fails; counts those done, as Xen does.
    fn each<T: Copy>(
        &mut self,
        entries: &[T],
        done: &mut u32,
        cut: Option<Cut>,
        mut one: impl FnMut(&mut Self, T) -> Result<(), XenErrno>,
    ) -> Result<u64, XenErrno> {
        for (index, entry) in entries.iter().enumerate() {
            let result = match cut {
                Some(cut) if index as u64 == cut.after => {
                    Err(cut.errno.unwrap_or(XenErrno::EINVAL))
                }
                _ => one(self, *entry),
            };
            if let Err(errno) = result {
                *done = index as u32;
                return Err(errno);
            }
        }
        *done = entries.len() as u32;
        Ok(0)
    }

    pub fn mmu_update(
        &mut self,
        updates: &[MmuUpdate],
        done: &mut u32,
        domain: DomId,
        cut: Option<Cut>,
    ) -> Result<u64, XenErrno> {
        // Translated guests have no such hypercall (`hypercall-defs.c`).
        if self.domain.is_translated() {
            return Err(XenErrno::ENOSYS);
        }
        if let Err(errno) = self.page_owner(domain) {
            *done = 0;
            return Err(errno);
        }
        self.each(updates, done, cut, |machine, update| match update.kind() {
            MmuUpdateKind::PageTable { entry, pte } => machine.update_entry(entry, pte),
            MmuUpdateKind::MachineToPhys { mfn, pfn } => {
                machine.own(mfn.number()).ok_or(XenErrno::EINVAL)?;
                machine.set_m2p(mfn.number(), pfn);
                Ok(())
            }
            _ => Err(XenErrno::ENOSYS),
        })
    }

    fn update_entry(&mut self, entry: u64, pte: Pte) -> Result<(), XenErrno> {
        if entry >= self.upper_entry(0) {
            return self.write_upper(entry, pte);
        }
        let frame = self.own(entry >> 12).ok_or(XenErrno::EINVAL)?;
        if frame.kind_count > 0 && frame.kind == PageType::L1 {
            return self.write_entry(entry, pte);
        }
        // Xen takes it for a plain write to a data page, and does it.
        frame.content.write((entry & 0xfff) as usize / 8, pte.raw());
        self.violation(&format!(
            "a page-table write to {entry:#x}, which is no page table: Xen wrote into a data frame"
        ));
        Ok(())
    }

    pub fn update_va_mapping(
        &mut self,
        vcpu: usize,
        page: u64,
        pte: Pte,
        flush: UvmFlags,
    ) -> Result<u64, XenErrno> {
        if self.domain.is_translated() {
            return Err(XenErrno::ENOSYS);
        }
        let entry = self.entry_of(page).ok_or(XenErrno::EINVAL)?;
        self.write_entry(entry, pte)?;
        let all = flush.contains(UvmFlags::ALL);
        for (index, tlb) in self.tlbs.iter_mut().enumerate() {
            if !all && index != vcpu {
                continue;
            }
            if flush.contains(UvmFlags::TLB_FLUSH) {
                tlb.flush();
            } else if flush.contains(UvmFlags::INVLPG) {
                tlb.flush_page(page);
            }
        }
        Ok(0)
    }

    pub fn mmuext_op(
        &mut self,
        vcpu: usize,
        ops: &[MmuExtOp],
        done: &mut u32,
        domain: DomId,
        cut: Option<Cut>,
    ) -> Result<u64, XenErrno> {
        self.page_owner(domain)?;
        // There is the call, but it is about PV guests (`do_mmuext_op`).
        if self.domain.is_translated() {
            return Err(XenErrno::EINVAL);
        }
        self.each(ops, done, cut, |machine, op| match op.kind() {
            MmuExtKind::TlbFlushLocal => {
                machine.tlbs[vcpu].flush();
                Ok(())
            }
            MmuExtKind::TlbFlushAll => {
                machine.tlbs.iter_mut().for_each(|tlb| tlb.flush());
                Ok(())
            }
            MmuExtKind::InvlpgLocal { address } => {
                machine.tlbs[vcpu].flush_page(address >> 12);
                Ok(())
            }
            MmuExtKind::InvlpgAll { address } => {
                machine.tlbs.iter_mut().for_each(|tlb| tlb.flush_page(address >> 12));
                Ok(())
            }
            MmuExtKind::PinTable { level: 1, mfn } => machine.pin(mfn.number()),
            MmuExtKind::UnpinTable { mfn } => machine.unpin(mfn.number()),
            MmuExtKind::ClearPage { mfn } => {
                let frame = machine.own(mfn.number()).ok_or(XenErrno::EINVAL)?;
                if !frame.admits(PageType::Writable) {
                    return Err(XenErrno::EINVAL);
                }
                frame.content.fill(0);
                Ok(())
            }
            // The upper levels are the model's own.
            MmuExtKind::PinTable { .. } => Err(XenErrno::EINVAL),
            _ => Err(XenErrno::ENOSYS),
        })
    }

    fn pin(&mut self, table: u64) -> Result<(), XenErrno> {
        if self.own(table).ok_or(XenErrno::EINVAL)?.pinned {
            return Err(XenErrno::EINVAL);
        }
        self.get_table(table)?;
        self.frames[table as usize].pinned = true;
        Ok(())
    }

    fn unpin(&mut self, table: u64) -> Result<(), XenErrno> {
        let frame = self.own(table).ok_or(XenErrno::EINVAL)?;
        if !std::mem::replace(&mut frame.pinned, false) {
            return Err(XenErrno::EINVAL);
        }
        self.put_table(table);
        Ok(())
    }

    /// Whether a call is about the caller's own memory; about another's the model knows nothing.
    pub fn caller(&self, domain: DomId) -> Result<(), XenErrno> {
        match domain {
            crate::NEIGHBOUR => Err(XenErrno::EPERM),
            domain if self.domain.is_self(domain) => Ok(()),
            _ => Err(XenErrno::ESRCH),
        }
    }

    /// The same for whose pages a mapping is about, which is not asked by one's own number
    /// (`get_pg_owner`).
    fn page_owner(&self, domain: DomId) -> Result<(), XenErrno> {
        if domain == self.domain.id { Err(XenErrno::ESRCH) } else { self.caller(domain) }
    }
}
