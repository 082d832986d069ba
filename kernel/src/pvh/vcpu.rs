//! The first state of a vCPU of a PVH guest.

use hypercall::abi::vcpu::{HvmContext, HvmRegisters64, VCPU_HVM_MODE_64B};
use hypercall::ops::VcpuOp;
use hypercall::{Xen, XenErrno};
use x86_64::registers::control::{Cr0, Cr3, Cr4};
use x86_64::registers::model_specific::Efer;

use crate::guest::VcpuEntry;
use crate::vcpu::{Local, xen};

/// The flags register with bit 1, which is always set, and without the interrupt flag.
const RFLAGS: u64 = 1 << 1;

/// Sets the first state of a vCPU: 64-bit mode on the page tables of the running one.
///
/// # Safety
/// The vCPU has never run, and no other vCPU uses its stacks.
///
/// # Errors
/// Xen refused the state.
pub unsafe fn initialise(vcpu: &'static Local, entry: VcpuEntry) -> Result<(), XenErrno> {
    let (top, _) = Cr3::read();
    let context = HvmContext {
        mode: VCPU_HVM_MODE_64B,
        pad: 0,
        regs: HvmRegisters64 {
            rdi: core::ptr::from_ref(vcpu) as u64,
            rip: entry as *const () as u64,
            // The stack pointer is that after a call. The ABI aligns the stack before the return
            // address is pushed.
            rsp: vcpu.stack.top() - 8,
            rflags: RFLAGS,
            cr0: Cr0::read_raw(),
            cr3: top.start_address().as_u64(),
            cr4: Cr4::read_raw(),
            efer: Efer::read_raw(),
            ..HvmRegisters64::default()
        },
    };
    // SAFETY: `entry` takes the `Local` in rdi and never returns. The stack, the `Local` and the
    // page tables are never freed. By this function's contract no other vCPU uses the stack.
    unsafe { xen().vcpu_op(VcpuOp::InitialiseHvm(&context), vcpu.id.number()) }.map(|_| ())
}
