//! Hypercalls as a C kernel makes them: a number and registers.

use hypercall::abi::hvm::HvmGetMemType;
use hypercall::abi::memory::MemoryExchange;
use hypercall::abi::memory::MemoryReservation;
use hypercall::ops::{HvmOp, MemoryOp, MmuExtOp, MmuUpdate, MulticallEntry, SchedOp, VersionOp};
use hypercall::{Call, DomId, Xen, XenErrno};
use xen_contig::addr::Pfn;

/// Makes a hypercall of the model. Returns Xen's answer, an error negated.
///
/// # Safety
/// The arguments are what Xen's headers require of the hypercall.
pub unsafe fn enter(xen: &impl Xen, number: u32, arguments: [u64; 4]) -> i64 {
    // SAFETY: as for this function.
    match unsafe { call(xen, number, arguments) } {
        Ok(value) => value as i64,
        Err(errno) => -i64::from(errno.raw()),
    }
}

/// # Safety
/// As for [`enter`].
unsafe fn call(xen: &impl Xen, number: u32, [a, b, c, d]: [u64; 4]) -> Result<u64, XenErrno> {
    // SAFETY: the pointers are what Xen's headers say, and their memory is lent for the call: the function's
    // requirement.
    unsafe {
        let mut call = match (number, a) {
            (xen_sys::__HYPERVISOR_memory_op, op) => Call::Memory(memory_op(op, b)?),
            (xen_sys::__HYPERVISOR_mmu_update, updates) => Call::MmuUpdate {
                updates: std::slice::from_raw_parts(updates as *const MmuUpdate, b as usize),
                done: &mut *(c as *mut u32),
                domain: DomId(d as u16),
            },
            (xen_sys::__HYPERVISOR_mmuext_op, ops) => Call::MmuExt {
                ops: std::slice::from_raw_parts(ops as *const MmuExtOp, b as usize),
                done: &mut *(c as *mut u32),
                domain: DomId(d as u16),
            },
            (xen_sys::__HYPERVISOR_multicall, entries) => Call::Multicall(
                std::slice::from_raw_parts_mut(entries as *mut MulticallEntry, b as usize),
            ),
            (xen_sys::__HYPERVISOR_sched_op, 0) => Call::Sched(SchedOp::Yield),
            (xen_sys::__HYPERVISOR_xen_version, 0) => Call::Version(VersionOp::Version),
            (xen_sys::__HYPERVISOR_hvm_op, 5) => Call::Hvm(HvmOp::FlushTlbs),
            (xen_sys::__HYPERVISOR_hvm_op, 15) => {
                let query = &mut *(b as *mut HvmGetMemType);
                let answer = xen.call(&mut Call::Hvm(HvmOp::GetMemType(Pfn::new(query.pfn))))?;
                query.mem_type = answer as u16;
                return Ok(0);
            }
            _ => return Err(XenErrno::ENOSYS),
        };
        xen.call(&mut call)
    }
}

/// # Safety
/// As for [`enter`].
unsafe fn memory_op(op: u64, argument: u64) -> Result<MemoryOp<'static>, XenErrno> {
    // SAFETY: as for this function.
    unsafe {
        Ok(match op {
            11 => MemoryOp::Exchange(&mut *(argument as *mut MemoryExchange)),
            1 => MemoryOp::DecreaseReservation(&mut *(argument as *mut MemoryReservation)),
            6 => MemoryOp::PopulatePhysmap(&mut *(argument as *mut MemoryReservation)),
            2 => MemoryOp::MaximumRamPage,
            3 => MemoryOp::CurrentReservation(*(argument as *const DomId)),
            4 => MemoryOp::MaximumReservation(*(argument as *const DomId)),
            _ => return Err(XenErrno::ENOSYS),
        })
    }
}
