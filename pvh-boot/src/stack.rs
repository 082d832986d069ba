//! The stack that both entries start on, and the page below it.

use core::cell::UnsafeCell;

use crate::layout::PAGE_SIZE;

/// Size of the boot stack in bytes.
pub const BOOT_STACK_SIZE: usize = 128 << 10;

const GUARD_SIZE: usize = PAGE_SIZE as usize;

/// Guard and stack as one object, so that nothing can come between them.
#[repr(C, align(4096))]
pub(crate) struct BootStack {
    guard: UnsafeCell<[u8; GUARD_SIZE]>,
    stack: UnsafeCell<[u8; BOOT_STACK_SIZE]>,
}

// SAFETY: no Rust code ever reads or writes through this static; it is storage
// for the stack pointer of the one boot CPU and otherwise only has its address
// taken.
unsafe impl Sync for BootStack {}

/// The boot stack itself; zero, and thereby in `.bss`.
pub(crate) static BOOT_STACK: BootStack = BootStack {
    guard: UnsafeCell::new([0; GUARD_SIZE]),
    stack: UnsafeCell::new([0; BOOT_STACK_SIZE]),
};

/// Distance from the start of [`BOOT_STACK`] to the first stack pointer.
pub(crate) const BOOT_STACK_TOP_OFFSET: usize = GUARD_SIZE + BOOT_STACK_SIZE;

const _: () = assert!(size_of::<BootStack>() == BOOT_STACK_TOP_OFFSET);

/// Where a stack lies. All addresses are virtual and page-aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackBounds {
    /// The page below the stack: nothing is kept there, so that the kernel can
    /// unmap it and an overflow faults.
    pub guard: u64,
    /// Lowest byte of the stack.
    pub bottom: u64,
    /// One past the highest byte of the stack.
    pub top: u64,
}

/// The stack that [`entry!`](crate::entry)'s function runs on.
///
/// The guard page is mapped at first: the entries run on page tables in large
/// pages (PVH) or on the domain builder's (PV).
pub fn boot_stack() -> StackBounds {
    let bottom = BOOT_STACK.stack.get() as u64;
    StackBounds {
        guard: BOOT_STACK.guard.get() as u64,
        bottom,
        top: bottom + BOOT_STACK_SIZE as u64,
    }
}
