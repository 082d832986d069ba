//! The stacks of a vCPU. The page below each one is not mapped, so an overflow faults.

use core::cell::UnsafeCell;

use xen_contig::addr::PAGE_SIZE;

/// The size in bytes of a stack for page faults and double faults.
pub const FAULT_STACK: u64 = 16 << 10;

/// A stack, as a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// The stack that the kernel boots on.
    Boot,
    /// The stack of the first vCPU for page faults and double faults.
    BootFault,
    /// A stack in a virtual area.
    Area {
        /// The lowest address.
        bottom: u64,
        /// The address after the highest byte.
        top: u64,
    },
}

impl Stack {
    /// Returns the page below the stack, which is not mapped.
    pub fn guard(&self) -> u64 {
        self.bottom() - PAGE_SIZE as u64
    }

    /// Returns the lowest address.
    pub fn bottom(&self) -> u64 {
        match self {
            Self::Boot => pvh_boot::boot_stack().bottom,
            Self::BootFault => BOOT_FAULT.stack.get() as u64,
            Self::Area { bottom, .. } => *bottom,
        }
    }

    /// Returns the address after the highest byte.
    pub fn top(&self) -> u64 {
        match self {
            Self::Boot => pvh_boot::boot_stack().top,
            Self::BootFault => self.bottom() + FAULT_STACK,
            Self::Area { top, .. } => *top,
        }
    }

    /// Returns true if `address` lies on the stack.
    pub fn holds(&self, address: u64) -> bool {
        (self.bottom()..self.top()).contains(&address)
    }
}

/// A guard page and a stack in one object, so that they are adjacent.
#[repr(C, align(4096))]
struct Guarded {
    guard: UnsafeCell<[u8; PAGE_SIZE]>,
    stack: UnsafeCell<[u8; FAULT_STACK as usize]>,
}

// SAFETY: no Rust code reads or writes the bytes. Only the processor uses the stack, on one vCPU.
unsafe impl Sync for Guarded {}

static BOOT_FAULT: Guarded = Guarded {
    guard: UnsafeCell::new([0; PAGE_SIZE]),
    stack: UnsafeCell::new([0; FAULT_STACK as usize]),
};

// `Stack::guard` computes the guard page as the page below the stack.
const _: () = assert!(
    core::mem::offset_of!(Guarded, guard) == 0
        && core::mem::offset_of!(Guarded, stack) == PAGE_SIZE
);
