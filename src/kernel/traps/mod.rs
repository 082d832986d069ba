//! Exceptions: none is expected, so each prints what happened and where, then crashes the domain.

mod entry;
mod report;

pub mod pv;
pub mod pvh;

/// What is on the stack when an exception is reported: as `entry` pushes it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Frame {
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
    /// Which exception.
    pub vector: u64,
    /// Its error code, 0 where it has none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The exceptions that the architecture defines.
const EXCEPTIONS: usize = 22;
