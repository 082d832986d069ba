//! The state that a vCPU of a PVH guest starts with.

use hypercall::abi::vcpu::{HvmContext, HvmRegisters64, VCPU_HVM_MODE_64B};
use hypercall::ops::VcpuOp;
use hypercall::{Xen, XenErrno};
use x86_64::registers::control::{Cr0, Cr3, Cr4};
use x86_64::registers::model_specific::{Efer, GsBase};

use super::memory::Area;
use super::start::arrived;
use crate::hypervisor::xen;

/// Bit 1 of the flags is always set; interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// Hands the vCPU's first state to Xen: 64-bit mode as on this vCPU, with its page tables.
pub fn initialise(area: &'static Area) -> Result<u64, XenErrno> {
    let local = &area.local;
    let (top, _) = Cr3::read();
    let context = HvmContext {
        mode: VCPU_HVM_MODE_64B,
        pad: 0,
        regs: HvmRegisters64 {
            rdi: core::ptr::from_ref(area) as u64,
            rip: entry as *const () as u64,
            // As if it had been called: the ABI has the stack aligned before the return address.
            rsp: local.stack.top() - 8,
            rflags: RFLAGS,
            cr0: Cr0::read_raw(),
            cr3: top.start_address().as_u64(),
            cr4: Cr4::read_raw(),
            efer: Efer::read_raw(),
            ..HvmRegisters64::default()
        },
    };
    // SAFETY: the vCPU starts in `entry`, on a stack that is its own.
    unsafe { xen().vcpu_op(VcpuOp::InitialiseHvm(&context), local.id.number()) }
}

extern "C" fn entry(area: &'static Area) -> ! {
    GsBase::write(area.local.gs_base());
    area.descriptors.load();
    arrived(area)
}
