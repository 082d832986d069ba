//! The contents of the stack when an exception or event is handled.

/// The registers that the entry and the processor push, the last one first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The number of the exception, [`EVENT`] or [`FAILSAFE`].
    pub vector: u64,
    /// The error code, or 0 if the exception does not have one.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The number of exceptions that the architecture defines.
pub const EXCEPTIONS: usize = 22;

/// The vector of an event in a [`TrapFrame`].
pub const EVENT: u64 = 22;

/// The vector of Xen's failsafe callback in a [`TrapFrame`].
pub const FAILSAFE: u64 = 23;

/// The interrupt flag. In the frame of a PV guest it is the opposite of the event mask.
pub const INTERRUPTS: u64 = 1 << 9;
