//! C51, of the component: the new frames of an exchange that failed behind the commit point come back.
//!
//! The component's lists are memory that it can write, so it can't run into this by itself. Here the
//! hypervisor that it is given takes the writable mapping of the out list away for the time of the
//! call.

use alloc::vec::Vec;

use hypercall::ops::{
    EventChannelOp, HvmOp, MemoryOp, MmuExtOp, MmuUpdate, MulticallEntry, Pte, SchedOp, TrapInfo,
    UvmFlags, VcpuOp, VersionOp,
};
use hypercall::{DomId, Xen, XenErrno};
use x86_64::VirtAddr;
use xen_contig::addr::{Mfn, Order, PAGE_SIZE, Pfn};
use xen_contig::exchange::{ExchangeError, Exchanger, Lists, OnRefusal, Part, Placement};

use super::raw::{limit, map, pv_only};
use crate::kernel::hypervisor::{Hypervisor, xen};
use crate::kernel::paging::{READ, READ_WRITE};
use crate::selftest::{Check, Context, Test, books, error, fail, skip};

/// Entries of the out list in a page.
const ENTRIES: usize = PAGE_SIZE / 8;

/// Extents of four frames, each of them a chunk.
const EXTENTS: u64 = 4;
const ORDER: Order = match Order::new(2) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c51-recovery", |context| {
        // The first chunk fails, one in the middle, the last.
        [0, 1, EXTENTS - 1].into_iter().try_for_each(|torn| recovers(context, torn))
    }));
}

/// Exchanges so that Xen fails behind the commit point of chunk `torn`, and wants the run back.
fn recovers(context: &Context<'_>, torn: u64) -> Check {
    pv_only(context)?;
    let machine = context.machine;
    if limit(context)? < ORDER.get() {
        skip!("Xen permits this domain no extent of order {ORDER}");
    }
    let frames = EXTENTS * ORDER.frames();
    let (Some(list), Some(run)) = (machine.take(2), machine.take(frames)) else {
        error!("the guest has no {frames} free frames in a row")
    };
    let old: Vec<Option<Mfn>> = run.iter().map(|pfn| machine.p2m.mfn(pfn)).collect();
    books::dirty(&run, context.seed);

    // The entries before `torn` lie at the end of the list's first page, the others in the second.
    let second = list.first().add(1);
    let Some(mfn) = machine.p2m.mfn(second) else { fail!("the allocator gave out a hole") };
    // SAFETY: two frames of ours (M1), mapped side by side and used by nobody else until they are
    // given back below.
    let words = unsafe {
        core::slice::from_raw_parts_mut(crate::kernel::machine::word(list.first(), 0), 2 * ENTRIES)
    };
    let scratch = &mut words[ENTRIES - torn as usize..][..EXTENTS as usize];
    let xen = WriteProtecting { xen: xen(), list: second, mfn };
    let lost = machine.accounts.quarantined();
    let exchanger =
        Exchanger::new(&xen, machine.p2m, machine.linear, &machine.accounts, Order::MAX);
    let parts = [Part::gather(0, EXTENTS, ORDER, Placement::ANYWHERE)];
    let lists = Lists { beneath: &mut alloc::vec![0; frames as usize], scratch };
    let result = exchanger.exchange(run, &parts, OnRefusal::Undo, lists);
    machine.give(list);

    let failure = match result {
        Err(failure) => failure,
        Ok(progress) => {
            machine.give(progress.run);
            fail!("chunk {torn}: Xen wrote a read-only list: {:?}", progress.error)
        }
    };
    let done = torn * ORDER.frames();
    let expected = ExchangeError::Torn { errno: Some(XenErrno::EFAULT), exchanged: done };
    let lost = machine.accounts.quarantined() - lost;
    let Some(run) = failure.run else { fail!("chunk {torn}: {lost} frames lost: {failure}") };
    // Those that Xen did not reach are as before; of the others none is.
    let reached = done + ORDER.frames();
    let right = run
        .iter()
        .zip(&old)
        .enumerate()
        .all(|(index, (pfn, old))| (machine.p2m.mfn(pfn) == *old) == (index as u64 >= reached));
    let checks = books::agree(machine, &run, |_| None)
        .and_then(|()| books::is_zero(&run, "what was recovered"));
    machine.give(run);
    checks?;
    if failure.error != expected || lost != 0 {
        fail!("chunk {torn}: {}, {lost} frames lost; expected {expected}", failure.error);
    }
    if !right {
        fail!("chunk {torn}: the frames that moved are not the first {reached}");
    }
    Ok(())
}

/// The hypervisor, but that a page is read-only in the guest while it exchanges.
struct WriteProtecting {
    xen: &'static Hypervisor,
    list: Pfn,
    mfn: Mfn,
}

// SAFETY: what an exchange needs goes through unchanged, but for a mapping that is taken away and
// put back around a call in which nobody uses it. The rest answers what a Xen without it would.
unsafe impl Xen for WriteProtecting {
    unsafe fn memory_op(&self, op: MemoryOp<'_>) -> Result<u64, XenErrno> {
        let MemoryOp::Exchange(argument) = op else {
            // SAFETY: the caller's.
            return unsafe { self.xen.memory_op(op) };
        };
        let protect = |flags| {
            let entry = (self.list, Pte::new(self.mfn, flags));
            map(core::iter::once(entry)).map_err(|_| XenErrno::EIO)
        };
        protect(READ)?;
        // SAFETY: the caller's; that Xen can't write the list is the point.
        let answer = unsafe { self.xen.memory_op(MemoryOp::Exchange(argument)) };
        protect(READ_WRITE)?;
        answer
    }

    unsafe fn mmu_update(
        &self,
        updates: &[MmuUpdate],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        // SAFETY: the caller's.
        unsafe { self.xen.mmu_update(updates, done, domain) }
    }

    unsafe fn update_va_mapping(
        &self,
        address: VirtAddr,
        pte: Pte,
        flush: UvmFlags,
    ) -> Result<u64, XenErrno> {
        // SAFETY: the caller's.
        unsafe { self.xen.update_va_mapping(address, pte, flush) }
    }

    unsafe fn mmuext_op(
        &self,
        ops: &[MmuExtOp],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        // SAFETY: the caller's.
        unsafe { self.xen.mmuext_op(ops, done, domain) }
    }

    unsafe fn multicall(&self, entries: &mut [MulticallEntry]) -> Result<u64, XenErrno> {
        // SAFETY: the caller's.
        unsafe { self.xen.multicall(entries) }
    }

    fn console_write(&self, _: &[u8]) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    fn sched_op(&self, _: SchedOp) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    fn event_channel_op(&self, _: EventChannelOp) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    fn xen_version(&self, _: VersionOp<'_>) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    unsafe fn vcpu_op(&self, _: VcpuOp<'_>, _: u32) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    unsafe fn set_trap_table(&self, _: &[TrapInfo]) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    fn hvm_op(&self, _: HvmOp) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }
}
