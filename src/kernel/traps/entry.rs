//! The first instructions of each exception.
//!
//! Xen delivers an exception to a PV kernel with rcx and r11 pushed on top of the frame that the
//! processor would push, because its own way there, `sysret`, needs those two registers
//! (`create_bounce_frame` in Xen's `x86_64/entry.S`). Apart from that both kinds of guest see the
//! same frame, error code included.

use core::arch::global_asm;

use super::report::report;

/// Bytes from one stub to the next.
const STUB: u64 = 16;

// The exceptions with an error code are those of the Intel SDM, volume 3, table 6-1.
global_asm!(
    ".macro trap_stub vector, pv",
    ".balign {stub}",
    ".if \\pv",
    "pop rcx",
    "pop r11",
    ".endif",
    ".if \\vector != 8 && \\vector != 10 && \\vector != 11 && \\vector != 12 && \\vector != 13 \
         && \\vector != 14 && \\vector != 17 && \\vector != 21",
    "push 0",
    ".endif",
    "push \\vector",
    "jmp trap_common",
    ".endm",
    ".pushsection .text.traps, \"ax\", @progbits",
    ".balign {stub}",
    "trap_stubs:",
    ".irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21",
    "trap_stub \\vector, 0",
    ".endr",
    ".balign {stub}",
    "pv_trap_stubs:",
    ".irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21",
    "trap_stub \\vector, 1",
    ".endr",
    "trap_common:",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {report}",
    "ud2",
    ".popsection",
    stub = const STUB,
    report = sym report,
);

unsafe extern "C" {
    static trap_stubs: u8;
    static pv_trap_stubs: u8;
}

/// Where the processor goes for an exception.
pub fn stub(vector: usize) -> u64 {
    &raw const trap_stubs as u64 + vector as u64 * STUB
}

/// Where Xen goes for an exception of a PV guest.
pub fn pv_stub(vector: usize) -> u64 {
    &raw const pv_trap_stubs as u64 + vector as u64 * STUB
}
