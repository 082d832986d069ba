//! The first instructions of a PV guest.
//!
//! Xen or the toolstack starts vCPU 0 in 64-bit mode at `XEN_ELFNOTE_ENTRY` with
//! `rsi` holding the virtual address of `struct start_info`, on page tables that
//! map the image, and with event delivery masked
//! (`xen/arch/x86/pv/dom0_build.c`, `dom0_construct_pv`;
//! `tools/libs/guest/xg_dom_x86.c`, `vcpu_x86_64`).

use core::arch::naked_asm;

use xen_sys::start_info;

use crate::boot_info::{BootInfo, call_kernel};
use crate::stack::{BOOT_STACK, BOOT_STACK_TOP_OFFSET};

/// Where Xen starts a PV guest. The linker script makes it the ELF entry.
///
/// # Safety
///
/// Only for Xen to jump to, once, in the state that the module describes. It is
/// no function that Rust code can call.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[unsafe(link_section = ".text.boot")]
pub unsafe extern "C" fn pvh_boot_pv_entry() -> ! {
    naked_asm!(
        "cld",
        // The builder's stack is one page without a guard: use our own.
        "mov rsp, offset {stack} + {top}",
        // No caller: a walk along frame pointers ends here.
        "xor ebp, ebp",
        "mov rdi, rsi",
        "call {start}",
        "ud2",
        stack = sym BOOT_STACK,
        top = const BOOT_STACK_TOP_OFFSET,
        start = sym start,
    )
}

/// The first Rust of a PV guest.
extern "C" fn start(start_info: *const start_info) -> ! {
    call_kernel(BootInfo::Pv { start_info })
}
