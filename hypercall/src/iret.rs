//! The way back from an exception or an event of a PV guest.

use core::arch::naked_asm;

/// Bytes from one stub of the hypercall page to the next (`pv_ring3_init_hypercall_page` in Xen's
/// `arch/x86/pv/hypercall.c`).
const STUB: u32 = 32;

/// `HYPERVISOR_iret`: goes back to where an exception or event came from, and takes the event mask
/// back to what it was there.
///
/// # Safety
/// Jumped to, never called, with all registers as they were when the frame was made, and on the
/// stack a zero and then that frame: rip, cs, rflags, rsp, ss (`struct iret_context` in
/// `public/arch-x86/xen-x86_64.h`; the page's stub pushes the rest).
#[unsafe(naked)]
pub unsafe extern "C" fn pv_iret() -> ! {
    naked_asm!("jmp HYPERCALL_PAGE + {stub}", stub = const STUB * xen_sys::__HYPERVISOR_iret)
}
