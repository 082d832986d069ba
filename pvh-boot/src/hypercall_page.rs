//! The page through which hypercalls go.
//!
//! Xen fills it: in a PV guest while it builds the domain, because
//! `XEN_ELFNOTE_HYPERCALL_PAGE` names it; in a PVH guest when the kernel writes its
//! physical address to the MSR that CPUID leaf 0x4000_0002 names in `ebx`
//! (`xen/include/public/arch-x86/cpuid.h`, "Leaf 3"). Until then it is full of
//! `int3`, so that a call that comes too early traps instead of doing something.

use core::arch::global_asm;

use crate::layout::{KERNEL_BASE, PAGE_SIZE};

// In assembly rather than as a Rust static: the page changes behind the compiler's
// back, must be executable, and no Rust code may form a reference to its bytes.
// `xen-sys` declares the symbol that its hypercall stubs call into.
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

/// Virtual address of the hypercall page.
pub fn address() -> u64 {
    &raw const HYPERCALL_PAGE as u64
}

/// (Pseudo-)physical address of the hypercall page: what a PVH kernel writes to
/// Xen's hypercall MSR.
pub fn physical_address() -> u64 {
    address() - KERNEL_BASE
}
