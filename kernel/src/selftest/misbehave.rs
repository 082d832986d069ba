//! Guests that end in a bad way, for the runner to call each by its right name.
//!
//! They are run only when they are named in full: `selftest=misbehave-panic`.

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

/// Panics on another vCPU, while this one prints all that it can.
fn panic_elsewhere() -> Check {
    let Some(other) = vcpu::online().map(|vcpu| vcpu.id).find(|id| *id != vcpu::current()) else {
        skip!("there is one vCPU");
    };
    let panics = || panic!("misbehave-panic-elsewhere was asked for");
    let prints = || loop {
        say!("# misbehave-panic-elsewhere: still here");
    };
    match smp::run_on(other, &panics, prints) {
        Ok(()) => fail!("vCPU {} has come back from a panic", other.number()),
        Err(why) => error!("{why}"),
    }
}

/// Writes to page 0.
fn fault() -> ! {
    // SAFETY: page 0 is unmapped, so the write reaches nothing; the trap handler ends the domain.
    unsafe { asm!("mov [{null}], {null}", "2: jmp 2b", null = in(reg) 8_u64, options(noreturn)) }
}

fn hang() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Faults with no stack to report it on. The processor of a PVH guest gives up after its third
/// fault in a row, and Xen gives up on a PV guest that it can't deliver an exception to.
fn triple_fault() -> ! {
    // SAFETY: nothing is run after this; the domain ends.
    unsafe { asm!("mov rsp, 8", "sub rsp, 8", "push rax", "2: jmp 2b", options(noreturn)) }
}
