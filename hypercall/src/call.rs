//! A hypercall as a value.

use x86_64::VirtAddr;

use crate::ops::{
    EventChannelOp, GrantTableOp, HvmOp, HvmParamIndex, MemoryOp, MmuExtOp, MmuUpdate,
    MulticallEntry, PhysdevOp, Pte, SchedOp, SegmentBase, TrapInfo, UvmFlags, VcpuOp, VersionOp,
};
use crate::{DomId, Mfn, XenErrno};

/// A hypercall with its arguments.
///
/// Each variant names the method of [`Xen`](crate::Xen) that makes it. That method's documentation says what the
/// hypercall does and what it requires.
#[non_exhaustive]
#[expect(missing_docs, reason = "each field is the argument of its name")]
pub enum Call<'a> {
    /// [`Xen::memory_op`](crate::Xen::memory_op).
    Memory(MemoryOp<'a>),
    /// [`Xen::mmu_update`](crate::Xen::mmu_update).
    MmuUpdate { updates: &'a [MmuUpdate], done: &'a mut u32, domain: DomId },
    /// [`Xen::update_va_mapping`](crate::Xen::update_va_mapping).
    UpdateVaMapping { address: VirtAddr, pte: Pte, flush: UvmFlags },
    /// [`Xen::mmuext_op`](crate::Xen::mmuext_op).
    MmuExt { ops: &'a [MmuExtOp], done: &'a mut u32, domain: DomId },
    /// [`Xen::multicall`](crate::Xen::multicall).
    Multicall(&'a mut [MulticallEntry]),
    /// [`Xen::console_write`](crate::Xen::console_write).
    ConsoleWrite(&'a [u8]),
    /// [`Xen::sched_op`](crate::Xen::sched_op).
    Sched(SchedOp),
    /// [`Xen::suspend`](crate::Xen::suspend).
    Suspend { start_info: Option<Mfn> },
    /// [`Xen::event_channel_op`](crate::Xen::event_channel_op).
    EventChannel(EventChannelOp),
    /// [`Xen::grant_table_op`](crate::Xen::grant_table_op).
    GrantTable(GrantTableOp<'a>),
    /// [`Xen::xen_version`](crate::Xen::xen_version).
    Version(VersionOp<'a>),
    /// [`Xen::vcpu_op`](crate::Xen::vcpu_op).
    Vcpu { op: VcpuOp<'a>, vcpu: u32 },
    /// [`Xen::set_trap_table`](crate::Xen::set_trap_table).
    SetTrapTable(&'a [TrapInfo]),
    /// [`Xen::set_callbacks`](crate::Xen::set_callbacks).
    SetCallbacks { event: VirtAddr, failsafe: VirtAddr },
    /// [`Xen::set_segment_base`](crate::Xen::set_segment_base).
    SetSegmentBase(SegmentBase),
    /// [`Xen::hvm_op`](crate::Xen::hvm_op).
    Hvm(HvmOp),
    /// [`Xen::set_hvm_param`](crate::Xen::set_hvm_param).
    SetHvmParam { index: HvmParamIndex, value: u64 },
    /// [`Xen::physdev_op`](crate::Xen::physdev_op).
    Physdev(PhysdevOp),
}

impl Call<'_> {
    /// Returns true if [`done`](Self::done) returns a number. A tracer asks before the call, when the
    /// variant is still a constant.
    #[inline(always)]
    pub(crate) fn reports_done(&self) -> bool {
        matches!(
            self,
            Self::Memory(MemoryOp::Exchange(_))
                | Self::MmuUpdate { .. }
                | Self::MmuExt { .. }
                | Self::Multicall(_)
        )
    }

    /// Returns how much of a call was done, if its arguments report that apart from the result: the
    /// in-extents exchanged, the updates and operations done, the entries that succeeded.
    #[inline(always)]
    pub fn done(&self) -> Option<u64> {
        match self {
            Self::Memory(MemoryOp::Exchange(exchange)) => Some(exchange.nr_exchanged),
            Self::MmuUpdate { done, .. } | Self::MmuExt { done, .. } => Some(u64::from(**done)),
            Self::Multicall(entries) => {
                Some(entries.iter().filter(|entry| entry.result().is_ok()).count() as u64)
            }
            _ => None,
        }
    }

    /// Returns the index and the error of the first entry of a multicall that failed.
    #[inline(always)]
    pub(crate) fn failed_entry(&self) -> Option<(u32, XenErrno)> {
        let Self::Multicall(entries) = self else { return None };
        let mut results = entries.iter().enumerate();
        results.find_map(|(index, entry)| Some((index as u32, entry.result().err()?)))
    }
}
