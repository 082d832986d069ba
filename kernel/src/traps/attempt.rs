//! Reads and writes that may fault.

use core::arch::global_asm;
use core::fmt;

use x86_64::VirtAddr;

use super::Frame;

/// The exception that an attempt led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was accessed.
    pub address: VirtAddr,
    /// The error code of the page fault (Intel SDM, volume 3, 4.7): bit 0, the page is there; bit 1,
    /// it was a write.
    pub error: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.error & 2 != 0 { "writing to" } else { "reading from" };
        let why = if self.error & 1 != 0 { "not allowed" } else { "not mapped" };
        write!(f, "{access} {:#x}, which is {why}", self.address)
    }
}

/// A page fault.
const PAGE_FAULT: u64 = 14;

// Each attempt is one instruction with a known address. On its fault the handler goes on at
// `attempt_failed` instead, with the error code in rax.
global_asm!(
    ".pushsection .text.traps, \"ax\", @progbits",
    "attempt_read:",
    "mov rax, [rdi]",
    "xor edx, edx",
    "ret",
    "attempt_write:",
    "mov [rdi], rsi",
    "xor edx, edx",
    "ret",
    "attempt_failed:",
    "mov edx, 1",
    "ret",
    ".popsection",
);

/// What an attempt leaves in rax and rdx.
#[repr(C)]
struct Attempted {
    value: u64,
    failed: u64,
}

unsafe extern "C" {
    fn attempt_read(address: u64) -> Attempted;
    fn attempt_write(address: u64, value: u64) -> Attempted;
    static attempt_failed: u8;
}

/// Reads the word at `address`, whatever is there or is not.
///
/// # Errors
/// The page fault that the processor answered with.
pub fn try_read(address: VirtAddr) -> Result<u64, Fault> {
    // SAFETY: reading a word of memory changes nothing; registers of devices are not mapped but
    // where their driver knows it. Should there be no such memory, the handler sees to it.
    let attempted = unsafe { attempt_read(address.as_u64()) };
    match attempted.failed {
        0 => Ok(attempted.value),
        _ => Err(Fault { address, error: attempted.value }),
    }
}

/// Writes the word at `address`, if that can be written.
///
/// # Safety
/// If it can be written, nobody minds: it is the caller's memory, or no memory at all.
///
/// # Errors
/// The page fault that the processor answered with.
pub unsafe fn try_write(address: VirtAddr, value: u64) -> Result<(), Fault> {
    // SAFETY: the caller's. Should there be no such memory, the handler sees to it.
    let attempted = unsafe { attempt_write(address.as_u64(), value) };
    match attempted.failed {
        0 => Ok(()),
        _ => Err(Fault { address, error: attempted.value }),
    }
}

/// Has a frame go on behind a failed attempt, if it is the frame of one.
pub fn recover(frame: &mut Frame) -> bool {
    let attempts = [attempt_read as *const () as u64, attempt_write as *const () as u64];
    let recovers = frame.vector == PAGE_FAULT && attempts.contains(&frame.rip);
    if recovers {
        frame.rip = &raw const attempt_failed as u64;
        frame.rax = frame.error;
    }
    recovers
}
