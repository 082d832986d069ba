//! The trait that issues hypercalls.

use x86_64::VirtAddr;

use crate::ops::{
    EventChannelOp, GrantTableOp, HvmOp, HvmParamIndex, MemoryOp, MmuExtOp, MmuUpdate,
    MulticallEntry, PhysdevOp, Pte, SchedOp, SegmentBase, Suspended, TrapInfo, UvmFlags, VcpuOp,
    VersionOp,
};
use crate::trace::Span;
use crate::{Call, DomId, Mfn, XenErrno};

/// A hypervisor: the real one, a wrapper around it, or a model.
///
/// Only [`call`](Self::call) is required. The library `xen-contig` itself issues `memory_op`,
/// `mmu_update`, `mmuext_op`, `multicall` of these three, `sched_op` with [`SchedOp::Yield`] and
/// `hvm_op` with [`HvmOp::FlushTlbs`] and [`HvmOp::GetMemType`]. A model for tests of the library can answer `ENOSYS` to the rest;
/// after `ENOSYS` to a multicall the library makes its calls one by one.
///
/// The real Xen runs most hypercalls to their end or restarts them without the guest's help, so
/// only [`SchedOp::Block`], [`SchedOp::Poll`] and [`suspend`](Self::suspend) sleep. A handler of
/// events or exceptions may call [`RealXen`](crate::RealXen); [`Traced`](crate::Traced) takes a lock
/// and must not be called from one.
///
/// The library also asks for [`VersionOp::Version`], if the kernel wants to know whether Xen scrubs.
///
/// # Safety
/// The implementor promises:
/// * A call does what Xen's public header says, and nothing else to the caller's memory.
/// * The result is true: `Ok` for a call that changes page tables or takes frames means that it did.
/// * Pointers inside arguments are not used after the call returned.
/// * A call that the implementation does not know returns `ENOSYS` and changes nothing.
/// * Apart from `call`, `enter` and `leave`, the provided methods are not overridden.
///
/// The methods' own sections say what the caller promises. The reason is always the same: Xen
/// changes what memory is mapped and who owns it, which the compiler cannot know.
pub unsafe trait Xen {
    /// Issues a hypercall.
    ///
    /// The argument is a mutable reference so that a wrapper can read afterwards what the call
    /// reports in its arguments.
    ///
    /// # Safety
    /// The requirements of the method that the variant names.
    ///
    /// # Errors
    /// Xen's error; `ENOSYS` from an implementation that does not know the call.
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno>;

    /// Obtains, returns, exchanges or counts memory (`HYPERVISOR_memory_op`).
    ///
    /// # Safety
    /// * A list that the argument points to holds as many entries as the argument says.
    /// * The list stays mapped until the call returns, writable if Xen writes to it, and nothing else
    ///   uses it. It lies outside the memory that the call takes away.
    /// * No Rust object lies in frames that the call takes away.
    ///
    /// A sub-operation that only returns a number requires nothing.
    ///
    /// # Errors
    /// Xen's error. After an error of the exchange, `nr_exchanged` counts the in-extents done.
    unsafe fn memory_op(&self, op: MemoryOp<'_>) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::Memory(op)) }
    }

    /// Writes page-table entries and M2P entries, in order (`HYPERVISOR_mmu_update`).
    ///
    /// # Safety
    /// No reference and no code is in use through a mapping that the call removes or changes.
    ///
    /// # Errors
    /// Xen's error for the first entry that failed. `done` counts the entries before it; Xen has not
    /// done the others.
    unsafe fn mmu_update(
        &self,
        updates: &[MmuUpdate],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::MmuUpdate { updates, done, domain }) }
    }

    /// Writes the first-level entry of an address (`HYPERVISOR_update_va_mapping`).
    ///
    /// # Safety
    /// No reference and no code is in use through the mapping that the call removes or changes.
    ///
    /// # Errors
    /// Xen's error: `EINVAL` if the address has no first-level table or the guest may not map the
    /// frame in this way.
    unsafe fn update_va_mapping(
        &self,
        address: VirtAddr,
        pte: Pte,
        flush: UvmFlags,
    ) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::UpdateVaMapping { address, pte, flush }) }
    }

    /// Pins, unpins and clears page tables, and flushes TLBs (`HYPERVISOR_mmuext_op`).
    ///
    /// # Safety
    /// * No reference and no code is in use through a mapping that the call removes or changes.
    /// * No Rust object lies in a frame that the call clears.
    ///
    /// # Errors
    /// Xen's error for the first operation that failed. `done` counts the operations before it; Xen
    /// has not done the others.
    unsafe fn mmuext_op(
        &self,
        ops: &[MmuExtOp],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::MmuExt { ops, done, domain }) }
    }

    /// Issues a batch (`HYPERVISOR_multicall`). [`Multicall`](crate::Multicall) checks every result.
    ///
    /// # Safety
    /// The requirements of each call in the batch. The lists of the entries live until this returns.
    ///
    /// # Errors
    /// Xen's error for the batch as a whole. Each entry has its own result.
    unsafe fn multicall(&self, entries: &mut [MulticallEntry]) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::Multicall(entries)) }
    }

    /// Writes to Xen's log (`HYPERVISOR_console_io` with `CONSOLEIO_write`).
    ///
    /// # Errors
    /// Xen's error: `EPERM` in a domU, unless Xen was built for verbose debugging.
    fn console_write(&self, bytes: &[u8]) -> Result<u64, XenErrno> {
        // SAFETY: Xen only reads the bytes, which live until the call returns.
        unsafe { self.call(&mut Call::ConsoleWrite(bytes)) }
    }

    /// Yields, sleeps, or ends the domain (`HYPERVISOR_sched_op`).
    ///
    /// # Errors
    /// Xen's error.
    fn sched_op(&self, op: SchedOp) -> Result<u64, XenErrno> {
        // SAFETY: no `SchedOp` changes the guest's memory.
        unsafe { self.call(&mut Call::Sched(op)) }
    }

    /// Suspends the domain, so that the toolstack can save or migrate it (`SCHEDOP_shutdown` with
    /// `SHUTDOWN_suspend`). Sleeps until the domain continues.
    ///
    /// A PV guest names the machine frame of its start info: the toolstack finds it in the register
    /// of a third argument, and rewrites that page (`write_one_vcpu_basic` of libxenguest). A
    /// translated guest passes `None`.
    ///
    /// # Safety
    /// * `start_info` is a frame of this domain in which no Rust object lies except one that every
    ///   access reads anew. A PV guest passes a frame.
    /// * All other vCPUs are down or stay in code that touches nothing of what follows.
    /// * In a PV guest the toolstack finds all frames in the P2M list that the shared page names,
    ///   and no page table maps a frame that is not the domain's own.
    /// * After [`Suspended::Restored`], nothing uses what belonged to the old domain until the kernel
    ///   has obtained it anew: machine frame numbers, event channels, grants, and mappings of memory
    ///   that Xen or another domain shares with the guest.
    ///
    /// # Errors
    /// Xen's error. The domain was not suspended.
    unsafe fn suspend(&self, start_info: Option<Mfn>) -> Result<Suspended, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::Suspend { start_info }) }.map(Suspended::of)
    }

    /// Makes, closes, unmasks or notifies an event channel (`HYPERVISOR_event_channel_op`). Returns
    /// the new port, or 0 if there is none.
    ///
    /// # Errors
    /// Xen's error.
    fn event_channel_op(&self, op: EventChannelOp) -> Result<u64, XenErrno> {
        // SAFETY: an event runs a handler that the kernel has installed; no `EventChannelOp` changes
        // other memory than the pending and mask bits, which are atomic.
        unsafe { self.call(&mut Call::EventChannel(op)) }
    }

    /// Sets up the caller's grant table (`HYPERVISOR_grant_table_op`).
    ///
    /// The method maps and grants nothing: the guest grants a frame by writing to the table.
    ///
    /// # Errors
    /// Xen's error. An error of the sub-operation itself is in its `status`.
    fn grant_table_op(&self, op: GrantTableOp<'_>) -> Result<u64, XenErrno> {
        // SAFETY: Xen writes only to the list and the status of the argument, which are borrowed for
        // the call.
        unsafe { self.call(&mut Call::GrantTable(op)) }
    }

    /// Asks for Xen's version and features (`HYPERVISOR_xen_version`).
    ///
    /// # Errors
    /// Xen's error.
    fn xen_version(&self, op: VersionOp<'_>) -> Result<u64, XenErrno> {
        // SAFETY: Xen writes only to the buffer of the argument, which is borrowed for the call.
        unsafe { self.call(&mut Call::Version(op)) }
    }

    /// Initialises, starts, stops or inspects a vCPU (`HYPERVISOR_vcpu_op`).
    ///
    /// # Safety
    /// * The state of [`VcpuOp::Initialise`] is one in which this kernel can run.
    /// * A vCPU that goes [`Down`](VcpuOp::Down) holds nothing that the others wait for.
    /// * The memory of [`VcpuOp::RegisterVcpuInfo`] belongs to Xen from then on.
    ///
    /// `IsUp` and `GetRunstateInfo` require nothing.
    ///
    /// # Errors
    /// Xen's error: `ENOENT` if there is no such vCPU.
    unsafe fn vcpu_op(&self, op: VcpuOp<'_>, vcpu: u32) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::Vcpu { op, vcpu }) }
    }

    /// Installs the exception handlers of the calling PV vCPU (`HYPERVISOR_set_trap_table`).
    ///
    /// # Safety
    /// * The last entry is [`TrapInfo::END`].
    /// * Each handler is code that takes Xen's exception frame.
    ///
    /// # Errors
    /// Xen's error.
    unsafe fn set_trap_table(&self, table: &[TrapInfo]) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::SetTrapTable(table)) }
    }

    /// Installs the entry points of the calling PV vCPU (`HYPERVISOR_set_callbacks`).
    ///
    /// Xen enters `event` with events masked, and `failsafe` if it cannot load a segment. This crate
    /// sets no entry point for `syscall`, which only a guest with a user mode needs.
    ///
    /// # Safety
    /// Both addresses are code that takes Xen's frame.
    ///
    /// # Errors
    /// Xen's error.
    unsafe fn set_callbacks(&self, event: VirtAddr, failsafe: VirtAddr) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::SetCallbacks { event, failsafe }) }
    }

    /// Sets a segment base of the calling PV vCPU (`HYPERVISOR_set_segment_base`).
    ///
    /// # Safety
    /// No access through that segment is in progress, and later ones find what they expect.
    ///
    /// # Errors
    /// Xen's error.
    unsafe fn set_segment_base(&self, base: SegmentBase) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::SetSegmentBase(base)) }
    }

    /// Reads a parameter or the type of a frame, or flushes TLBs (`HYPERVISOR_hvm_op`). Returns the
    /// parameter, the type, or 0.
    ///
    /// # Errors
    /// Xen's error: `ENOSYS` in a PV guest.
    fn hvm_op(&self, op: HvmOp) -> Result<u64, XenErrno> {
        // SAFETY: no `HvmOp` changes the guest's memory or the way events come.
        unsafe { self.call(&mut Call::Hvm(op)) }
    }

    /// Sets a parameter of the calling domain (`HVMOP_set_param`).
    ///
    /// # Safety
    /// * The vector of [`HvmParamIndex::CallbackIrq`] has a handler that takes an interrupt frame.
    /// * A page that the value names belongs to the toolstack or a backend from then on.
    ///
    /// # Errors
    /// Xen's error: `ENOSYS` in a PV guest.
    unsafe fn set_hvm_param(&self, index: HvmParamIndex, value: u64) -> Result<u64, XenErrno> {
        // SAFETY: the requirements are this function's own.
        unsafe { self.call(&mut Call::SetHvmParam { index, value }) }
    }

    /// Sets the I/O privilege of the calling PV vCPU, or handles physical interrupts
    /// (`HYPERVISOR_physdev_op`). Returns the status of an interrupt, or 0.
    ///
    /// # Errors
    /// Xen's error: `EINVAL` for a level above 3 or an unknown interrupt, `ENOSYS` in a translated guest.
    fn physdev_op(&self, op: PhysdevOp) -> Result<u64, XenErrno> {
        // SAFETY: the level lets port instructions through, which are unsafe themselves. An interrupt
        // comes as an event, and the handler of that is the kernel's.
        unsafe { self.call(&mut Call::Physdev(op)) }
    }

    /// Called when a span begins, on the vCPU that runs it.
    ///
    /// The default does nothing and costs nothing. A hypervisor that traces overrides it; a wrapper
    /// passes it on. It is called in any context in which hypercalls are made, with locks held, so it
    /// must neither sleep nor call back into the library.
    #[inline(always)]
    fn enter(&self, _span: &Span) {}

    /// Called when a span ends, with the value that [`enter`](Self::enter) got.
    ///
    /// Spans end in the reverse order of their beginning on each vCPU. What holds for `enter` holds
    /// here.
    #[inline(always)]
    fn leave(&self, _span: &Span) {}

    /// Runs `work` as a span: [`enter`](Self::enter) before, [`leave`](Self::leave) after it.
    #[inline(always)]
    fn within<R>(&self, span: Span, work: impl FnOnce() -> R) -> R
    where
        Self: Sized,
    {
        self.enter(&span);
        let result = work();
        self.leave(&span);
        result
    }
}
