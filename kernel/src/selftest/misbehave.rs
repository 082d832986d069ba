//! Guests that end in a failure, so that the runner must name the failure correctly.
//!
//! They run only if they are named in full: `selftest=misbehave-panic`.

use alloc::vec::Vec;
use core::arch::asm;

use super::{Check, Test, error, fail, skip};
use crate::command_line::When;
use crate::exit::{Exit, exit};
use crate::{say, smp, vcpu};

pub fn add(tests: &mut Vec<Test>) {
    let mut add = |name, run: fn() -> Check| {
        tests.push(Test::new(name, move |_| run()).when(When::Named));
    };
    add("misbehave-panic", || panic!("misbehave-panic was asked for"));
    add("misbehave-panic-elsewhere", panic_elsewhere);
    add("misbehave-fault", || fault());
    add("misbehave-hang", || hang());
    add("misbehave-triple-fault", || triple_fault());
    add("misbehave-silent-poweroff", || exit(Exit::Poweroff));
}

/// Panics on another vCPU while this one prints continuously.
fn panic_elsewhere() -> Check {
    let Some(other) = vcpu::online().map(|vcpu| vcpu.id).find(|id| *id != vcpu::current()) else {
        skip!("there is one vCPU");
    };
    let panics = || panic!("misbehave-panic-elsewhere was asked for");
    let prints = || loop {
        say!("# misbehave-panic-elsewhere: still here");
    };
    match smp::run_on(other, &panics, prints) {
        Ok(()) => fail!("vCPU {} continued after a panic", other.number()),
        Err(why) => error!("{why}"),
    }
}

/// Writes to page 0, which is unmapped.
fn fault() -> ! {
    // SAFETY: page 0 is unmapped, so the write changes nothing, and the trap handler ends the
    // domain.
    unsafe { asm!("mov [{null}], {null}", "2: jmp 2b", null = in(reg) 8_u64, options(noreturn)) }
}

fn hang() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Faults without a stack for the exception frame.
///
/// The processor of a PVH guest shuts down after three nested faults. Xen crashes a PV guest if it
/// cannot deliver an exception.
fn triple_fault() -> ! {
    // SAFETY: no code runs after this, because the domain ends.
    unsafe { asm!("mov rsp, 8", "sub rsp, 8", "push rax", "2: jmp 2b", options(noreturn)) }
}
