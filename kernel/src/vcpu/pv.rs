//! The state that a vCPU of a PV guest starts with.

use alloc::boxed::Box;
use core::mem::MaybeUninit;

use hypercall::ops::VcpuOp;
use hypercall::{Xen, XenErrno};
use x86_64::registers::control::Cr3;
use xen_sys::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_in_kernel, vcpu_guest_context};

use super::memory::Area;
use super::start::arrived;
use crate::hypervisor::xen;
use crate::traps;

/// Hands the vCPU's first state to Xen: this vCPU's page tables, the same traps, its own stack and
/// GS base. Segments come from Xen's own table, so the vCPU has none of its own.
pub fn initialise(area: &'static Area) -> Result<u64, XenErrno> {
    let local = &area.local;
    // SAFETY: numbers alone, for all of which zero is a value.
    let mut context: Box<vcpu_guest_context> =
        Box::new(unsafe { MaybeUninit::zeroed().assume_init() });
    context.flags = VGCF_in_kernel.into();
    context.user_regs.cs = FLAT_KERNEL_CS as u16;
    context.user_regs.ss = FLAT_KERNEL_SS as u16;
    context.user_regs.__bindgen_anon_7.rdi = core::ptr::from_ref(area) as u64;
    context.user_regs.__bindgen_anon_8.rip = entry as *const () as u64;
    // As if it had been called: the ABI has the stack aligned before the return address.
    context.user_regs.__bindgen_anon_10.rsp = local.stack.top() - 8;
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = local.stack.top();
    let (top, _) = Cr3::read();
    context.ctrlreg[3] = top.start_address().as_u64();
    context.gs_base_kernel = local.gs_base().as_u64();
    traps::pv::fill(&mut context);
    // SAFETY: the vCPU starts in `entry`, on a stack that is its own.
    unsafe { xen().vcpu_op(VcpuOp::Initialise(&context), local.id.number()) }
}

extern "C" fn entry(area: &'static Area) -> ! {
    arrived(area)
}
