//! The first instructions of a PV guest.
//!
//! The domain builder starts vCPU 0 in 64-bit mode, at the address in `XEN_ELFNOTE_ENTRY`. `rsi` holds
//! the virtual address of `struct start_info`. The page tables map the image, and event delivery is
//! masked. For dom0, see `dom0_construct_pv` in `xen/arch/x86/pv/dom0_build.c`; for a domU, see
//! `vcpu_x86_64` in `tools/libs/guest/xg_dom_x86.c`.

use core::arch::naked_asm;

use xen_sys::start_info;

use crate::boot_info::{BootInfo, call_kernel};
use crate::stack::{BOOT_STACK, BOOT_STACK_TOP_OFFSET};

/// The address at which Xen starts a PV guest.
///
/// The linker script makes it the ELF entry.
///
/// # Safety
///
/// Only Xen may jump here, once, in the state that the module describes. Rust code must not call it.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[unsafe(link_section = ".text.boot")]
pub unsafe extern "C" fn pvh_boot_pv_entry() -> ! {
    naked_asm!(
        "cld",
        // The builder's stack is a single page without a guard page.
        "mov rsp, offset {stack} + {top}",
        // A zero frame pointer ends a backtrace here.
        "xor ebp, ebp",
        "mov rdi, rsi",
        "call {start}",
        "ud2",
        stack = sym BOOT_STACK,
        top = const BOOT_STACK_TOP_OFFSET,
        start = sym start,
    )
}

/// The first Rust function of a PV guest.
extern "C" fn start(start_info: *const start_info) -> ! {
    call_kernel(BootInfo::Pv { start_info })
}
