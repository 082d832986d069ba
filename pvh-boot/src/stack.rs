//! The boot stack, which both entries use, and its guard page.
//!
//! This module exists only for `target_os = "none"`.

use core::cell::UnsafeCell;

use crate::layout::PAGE_SIZE;

/// Size of the boot stack in bytes.
pub const BOOT_STACK_SIZE: usize = 128 << 10;

const GUARD_SIZE: usize = PAGE_SIZE as usize;

/// The guard page and the stack. One object keeps them adjacent.
#[repr(C, align(4096))]
pub(crate) struct BootStack {
    guard: UnsafeCell<[u8; GUARD_SIZE]>,
    stack: UnsafeCell<[u8; BOOT_STACK_SIZE]>,
}

// SAFETY: The cells are private and no Rust code accesses them, so threads cannot race through a
// shared reference. Only the boot vCPU uses the bytes, through its stack pointer.
unsafe impl Sync for BootStack {}

/// The boot stack. It is zero in the image, so it lies in `.bss`.
pub(crate) static BOOT_STACK: BootStack = BootStack {
    guard: UnsafeCell::new([0; GUARD_SIZE]),
    stack: UnsafeCell::new([0; BOOT_STACK_SIZE]),
};

/// Offset of the initial stack pointer in [`BOOT_STACK`], in bytes.
pub(crate) const BOOT_STACK_TOP_OFFSET: usize = GUARD_SIZE + BOOT_STACK_SIZE;

const _: () = assert!(size_of::<BootStack>() == BOOT_STACK_TOP_OFFSET);

/// The place of a stack. All addresses are virtual and page-aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackBounds {
    /// First byte of the guard page, which is directly below the stack.
    pub guard: u64,
    /// First byte of the stack.
    pub bottom: u64,
    /// First byte past the stack. The stack grows downwards from here.
    pub top: u64,
}

/// Returns the place of the boot stack, on which the kernel's function starts.
///
/// At the start, the guard page is mapped like its neighbours. The kernel should unmap it: then a stack
/// overflow faults and does not overwrite other data. The crate stores nothing there.
///
/// A kernel may call this function at any time.
pub fn boot_stack() -> StackBounds {
    let bottom = BOOT_STACK.stack.get() as u64;
    StackBounds {
        guard: BOOT_STACK.guard.get() as u64,
        bottom,
        top: bottom + BOOT_STACK_SIZE as u64,
    }
}
