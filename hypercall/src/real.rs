//! The real Xen, by `xen-sys`.
//!
//! `xen-sys` calls through the symbol `HYPERCALL_PAGE`, which the kernel defines and Xen fills.
//! Its `asm!` pushes a return address and claims `nostack`, so the target must have no red zone
//! (`x86_64-unknown-none` has none). Its `hypercall_5` passes the fifth argument in r9 where Xen
//! takes r8 (`public/arch-x86/xen-x86_64.h`); nothing here has five arguments.

use core::num::NonZeroU64;
use core::ptr;

use x86_64::VirtAddr;
use xen_sys::{hypercall_1, hypercall_2, hypercall_3, hypercall_4};

use crate::abi::hvm::{HVMOP_FLUSH_TLBS, HVMOP_GET_PARAM, HVMOP_SET_PARAM, HvmParam};
use crate::abi::physdev::{PHYSDEVOP_SET_IOPL, SetIopl};
use crate::abi::sched::SchedPoll;
use crate::abi::{memory as mem, vcpu as vcpu_abi, version};
use crate::ops::{
    EventChannelOp, HvmOp, MemoryOp, MmuExtOp, MmuUpdate, MulticallEntry, PhysdevOp, Port, Pte,
    SchedOp, SegmentBase, TrapInfo, UvmFlags, VcpuOp, VersionOp,
};
use crate::{DomId, Mfn, Xen, XenErrno};

/// The Xen that this kernel runs on.
#[derive(Clone, Copy, Debug)]
pub struct RealXen(());

impl RealXen {
    /// Makes the handle.
    ///
    /// # Safety
    /// The code runs as a Xen guest and `HYPERCALL_PAGE` has been filled by Xen.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// The address of an argument as a register takes it.
fn addr<T>(argument: *const T) -> u64 {
    argument as u64
}

// SAFETY: every method is the hypercall that its name says, with the argument that the header
// wants; xen-sys's asm tells the compiler that memory may change.
unsafe impl Xen for RealXen {
    unsafe fn memory_op(&self, op: MemoryOp<'_>) -> Result<u64, XenErrno> {
        let (cmd, argument) = match op {
            MemoryOp::Exchange(exchange) => (mem::XENMEM_EXCHANGE, addr(exchange)),
            MemoryOp::DecreaseReservation(r) => (mem::XENMEM_DECREASE_RESERVATION, addr(r)),
            MemoryOp::IncreaseReservation(r) => (mem::XENMEM_INCREASE_RESERVATION, addr(r)),
            MemoryOp::PopulatePhysmap(r) => (mem::XENMEM_POPULATE_PHYSMAP, addr(r)),
            MemoryOp::CurrentReservation(domain) => {
                return ask(mem::XENMEM_CURRENT_RESERVATION, &domain);
            }
            MemoryOp::MaximumReservation(domain) => {
                return ask(mem::XENMEM_MAXIMUM_RESERVATION, &domain);
            }
            MemoryOp::MaximumRamPage => (mem::XENMEM_MAXIMUM_RAM_PAGE, 0),
            MemoryOp::MachphysMapping(mapping) => (mem::XENMEM_MACHPHYS_MAPPING, addr(mapping)),
            MemoryOp::MemoryMap(map) => (mem::XENMEM_MEMORY_MAP, addr(map)),
            MemoryOp::AddToPhysmap(arg) => (mem::XENMEM_ADD_TO_PHYSMAP, addr(arg)),
        };
        // SAFETY: the argument is of the type that the command takes; its lists are as the caller
        // of this method promised (M3).
        XenErrno::check(unsafe {
            hypercall_2(xen_sys::__HYPERVISOR_memory_op, cmd.into(), argument)
        })
    }

    unsafe fn mmu_update(
        &self,
        updates: &[MmuUpdate],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        // SAFETY: slice and counter live across the call; what the entries do is the caller's.
        XenErrno::check(unsafe {
            hypercall_4(
                xen_sys::__HYPERVISOR_mmu_update,
                addr(updates.as_ptr()),
                updates.len() as u64,
                addr(ptr::from_mut(done)),
                domain.0.into(),
            )
        })
    }

    unsafe fn update_va_mapping(
        &self,
        address: VirtAddr,
        pte: Pte,
        flush: UvmFlags,
    ) -> Result<u64, XenErrno> {
        // SAFETY: plain values; what the change means is the caller's.
        XenErrno::check(unsafe {
            hypercall_3(
                xen_sys::__HYPERVISOR_update_va_mapping,
                address.as_u64(),
                pte.raw(),
                flush.bits(),
            )
        })
    }

    unsafe fn mmuext_op(
        &self,
        ops: &[MmuExtOp],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        // SAFETY: as for mmu_update.
        XenErrno::check(unsafe {
            hypercall_4(
                xen_sys::__HYPERVISOR_mmuext_op,
                addr(ops.as_ptr()),
                ops.len() as u64,
                addr(ptr::from_mut(done)),
                domain.0.into(),
            )
        })
    }

    unsafe fn multicall(&self, entries: &mut [MulticallEntry]) -> Result<u64, XenErrno> {
        // SAFETY: the slice is writable and lives; what it holds is the caller's.
        XenErrno::check(unsafe {
            hypercall_2(
                xen_sys::__HYPERVISOR_multicall,
                addr(entries.as_mut_ptr()),
                entries.len() as u64,
            )
        })
    }

    fn console_write(&self, bytes: &[u8]) -> Result<u64, XenErrno> {
        // SAFETY: Xen reads `bytes` and writes nothing.
        XenErrno::check(unsafe {
            hypercall_3(
                xen_sys::__HYPERVISOR_console_io,
                xen_sys::CONSOLEIO_write.into(),
                bytes.len() as u64,
                addr(bytes.as_ptr()),
            )
        })
    }

    fn sched_op(&self, op: SchedOp) -> Result<u64, XenErrno> {
        let mut shutdown = xen_sys::sched_shutdown { reason: 0 };
        let mut record = 0;
        let mut poll = SchedPoll { ports: ptr::null_mut(), nr_ports: 0, timeout: 0 };
        let mut polled = match op {
            SchedOp::Poll { port: Some(Port(port)), .. } => port,
            _ => 0,
        };
        let (cmd, argument) = match op {
            SchedOp::Yield => (xen_sys::SCHEDOP_yield, 0),
            SchedOp::Block => (xen_sys::SCHEDOP_block, 0),
            SchedOp::Poll { port, timeout } => {
                if port.is_some() {
                    poll.ports = &raw mut polled;
                    poll.nr_ports = 1;
                }
                poll.timeout = timeout.map_or(0, NonZeroU64::get);
                (xen_sys::SCHEDOP_poll, addr(&poll))
            }
            SchedOp::Shutdown(reason) => {
                shutdown.reason = reason as u32;
                (xen_sys::SCHEDOP_shutdown, addr(&shutdown))
            }
            SchedOp::Suspend { start_info } => {
                shutdown.reason = xen_sys::SHUTDOWN_suspend;
                record = start_info.map_or(0, Mfn::number);
                (xen_sys::SCHEDOP_shutdown, addr(&shutdown))
            }
        };
        // SAFETY: none of them touches the guest's memory but to read its argument. Xen takes two
        // arguments and leaves the third register alone.
        XenErrno::check(unsafe {
            hypercall_3(xen_sys::__HYPERVISOR_sched_op, cmd.into(), argument, record)
        })
    }

    fn event_channel_op(&self, op: EventChannelOp) -> Result<u64, XenErrno> {
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

    fn xen_version(&self, op: VersionOp<'_>) -> Result<u64, XenErrno> {
        let (cmd, argument) = match op {
            VersionOp::Version => (version::XENVER_VERSION, 0),
            VersionOp::ExtraVersion(text) => (version::XENVER_EXTRAVERSION, addr(text)),
            VersionOp::Features(info) => (version::XENVER_GET_FEATURES, addr(info)),
        };
        // SAFETY: the buffer is of the type and size that the command fills.
        XenErrno::check(unsafe {
            hypercall_2(xen_sys::__HYPERVISOR_xen_version, cmd.into(), argument)
        })
    }

    unsafe fn vcpu_op(&self, op: VcpuOp<'_>, vcpu: u32) -> Result<u64, XenErrno> {
        let (cmd, argument) = match op {
            VcpuOp::Initialise(context) => (vcpu_abi::VCPUOP_INITIALISE, addr(context)),
            VcpuOp::InitialiseHvm(context) => (vcpu_abi::VCPUOP_INITIALISE, addr(context)),
            VcpuOp::Up => (vcpu_abi::VCPUOP_UP, 0),
            VcpuOp::Down => (vcpu_abi::VCPUOP_DOWN, 0),
            VcpuOp::IsUp => (vcpu_abi::VCPUOP_IS_UP, 0),
            VcpuOp::GetRunstateInfo(info) => (vcpu_abi::VCPUOP_GET_RUNSTATE_INFO, addr(info)),
            VcpuOp::RegisterVcpuInfo(info) => (vcpu_abi::VCPUOP_REGISTER_VCPU_INFO, addr(info)),
        };
        // SAFETY: the argument is of the type that the command takes; the rest is the caller's.
        XenErrno::check(unsafe {
            hypercall_3(xen_sys::__HYPERVISOR_vcpu_op, cmd.into(), vcpu.into(), argument)
        })
    }

    unsafe fn set_trap_table(&self, table: &[TrapInfo]) -> Result<u64, XenErrno> {
        // SAFETY: Xen reads up to the END entry, which the caller promised.
        XenErrno::check(unsafe {
            hypercall_1(xen_sys::__HYPERVISOR_set_trap_table, addr(table.as_ptr()))
        })
    }

    unsafe fn set_callbacks(&self, event: VirtAddr, failsafe: VirtAddr) -> Result<u64, XenErrno> {
        // SAFETY: plain values; what is at the addresses is the caller's.
        XenErrno::check(unsafe {
            hypercall_3(xen_sys::__HYPERVISOR_set_callbacks, event.as_u64(), failsafe.as_u64(), 0)
        })
    }

    unsafe fn set_segment_base(&self, base: SegmentBase) -> Result<u64, XenErrno> {
        let SegmentBase::GsKernel(base) = base;
        // SAFETY: plain values; what the change means is the caller's.
        XenErrno::check(unsafe {
            hypercall_2(
                xen_sys::__HYPERVISOR_set_segment_base,
                xen_sys::SEGBASE_GS_KERNEL.into(),
                base.as_u64(),
            )
        })
    }

    fn hvm_op(&self, op: HvmOp) -> Result<u64, XenErrno> {
        let (cmd, index, value) = match op {
            HvmOp::GetParam(index) => (HVMOP_GET_PARAM, index, 0),
            HvmOp::SetParam(index, value) => (HVMOP_SET_PARAM, index, value),
            HvmOp::FlushTlbs => {
                // SAFETY: a flush changes no mapping and takes no argument.
                return XenErrno::check(unsafe {
                    hypercall_2(xen_sys::__HYPERVISOR_hvm_op, HVMOP_FLUSH_TLBS.into(), 0)
                });
            }
        };
        let mut param = HvmParam { domid: DomId::SELF, pad: 0, index: index as u32, value };
        // SAFETY: `param` is what both commands take and lives across the call.
        XenErrno::check(unsafe {
            hypercall_2(xen_sys::__HYPERVISOR_hvm_op, cmd.into(), addr(ptr::from_mut(&mut param)))
        })?;
        Ok(if cmd == HVMOP_GET_PARAM { param.value } else { 0 })
    }

    fn physdev_op(&self, op: PhysdevOp) -> Result<u64, XenErrno> {
        let PhysdevOp::SetIopl(iopl) = op;
        let argument = SetIopl { iopl };
        // SAFETY: Xen reads the argument, which lives across the call, and writes nothing.
        XenErrno::check(unsafe {
            hypercall_2(
                xen_sys::__HYPERVISOR_physdev_op,
                PHYSDEVOP_SET_IOPL.into(),
                addr(&raw const argument),
            )
        })
    }
}

/// A `memory_op` whose argument is a domain number.
fn ask(cmd: u32, domain: &DomId) -> Result<u64, XenErrno> {
    // SAFETY: Xen reads the domain number and writes nothing.
    XenErrno::check(unsafe {
        hypercall_2(xen_sys::__HYPERVISOR_memory_op, cmd.into(), addr(domain))
    })
}

/// An `event_channel_op` with the argument of its command.
fn event<T>(cmd: u32, argument: &mut T, port: impl Fn(&T) -> u32) -> Result<u64, XenErrno> {
    // SAFETY: each caller pairs the command with the structure that the header pairs it with.
    XenErrno::check(unsafe {
        hypercall_2(
            xen_sys::__HYPERVISOR_event_channel_op,
            cmd.into(),
            addr(ptr::from_mut(argument)),
        )
    })?;
    Ok(port(argument).into())
}
