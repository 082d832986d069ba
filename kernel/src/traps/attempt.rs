//! Reads and writes that may fault.

use core::arch::global_asm;
use core::fmt;

use x86_64::VirtAddr;

use super::frame::TrapFrame;

/// The page fault that an attempted access caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The address that was accessed.
    pub address: VirtAddr,
    /// The error code (Intel SDM, volume 3, 4.7). Bit 0 is set if the page is present, bit 1 for a
    /// write.
    pub error: u64,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.error & 2 != 0 { "writing to" } else { "reading from" };
        let why = if self.error & 1 != 0 { "not allowed" } else { "not mapped" };
        write!(f, "{access} {:#x}, which is {why}", self.address)
    }
}

/// The vector of a page fault.
const PAGE_FAULT: u64 = 14;

// Each access is one instruction with a known address. If it faults, the handler returns to
// `attempt_failed` with the error code in rax.
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

/// The result of an access, in rax and rdx.
#[repr(C)]
struct AccessResult {
    value: u64,
    failed: u64,
}

unsafe extern "C" {
    fn attempt_read(address: u64) -> AccessResult;
    fn attempt_write(address: u64, value: u64) -> AccessResult;
    static attempt_failed: u8;
}

/// Reads the word at `address`, which may be unmapped.
///
/// # Errors
/// The access caused a page fault.
pub fn try_read(address: VirtAddr) -> Result<u64, PageFault> {
    // SAFETY: reading memory changes nothing. Device registers are mapped only in window slots. No
    // caller passes these: the self-tests read memory, and the tracer reads the arguments of
    // hypercalls, which are lists in memory. If the address is not mapped, `recover` turns the fault
    // into an error.
    let attempted = unsafe { attempt_read(address.as_u64()) };
    match attempted.failed {
        0 => Ok(attempted.value),
        _ => Err(PageFault { address, error: attempted.value }),
    }
}

/// Writes the word at `address`, which may be unmapped or read-only.
///
/// # Safety
/// If the word can be written, no other code uses it.
///
/// # Errors
/// The access caused a page fault.
pub unsafe fn try_write(address: VirtAddr, value: u64) -> Result<(), PageFault> {
    // SAFETY: by this function's contract no other code uses the word. If it is not writable,
    // `recover` turns the fault into an error.
    let attempted = unsafe { attempt_write(address.as_u64(), value) };
    match attempted.failed {
        0 => Ok(()),
        _ => Err(PageFault { address, error: attempted.value }),
    }
}

/// Makes the frame of a failed access return to its error path. Returns false for other frames.
pub fn recover(frame: &mut TrapFrame) -> bool {
    let attempts = [attempt_read as *const () as u64, attempt_write as *const () as u64];
    let recovers = frame.vector == PAGE_FAULT && attempts.contains(&frame.rip);
    if recovers {
        frame.rip = &raw const attempt_failed as u64;
        frame.rax = frame.error;
    }
    recovers
}
