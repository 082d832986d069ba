//! The one seam to the hypervisor.

use x86_64::VirtAddr;

use crate::ops::{
    EventChannelOp, HvmOp, MemoryOp, MmuExtOp, MmuUpdate, MulticallEntry, PhysdevOp, Pte, SchedOp,
    SegmentBase, TrapInfo, UvmFlags, VcpuOp, VersionOp,
};
use crate::trace::Span;
use crate::{DomId, XenErrno};

/// A hypervisor: the real one, a wrapper around it, or a model.
///
/// # Safety
/// Duties of the implementor: each method does what Xen's public header of that hypercall says and
/// nothing else to the caller's memory. What it reports is what happened: an `Ok` for a call that
/// changed page tables or took frames means that it did. Pointers inside arguments are not kept
/// beyond the call.
///
/// Duties of the caller are with each method. They come from one fact: Xen changes what memory is
/// mapped and who owns it, and the compiler knows nothing of that.
pub unsafe trait Xen {
    /// `HYPERVISOR_memory_op`.
    ///
    /// # Safety
    /// Lists that the argument points to hold at least as many entries as it says and stay mapped
    /// (writable where Xen writes) and unused by anyone else until the call returns (M3). Nothing
    /// of Rust's lies in frames that are given up.
    ///
    /// # Errors
    /// Xen's. The extents done before an error of the exchange are in `nr_exchanged`.
    unsafe fn memory_op(&self, op: MemoryOp<'_>) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_mmu_update`: writes page-table entries and M2P entries, in order.
    ///
    /// # Safety
    /// No reference or code is in use through a mapping that the call takes away or changes.
    ///
    /// # Errors
    /// Xen's for the first entry that failed; none from there on was done. `done` holds how many
    /// were.
    unsafe fn mmu_update(
        &self,
        updates: &[MmuUpdate],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_update_va_mapping`: writes the first-level entry of an address.
    ///
    /// # Safety
    /// As for [`mmu_update`](Self::mmu_update).
    ///
    /// # Errors
    /// Xen's: `EINVAL` where there is no first-level table or the frame can't be mapped so.
    unsafe fn update_va_mapping(
        &self,
        address: VirtAddr,
        pte: Pte,
        flush: UvmFlags,
    ) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_mmuext_op`: pins, unpins and clears tables, flushes TLBs.
    ///
    /// # Safety
    /// As for [`mmu_update`](Self::mmu_update); a frame that is cleared holds nothing of Rust's.
    ///
    /// # Errors
    /// As for [`mmu_update`](Self::mmu_update).
    unsafe fn mmuext_op(
        &self,
        ops: &[MmuExtOp],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_multicall`. Use [`Multicall`](crate::Multicall), which looks at every result.
    ///
    /// # Safety
    /// As for the calls in the batch; what they point to lives.
    ///
    /// # Errors
    /// Xen's for the batch as a whole; each entry has a result of its own.
    unsafe fn multicall(&self, entries: &mut [MulticallEntry]) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_console_io`, `CONSOLEIO_write`: to Xen's log.
    ///
    /// # Errors
    /// `EPERM` for a domU of a Xen that was not built for verbose debugging.
    fn console_write(&self, bytes: &[u8]) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_sched_op`.
    ///
    /// # Errors
    /// Xen's.
    fn sched_op(&self, op: SchedOp) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_event_channel_op`. Answers the port where the operation makes one, else 0.
    ///
    /// # Errors
    /// Xen's.
    fn event_channel_op(&self, op: EventChannelOp) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_xen_version`.
    ///
    /// # Errors
    /// Xen's.
    fn xen_version(&self, op: VersionOp<'_>) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_vcpu_op`.
    ///
    /// # Safety
    /// A vCPU starts only with a state that is sound for this kernel; the page that a `vcpu_info`
    /// moves to stays what it is from then on.
    ///
    /// # Errors
    /// Xen's.
    unsafe fn vcpu_op(&self, op: VcpuOp<'_>, vcpu: u32) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_set_trap_table`.
    ///
    /// # Safety
    /// The last entry is [`TrapInfo::END`]; the handlers are code that takes Xen's exception frame.
    ///
    /// # Errors
    /// Xen's.
    unsafe fn set_trap_table(&self, table: &[TrapInfo]) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_set_callbacks`: where a PV vCPU goes for an event, with events masked, and where
    /// when Xen can't load a segment of its. No entry for `syscall` is set: there is no user mode.
    /// A model without events need not implement it.
    ///
    /// # Safety
    /// Both are code that takes Xen's frame.
    ///
    /// # Errors
    /// Xen's: `ENOSYS` where there is no such call.
    unsafe fn set_callbacks(&self, _event: VirtAddr, _failsafe: VirtAddr) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    /// `HYPERVISOR_set_segment_base`, of the calling PV vCPU. A model need not implement it.
    ///
    /// # Safety
    /// Nothing is in use through that segment.
    ///
    /// # Errors
    /// Xen's: `ENOSYS` where there is no such call.
    unsafe fn set_segment_base(&self, _base: SegmentBase) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    /// `HYPERVISOR_hvm_op`. Answers the value for `GetParam`, else 0.
    ///
    /// # Errors
    /// Xen's.
    fn hvm_op(&self, op: HvmOp) -> Result<u64, XenErrno>;

    /// `HYPERVISOR_physdev_op`. A model of a machine without devices need not implement it.
    ///
    /// # Errors
    /// Xen's: `ENOSYS` where there is no such call.
    fn physdev_op(&self, _op: PhysdevOp) -> Result<u64, XenErrno> {
        Err(XenErrno::ENOSYS)
    }

    /// Called when a span begins, on the vCPU that runs it.
    ///
    /// The default does nothing and costs nothing. A hypervisor that traces overrides it; a wrapper
    /// passes it on. It is called in any context in which hypercalls are made, with locks held, so it
    /// must neither sleep nor call back into the library.
    #[inline(always)]
    fn enter(&self, _span: Span) {}

    /// Called when a span ends, with the value that [`enter`](Self::enter) got.
    ///
    /// Spans end in the reverse order of their beginning on each vCPU. What holds for `enter` holds
    /// here.
    #[inline(always)]
    fn leave(&self, _span: Span) {}

    /// Runs `work` as a span: [`enter`](Self::enter) before, [`leave`](Self::leave) after it.
    #[inline(always)]
    fn within<R>(&self, span: Span, work: impl FnOnce() -> R) -> R
    where
        Self: Sized,
    {
        self.enter(span);
        let result = work();
        self.leave(span);
        result
    }
}
