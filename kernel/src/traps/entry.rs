//! The first and the last instructions of each exception and event.
//!
//! Xen enters a PV kernel by `sysret`, which needs rcx and r11. Therefore Xen pushes these two on
//! top of the frame that the processor would push (`create_bounce_frame` in Xen's
//! `x86_64/entry.S`). Otherwise both kinds of guest receive the same frame, error code included. A
//! PVH guest returns by `iretq`. A PV guest returns by a hypercall, which also restores its event
//! mask.
//!
//! Events have vectors of their own, which follow those of the exceptions.

use core::arch::global_asm;

use super::frame::{EVENT, FAILSAFE};
use super::handle::handle;

/// The number of bytes from one stub to the next.
const STUB: u64 = 16;

// Intel SDM, volume 3, table 6-1 lists the exceptions that have an error code.
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
    ".if \\pv",
    "jmp pv_trap_common",
    ".else",
    "jmp trap_common",
    ".endif",
    ".endm",
    ".macro trap_call",
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
    "rdtsc",
    "shl rdx, 32",
    "lea rsi, [rax + rdx]",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {handle}",
    "mov rsp, rbx",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
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
    ".balign {stub}",
    "event_stub:",
    "push 0",
    "push {event}",
    "jmp trap_common",
    "pv_event_stub:",
    "pop rcx",
    "pop r11",
    "push 0",
    "push {event}",
    "jmp pv_trap_common",
    // Xen pushes the four data segments too.
    "pv_failsafe_stub:",
    "pop rcx",
    "pop r11",
    "add rsp, 32",
    "push 0",
    "push {failsafe}",
    "jmp pv_trap_common",
    "trap_common:",
    "trap_call",
    "add rsp, 16",
    "iretq",
    "pv_trap_common:",
    "trap_call",
    "add rsp, 8",
    // The slot of the error code holds the flags of `struct iret_context`. None is set.
    "mov qword ptr [rsp], 0",
    "jmp {pv_iret}",
    ".popsection",
    stub = const STUB,
    handle = sym handle,
    event = const EVENT,
    failsafe = const FAILSAFE,
    pv_iret = sym hypercall::pv_iret,
);

unsafe extern "C" {
    static trap_stubs: u8;
    static pv_trap_stubs: u8;
    static event_stub: u8;
    static pv_event_stub: u8;
    static pv_failsafe_stub: u8;
}

/// Returns the address of the entry for an exception of a PVH guest.
pub fn stub(vector: usize) -> u64 {
    &raw const trap_stubs as u64 + vector as u64 * STUB
}

/// Returns the address of the entry for an exception of a PV guest.
pub fn pv_stub(vector: usize) -> u64 {
    &raw const pv_trap_stubs as u64 + vector as u64 * STUB
}

/// Returns the address of the entry for an event of a PVH guest.
pub fn event() -> u64 {
    &raw const event_stub as u64
}

/// Returns the address of the entry for an event of a PV guest.
pub fn pv_event() -> u64 {
    &raw const pv_event_stub as u64
}

/// Returns the address that Xen enters if it cannot load a segment of a PV guest.
pub fn pv_failsafe() -> u64 {
    &raw const pv_failsafe_stub as u64
}
