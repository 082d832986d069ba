//! The first state of a vCPU of a PV guest.

use alloc::boxed::Box;
use core::mem::MaybeUninit;

use hypercall::ops::VcpuOp;
use hypercall::{Xen, XenErrno};
use x86_64::registers::control::Cr3;
use xen_sys::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_in_kernel, vcpu_guest_context};

use super::traps;
use crate::guest::VcpuEntry;
use crate::vcpu::{Local, xen};

/// Sets the first state of a vCPU.
///
/// The vCPU gets the page tables and traps of the running one, and its own stack and GS base. Its
/// segments come from Xen's descriptor table.
///
/// # Safety
/// The vCPU has never run, and no other vCPU uses its stacks.
///
/// # Errors
/// Xen refused the state.
pub unsafe fn initialise(vcpu: &'static Local, entry: VcpuEntry) -> Result<(), XenErrno> {
    // SAFETY: the structure contains only numbers, for which zero is a valid value.
    let mut context: Box<vcpu_guest_context> =
        Box::new(unsafe { MaybeUninit::zeroed().assume_init() });
    context.flags = VGCF_in_kernel.into();
    context.user_regs.cs = FLAT_KERNEL_CS as u16;
    context.user_regs.ss = FLAT_KERNEL_SS as u16;
    context.user_regs.__bindgen_anon_7.rdi = core::ptr::from_ref(vcpu) as u64;
    context.user_regs.__bindgen_anon_8.rip = entry as *const () as u64;
    // The stack pointer is that after a call. The ABI aligns the stack before the return address is
    // pushed.
    context.user_regs.__bindgen_anon_10.rsp = vcpu.stack.top() - 8;
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = vcpu.stack.top();
    let (top, _) = Cr3::read();
    context.ctrlreg[3] = top.start_address().as_u64();
    context.gs_base_kernel = vcpu.gs_base().as_u64();
    traps::fill(&mut context);
    // SAFETY: `entry` takes the `Local` in rdi and never returns. The stack, the `Local` and the
    // page tables are never freed. By this function's contract no other vCPU uses the stack.
    unsafe { xen().vcpu_op(VcpuOp::Initialise(&context), vcpu.id.number()) }.map(|_| ())
}
