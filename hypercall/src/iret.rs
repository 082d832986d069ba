//! The return from an exception or event of a PV guest.

use core::arch::naked_asm;

/// The size in bytes of a stub of the hypercall page (`pv_ring3_init_hypercall_page` in Xen's
/// `arch/x86/pv/hypercall.c`).
const STUB: u32 = 32;

/// Returns from an exception or event, and restores the event mask (`HYPERVISOR_iret`).
///
/// # Safety
/// * The handler jumps here and does not call.
/// * All registers hold their values from the time of the exception or event.
/// * The stack holds a zero and then Xen's frame: rip, cs, rflags, rsp, ss. The stub of the hypercall
///   page pushes the rest of `struct iret_context` (`public/arch-x86/xen-x86_64.h`).
#[unsafe(naked)]
pub unsafe extern "C" fn pv_iret() -> ! {
    naked_asm!("jmp HYPERCALL_PAGE + {stub}", stub = const STUB * xen_sys::__HYPERVISOR_iret)
}
