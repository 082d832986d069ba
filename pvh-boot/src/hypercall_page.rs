//! The hypercall page: Xen fills it with the instructions that enter Xen.
//!
//! In a PV guest, Xen fills the page while it builds the domain, because the note
//! `XEN_ELFNOTE_HYPERCALL_PAGE` names it. A PVH kernel writes [`physical_address`] to the MSR that
//! CPUID leaf 0x4000_0002 names in `ebx` (`xen/include/public/arch-x86/cpuid.h`, "Leaf 3"), and Xen
//! then fills the page. Other hypervisor interfaces may shift Xen's CPUID leaves by a multiple of
//! 0x100.
//!
//! Before that, the page is full of `int3`, so a hypercall that comes too early traps.
//!
//! This module exists only for `target_os = "none"`.

use core::arch::global_asm;

use crate::layout::{KERNEL_BASE, PAGE_SIZE};

// The page is written in assembly and is not a Rust static. Xen changes it unseen by the compiler, it
// must be executable, and Rust code must not form a reference to its bytes.
// The stubs of `xen-sys` call into this symbol, which `xen-sys` only declares.
global_asm!(
    ".pushsection .text.hypercall_page, \"ax\", @progbits",
    ".balign {size}",
    ".globl HYPERCALL_PAGE",
    ".type HYPERCALL_PAGE, @object",
    ".size HYPERCALL_PAGE, {size}",
    "HYPERCALL_PAGE:",
    ".fill {size}, 1, 0xcc",
    ".popsection",
    size = const PAGE_SIZE,
);

unsafe extern "C" {
    static HYPERCALL_PAGE: u8;
}

/// Returns the virtual address of the hypercall page.
///
/// A kernel may call this at any time.
pub fn address() -> u64 {
    &raw const HYPERCALL_PAGE as u64
}

/// Returns the (pseudo-)physical address of the hypercall page, in bytes.
///
/// A PVH kernel writes it to Xen's hypercall MSR before its first hypercall. A kernel may call this
/// function at any time.
pub fn physical_address() -> u64 {
    address() - KERNEL_BASE
}
