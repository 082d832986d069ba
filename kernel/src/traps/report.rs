//! The output of an exception before the domain crashes.

use x86_64::registers::control::Cr2;

use super::frame::{FAILSAFE, TrapFrame};
use crate::console::say;
use crate::exit::{Exit, exit};
use crate::{panic, trace, vcpu};

/// The names of the vectors, from the Intel SDM, volume 3, table 6-1.
const NAMES: [&str; FAILSAFE as usize + 1] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization exception",
    "control protection",
    "event",
    "failsafe callback",
];

/// The maximum number of callers to print.
const CALLERS: usize = 16;

/// Prints the exception and crashes the domain.
pub extern "C" fn report(frame: &TrapFrame) -> ! {
    panic::take_over();
    let name = NAMES.get(frame.vector as usize).copied().unwrap_or("unknown");
    say!(
        "panic: exception {} ({name}), error code {:#x}, at {:#018x}, on vCPU {}",
        frame.vector,
        frame.error,
        frame.rip,
        vcpu::current().number()
    );
    if frame.vector == 14 {
        let access = if frame.error & 16 != 0 {
            "fetching from"
        } else if frame.error & 2 != 0 {
            "writing to"
        } else {
            "reading from"
        };
        let why = if frame.error & 1 != 0 { "not allowed" } else { "not mapped" };
        say!("panic: {access} {:#018x}, which is {why}", Cr2::read_raw());
    }
    registers(frame);
    callers(frame);
    trace::print_recent();
    exit(Exit::Crash)
}

fn registers(frame: &TrapFrame) {
    let TrapFrame { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, .. } = frame;
    say!("  rax {rax:016x} rbx {rbx:016x} rcx {rcx:016x} rdx {rdx:016x}");
    say!("  rsi {rsi:016x} rdi {rdi:016x} rbp {rbp:016x} rsp {rsp:016x}");
    let TrapFrame { r8, r9, r10, r11, r12, r13, r14, r15, .. } = frame;
    say!("  r8  {r8:016x} r9  {r9:016x} r10 {r10:016x} r11 {r11:016x}");
    say!("  r12 {r12:016x} r13 {r13:016x} r14 {r14:016x} r15 {r15:016x}");
    // Xen saves a PV guest's event mask in the upper half of cs (`struct cpu_user_regs`).
    say!("  cs {:x} ss {:x} rflags {:x}", frame.cs & 0xffff, frame.ss & 0xffff, frame.rflags);
}

/// Prints the callers, which it finds by the frame pointers on the vCPU's stack.
fn callers(frame: &TrapFrame) {
    let stack = vcpu::local().stack;
    let mut rbp = frame.rbp;
    for _ in 0..CALLERS {
        if !rbp.is_multiple_of(16) || !stack.holds(rbp) {
            return;
        }
        // SAFETY: the two words lie on the stack, which is mapped and ends at a page boundary. Any bit
        // pattern is a valid u64.
        let (next, caller) = unsafe { (*(rbp as *const u64), *((rbp + 8) as *const u64)) };
        if caller == 0 {
            return;
        }
        say!("  called from {caller:#018x}");
        rbp = next;
    }
}
