//! The real Xen, by the hypercall page.
//!
//! This module calls through `xen-sys`, whose functions call into the symbol `HYPERCALL_PAGE`;
//! [`RealXen::new`] says what that page must be. Their `asm!` blocks pass argument 5 in r9, where
//! Xen takes r8. Nothing here has five arguments.

use core::num::NonZeroU64;
use core::ptr;

use xen_sys::{hypercall_1, hypercall_2, hypercall_3, hypercall_4};

use crate::abi::grant_table::SetupTable;
use crate::abi::hvm::{HvmGetMemType, HvmParam};
use crate::abi::physdev::{Eoi, IrqStatusQuery, SetIopl};
use crate::abi::sched::SchedPoll;
use crate::ops::{
    EventChannelOp, GrantTableOp, HvmOp, HvmParamIndex, MemoryOp, PhysdevOp, Port, SchedOp,
    SegmentBase, VcpuOp, VersionOp,
};
use crate::{Call, DomId, Mfn, Pfn, Xen, XenErrno};

/// Numbers of `public/hvm/hvm_op.h`.
const HVMOP_SET_PARAM: u32 = 0;
const HVMOP_GET_PARAM: u32 = 1;
/// Its argument must be null.
const HVMOP_FLUSH_TLBS: u32 = 5;
const HVMOP_GET_MEM_TYPE: u32 = 15;

/// The Xen that this kernel runs on.
///
/// Calls take no lock and may be made in any context, those included that must not be interrupted.
#[derive(Clone, Copy, Debug)]
pub struct RealXen(());

impl RealXen {
    /// Makes the handle. It has no size and can be copied.
    ///
    /// # Safety
    /// The code is the kernel of a 64-bit Xen guest. The symbol `HYPERCALL_PAGE` names a page of 128
    /// stubs of 32 bytes, one per hypercall number (`public/arch-x86/xen-x86_64.h`). As long as a
    /// copy of the handle is used:
    ///
    /// * The page is mapped and executable, and holds stubs. Xen fills it before a PV guest starts
    ///   that names it by `XEN_ELFNOTE_HYPERCALL_PAGE`, or when the guest writes its physical address
    ///   to the MSR of CPUID leaf 0x4000_0002. A kernel may also fill it with its own stubs.
    /// * A stub takes its arguments in rdi, rsi, rdx and r10, and passes them to Xen in these
    ///   registers. It returns by `ret` with the result in rax.
    /// * A stub preserves all registers except rax, the flags and the argument registers of its
    ///   hypercall. So a stub with `syscall` saves rcx and r11, which this instruction overwrites. The
    ///   direction flag stays clear.
    /// * A stub may write to the stack below its return address. The kernel is built without a red
    ///   zone, as all code for `x86_64-unknown-none` is: a hypercall pushes a return address without
    ///   telling the compiler.
    ///
    /// Xen's own stubs meet the last three. Fill the page with `int3` until Xen fills it, so that a
    /// call that comes too early traps.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// Returns the address of an argument as a register takes it.
fn addr<T>(argument: *const T) -> u64 {
    argument as u64
}

// SAFETY: each arm issues the hypercall of its variant with the argument that Xen's header wants. It
// returns Xen's result. The `asm!` blocks of xen-sys let the compiler assume that memory changes.
unsafe impl Xen for RealXen {
    #[inline(always)]
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        // SAFETY: `RealXen::new` required the page of stubs. The arguments live across the call, are of
        // the types that Xen's header names, and are what the variant's method in `Xen` requires.
        let ret = unsafe {
            match call {
                Call::Memory(op) => memory(op),
                Call::MmuUpdate { updates, done, domain } => hypercall_4(
                    xen_sys::__HYPERVISOR_mmu_update,
                    addr(updates.as_ptr()),
                    updates.len() as u64,
                    addr(ptr::from_mut(*done)),
                    domain.0.into(),
                ),
                Call::UpdateVaMapping { address, pte, flush } => hypercall_3(
                    xen_sys::__HYPERVISOR_update_va_mapping,
                    address.as_u64(),
                    pte.raw(),
                    flush.bits(),
                ),
                Call::MmuExt { ops, done, domain } => hypercall_4(
                    xen_sys::__HYPERVISOR_mmuext_op,
                    addr(ops.as_ptr()),
                    ops.len() as u64,
                    addr(ptr::from_mut(*done)),
                    domain.0.into(),
                ),
                Call::Multicall(entries) => hypercall_2(
                    xen_sys::__HYPERVISOR_multicall,
                    addr(entries.as_mut_ptr()),
                    entries.len() as u64,
                ),
                Call::ConsoleWrite(bytes) => hypercall_3(
                    xen_sys::__HYPERVISOR_console_io,
                    xen_sys::CONSOLEIO_write.into(),
                    bytes.len() as u64,
                    addr(bytes.as_ptr()),
                ),
                Call::Sched(op) => sched(*op),
                Call::Suspend { start_info } => suspend(*start_info),
                Call::EventChannel(op) => event_channel(*op),
                Call::GrantTable(op) => grant_table(op),
                Call::Version(op) => version(op),
                Call::Vcpu { op, vcpu } => vcpu_op(op, *vcpu),
                Call::SetTrapTable(table) => {
                    hypercall_1(xen_sys::__HYPERVISOR_set_trap_table, addr(table.as_ptr()))
                }
                Call::SetCallbacks { event, failsafe } => hypercall_3(
                    xen_sys::__HYPERVISOR_set_callbacks,
                    event.as_u64(),
                    failsafe.as_u64(),
                    0,
                ),
                Call::SetSegmentBase(SegmentBase::GsKernel(base)) => hypercall_2(
                    xen_sys::__HYPERVISOR_set_segment_base,
                    xen_sys::SEGBASE_GS_KERNEL.into(),
                    base.as_u64(),
                ),
                Call::Hvm(HvmOp::GetParam(index)) => return hvm_param(HVMOP_GET_PARAM, *index, 0),
                Call::Hvm(HvmOp::FlushTlbs) => {
                    hypercall_2(xen_sys::__HYPERVISOR_hvm_op, HVMOP_FLUSH_TLBS.into(), 0)
                }
                Call::Hvm(HvmOp::GetMemType(pfn)) => return mem_type(*pfn),
                Call::SetHvmParam { index, value } => {
                    return hvm_param(HVMOP_SET_PARAM, *index, *value).map(|_| 0);
                }
                Call::Physdev(op) => physdev(*op),
            }
        };
        XenErrno::check(ret)
    }
}

/// # Safety
/// The requirements of [`Xen::memory_op`], and a hypercall page as [`RealXen::new`] requires.
unsafe fn memory(op: &mut MemoryOp<'_>) -> i64 {
    let argument = match op {
        MemoryOp::Exchange(exchange) => addr(ptr::from_mut(*exchange)),
        MemoryOp::DecreaseReservation(reservation)
        | MemoryOp::IncreaseReservation(reservation)
        | MemoryOp::PopulatePhysmap(reservation) => addr(ptr::from_mut(*reservation)),
        MemoryOp::CurrentReservation(domain) | MemoryOp::MaximumReservation(domain) => addr(domain),
        MemoryOp::MaximumRamPage => 0,
        MemoryOp::MachphysMapping(mapping) => addr(ptr::from_mut(*mapping)),
        MemoryOp::MemoryMap(map) => addr(ptr::from_mut(*map)),
        MemoryOp::AddToPhysmap(arg) => addr(*arg),
    };
    // SAFETY: the argument is of the type that the sub-operation takes. This function requires the
    // rest.
    unsafe { hypercall_2(xen_sys::__HYPERVISOR_memory_op, op.number().into(), argument) }
}

/// # Safety
/// A hypercall page as [`RealXen::new`] requires.
unsafe fn sched(op: SchedOp) -> i64 {
    let mut shutdown = xen_sys::sched_shutdown { reason: 0 };
    let mut poll = SchedPoll { ports: ptr::null_mut(), nr_ports: 0, timeout: 0 };
    let mut polled = match op {
        SchedOp::Poll { port: Some(Port(port)), .. } => port,
        _ => 0,
    };
    let (command, argument) = match op {
        SchedOp::Yield => (xen_sys::SCHEDOP_yield, 0),
        SchedOp::Block => (xen_sys::SCHEDOP_block, 0),
        SchedOp::Poll { port, timeout } => {
            if port.is_some() {
                poll.ports = &raw mut polled;
                poll.nr_ports = 1;
            }
            poll.timeout = timeout.map_or(0, NonZeroU64::get);
            (xen_sys::SCHEDOP_poll, addr(&raw const poll))
        }
        SchedOp::Shutdown(reason) => {
            shutdown.reason = reason as u32;
            (xen_sys::SCHEDOP_shutdown, addr(&raw const shutdown))
        }
    };
    // SAFETY: Xen reads the argument, which lives across the call.
    unsafe { hypercall_2(xen_sys::__HYPERVISOR_sched_op, command.into(), argument) }
}

/// # Safety
/// The requirements of [`Xen::suspend`], and a hypercall page as [`RealXen::new`] requires.
unsafe fn suspend(start_info: Option<Mfn>) -> i64 {
    let shutdown = xen_sys::sched_shutdown { reason: xen_sys::SHUTDOWN_suspend };
    // SAFETY: Xen reads the argument, which lives across the call, and leaves the third register to
    // the toolstack.
    unsafe {
        hypercall_3(
            xen_sys::__HYPERVISOR_sched_op,
            xen_sys::SCHEDOP_shutdown.into(),
            addr(&raw const shutdown),
            start_info.map_or(0, Mfn::number),
        )
    }
}

/// # Safety
/// A hypercall page as [`RealXen::new`] requires.
unsafe fn event_channel(op: EventChannelOp) -> i64 {
    // SAFETY: each arm pairs the sub-operation with its structure in `public/event_channel.h`.
    unsafe {
        match op {
            EventChannelOp::Send(Port(port)) => {
                event(xen_sys::EVTCHNOP_send, &mut xen_sys::evtchn_send { port }, |_| 0)
            }
            EventChannelOp::Close(Port(port)) => {
                event(xen_sys::EVTCHNOP_close, &mut xen_sys::evtchn_close { port }, |_| 0)
            }
            EventChannelOp::Unmask(Port(port)) => {
                event(xen_sys::EVTCHNOP_unmask, &mut xen_sys::evtchn_unmask { port }, |_| 0)
            }
            EventChannelOp::BindVirq { virq, vcpu } => event(
                xen_sys::EVTCHNOP_bind_virq,
                &mut xen_sys::evtchn_bind_virq { virq, vcpu, port: 0 },
                |bound| bound.port,
            ),
            EventChannelOp::BindPirq { pirq, shared } => event(
                xen_sys::EVTCHNOP_bind_pirq,
                &mut xen_sys::evtchn_bind_pirq {
                    pirq,
                    flags: if shared { xen_sys::BIND_PIRQ__WILL_SHARE } else { 0 },
                    port: 0,
                },
                |bound| bound.port,
            ),
            EventChannelOp::AllocUnbound { remote } => event(
                xen_sys::EVTCHNOP_alloc_unbound,
                &mut xen_sys::evtchn_alloc_unbound {
                    dom: DomId::SELF.0,
                    remote_dom: remote.0,
                    port: 0,
                },
                |made| made.port,
            ),
            EventChannelOp::BindIpi { vcpu } => event(
                xen_sys::EVTCHNOP_bind_ipi,
                &mut xen_sys::evtchn_bind_ipi { vcpu, port: 0 },
                |bound| bound.port,
            ),
        }
    }
}

/// Issues an `event_channel_op`. Returns what `port` reads from the argument, or Xen's error.
///
/// # Safety
/// `argument` is the structure of the sub-operation, and the hypercall page is as [`RealXen::new`]
/// requires.
unsafe fn event<T>(command: u32, argument: &mut T, port: impl Fn(&T) -> u32) -> i64 {
    // SAFETY: this function requires the page and the structure, which lives across the call.
    let ret = unsafe {
        hypercall_2(
            xen_sys::__HYPERVISOR_event_channel_op,
            command.into(),
            addr(ptr::from_mut(argument)),
        )
    };
    if ret < 0 { ret } else { port(argument).into() }
}

/// # Safety
/// A hypercall page as [`RealXen::new`] requires.
unsafe fn grant_table(op: &mut GrantTableOp<'_>) -> i64 {
    let command = op.command().0;
    let GrantTableOp::SetupTable { frames, status } = op;
    let mut argument = SetupTable {
        dom: DomId::SELF.0,
        nr_frames: frames.len() as u32,
        status: 0,
        frame_list: frames.as_mut_ptr(),
    };
    // SAFETY: Xen writes `nr_frames` entries to the list, and the status to the argument. Both live
    // across the call. The last argument is the number of structures.
    let ret = unsafe {
        hypercall_3(
            xen_sys::__HYPERVISOR_grant_table_op,
            command.into(),
            addr(ptr::from_mut(&mut argument)),
            1,
        )
    };
    **status = argument.status;
    ret
}

/// # Safety
/// A hypercall page as [`RealXen::new`] requires.
unsafe fn version(op: &mut VersionOp<'_>) -> i64 {
    let argument = match op {
        VersionOp::Version => 0,
        VersionOp::ExtraVersion(text) => addr(ptr::from_mut(*text)),
        VersionOp::Features(info) => addr(ptr::from_mut(*info)),
    };
    // SAFETY: the buffer is of the type and size that the sub-operation fills.
    unsafe { hypercall_2(xen_sys::__HYPERVISOR_xen_version, op.command().0.into(), argument) }
}

/// # Safety
/// The requirements of [`Xen::vcpu_op`], and a hypercall page as [`RealXen::new`] requires.
unsafe fn vcpu_op(op: &mut VcpuOp<'_>, vcpu: u32) -> i64 {
    let argument = match op {
        VcpuOp::Initialise(context) => addr(*context),
        VcpuOp::InitialiseHvm(context) => addr(*context),
        VcpuOp::Up | VcpuOp::Down | VcpuOp::IsUp => 0,
        VcpuOp::GetRunstateInfo(info) => addr(ptr::from_mut(*info)),
        VcpuOp::RegisterVcpuInfo(info) => addr(ptr::from_mut(*info)),
    };
    // SAFETY: the argument is of the type that the sub-operation takes. This function requires the
    // rest.
    unsafe {
        hypercall_3(xen_sys::__HYPERVISOR_vcpu_op, op.command().0.into(), vcpu.into(), argument)
    }
}

/// Gets or sets a parameter. Returns its value.
///
/// # Safety
/// The requirements of [`Xen::set_hvm_param`] if `command` sets the parameter, and a hypercall page
/// as [`RealXen::new`] requires.
unsafe fn hvm_param(command: u32, index: HvmParamIndex, value: u64) -> Result<u64, XenErrno> {
    let mut param = HvmParam { domid: DomId::SELF, pad: 0, index: index as u32, value };
    let argument = addr(ptr::from_mut(&mut param));
    // SAFETY: `param` is the structure of both sub-operations and lives across the call. This function
    // requires the rest.
    let ret = unsafe { hypercall_2(xen_sys::__HYPERVISOR_hvm_op, command.into(), argument) };
    XenErrno::check(ret).map(|_| param.value)
}

/// Returns the type of the memory that backs a guest frame.
///
/// # Safety
/// A hypercall page as [`RealXen::new`] requires.
unsafe fn mem_type(pfn: Pfn) -> Result<u64, XenErrno> {
    let pfn = pfn.number();
    let mut query = HvmGetMemType { domid: DomId::SELF, mem_type: 0, pad: [0; 2], pfn };
    let argument = addr(ptr::from_mut(&mut query));
    // SAFETY: `query` is the structure of the sub-operation and lives across the call. Xen changes
    // nothing else.
    let ret =
        unsafe { hypercall_2(xen_sys::__HYPERVISOR_hvm_op, HVMOP_GET_MEM_TYPE.into(), argument) };
    XenErrno::check(ret).map(|_| query.mem_type.into())
}

/// # Safety
/// A hypercall page as [`RealXen::new`] requires.
unsafe fn physdev(op: PhysdevOp) -> i64 {
    let command = op.command().0.into();
    let issue = |argument| {
        // SAFETY: the hypercall page is as `RealXen::new` requires: this function's contract. Each arm below
        // passes the structure of its sub-operation, which lives across the call.
        unsafe { hypercall_2(xen_sys::__HYPERVISOR_physdev_op, command, argument) }
    };
    match op {
        PhysdevOp::SetIopl(iopl) => issue(addr(&SetIopl { iopl })),
        PhysdevOp::IrqStatusQuery { pirq } => {
            let mut query = IrqStatusQuery { irq: pirq, flags: 0 };
            let ret = issue(addr(ptr::from_mut(&mut query)));
            if ret < 0 { ret } else { query.flags.into() }
        }
        PhysdevOp::Eoi { pirq } => issue(addr(&Eoi { irq: pirq })),
    }
}
