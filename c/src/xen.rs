//! Hypercalls through the function of a C kernel.

use core::ffi::c_void;
use core::ptr;

use hypercall::abi::hvm::HvmGetMemType;
use hypercall::ops::{HvmOp, MemoryOp, SchedOp, VersionOp};
use hypercall::{Call, DomId, Xen, XenErrno};

use crate::platform::xc_platform;

/// Numbers of `public/hvm/hvm_op.h`.
const HVMOP_FLUSH_TLBS: u64 = 5;
const HVMOP_GET_MEM_TYPE: u64 = 15;

/// The Xen that a C kernel enters.
///
/// It makes the hypercalls that the library issues, and answers `ENOSYS` to all others.
pub struct ForeignXen {
    context: *mut c_void,
    enter: unsafe extern "C" fn(*mut c_void, u32, u64, u64, u64, u64) -> i64,
}

impl ForeignXen {
    /// Returns the Xen of a kernel, or `None` if the kernel has no function for it.
    pub fn of(platform: &xc_platform) -> Option<Self> {
        Some(Self { context: platform.context, enter: platform.hypercall? })
    }

    /// # Safety
    /// What Xen requires of the hypercall.
    unsafe fn enter(&self, number: u32, [a, b, c, d]: [u64; 4]) -> i64 {
        // SAFETY: the kernel's function makes hypercalls: the header requires it. The rest is this
        // function's requirement.
        unsafe { (self.enter)(self.context, number, a, b, c, d) }
    }

    /// # Safety
    /// As for [`Xen::memory_op`].
    unsafe fn memory(&self, op: &mut MemoryOp<'_>) -> i64 {
        let argument = match op {
            MemoryOp::Exchange(exchange) => addr(ptr::from_mut(*exchange)),
            MemoryOp::DecreaseReservation(reservation)
            | MemoryOp::IncreaseReservation(reservation)
            | MemoryOp::PopulatePhysmap(reservation) => addr(ptr::from_mut(*reservation)),
            MemoryOp::CurrentReservation(domain) | MemoryOp::MaximumReservation(domain) => {
                addr(domain)
            }
            MemoryOp::MaximumRamPage => 0,
            _ => return NO_SUCH_CALL,
        };
        // SAFETY: as for this function.
        unsafe { self.enter(xen_sys::__HYPERVISOR_memory_op, [op.number().into(), argument, 0, 0]) }
    }

    /// # Safety
    /// The frame number may be any.
    unsafe fn mem_type(&self, pfn: u64) -> Result<u64, XenErrno> {
        let mut query = HvmGetMemType { domid: DomId::SELF, mem_type: 0, pad: [0; 2], pfn };
        let arguments = [HVMOP_GET_MEM_TYPE, addr(&raw mut query), 0, 0];
        // SAFETY: the query is the structure of the sub-operation and lives across the call.
        let answer = unsafe { self.enter(xen_sys::__HYPERVISOR_hvm_op, arguments) };
        // The compiler does not know that Xen has written it.
        // SAFETY: the query is initialised and aligned.
        XenErrno::check(answer)
            .map(|_| unsafe { (&raw const query.mem_type).read_volatile() }.into())
    }
}

/// `ENOSYS`, as Xen returns it.
const NO_SUCH_CALL: i64 = -38;

fn addr<T>(argument: *const T) -> u64 {
    argument as u64
}

// SAFETY: each arm makes the hypercall of its variant with the arguments of Xen's header and returns Xen's
// answer. An unknown call returns `ENOSYS`.
unsafe impl Xen for ForeignXen {
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        // SAFETY: the arguments live across the call and are of the types that Xen's header names. They
        // are what the variant's method in `Xen` requires.
        let answer = unsafe {
            match call {
                Call::Memory(op) => self.memory(op),
                Call::MmuUpdate { updates, done, domain } => {
                    let (list, done) = (updates.as_ptr(), ptr::from_mut(*done));
                    let arguments = [addr(list), updates.len() as u64, addr(done), domain.0.into()];
                    self.enter(xen_sys::__HYPERVISOR_mmu_update, arguments)
                }
                Call::MmuExt { ops, done, domain } => {
                    let (list, done) = (ops.as_ptr(), ptr::from_mut(*done));
                    let arguments = [addr(list), ops.len() as u64, addr(done), domain.0.into()];
                    self.enter(xen_sys::__HYPERVISOR_mmuext_op, arguments)
                }
                Call::Multicall(entries) => {
                    let arguments = [addr(entries.as_mut_ptr()), entries.len() as u64, 0, 0];
                    self.enter(xen_sys::__HYPERVISOR_multicall, arguments)
                }
                Call::Sched(SchedOp::Yield) => {
                    let arguments = [xen_sys::SCHEDOP_yield.into(), 0, 0, 0];
                    self.enter(xen_sys::__HYPERVISOR_sched_op, arguments)
                }
                Call::Version(VersionOp::Version) => {
                    self.enter(xen_sys::__HYPERVISOR_xen_version, [0; 4])
                }
                Call::Hvm(HvmOp::FlushTlbs) => {
                    self.enter(xen_sys::__HYPERVISOR_hvm_op, [HVMOP_FLUSH_TLBS, 0, 0, 0])
                }
                Call::Hvm(HvmOp::GetMemType(pfn)) => return self.mem_type(pfn.number()),
                _ => NO_SUCH_CALL,
            }
        };
        XenErrno::check(answer)
    }
}
