//! Guests that end in a failure, so that the runner must name the failure correctly.
//!
//! They run only if they are named in full: `selftest=misbehave-panic`.

use alloc::vec::Vec;
use core::arch::asm;
use core::fmt;

use super::{Check, Test, error, fail, skip};
use crate::command_line::When;
use crate::exit::{Exit, exit};
use crate::{console, events, say, shared_page, smp, vcpu};

pub fn add(tests: &mut Vec<Test>) {
    let mut add = |name, run: fn() -> Check| {
        tests.push(Test::new(name, move |_| run()).when(When::Named));
    };
    add("misbehave-panic", || panic!("misbehave-panic was asked for"));
    add("misbehave-panic-elsewhere", panic_elsewhere);
    add("misbehave-panic-in-console", || say_and_panic());
    add("misbehave-panic-in-panic", || panic!("{}", Panics(1)));
    add("misbehave-panic-thrice", || panic!("{}", Panics(2)));
    add("misbehave-panic-without-shared-page", panic_without_shared_page);
    add("misbehave-fault-in-console", fault_in_console);
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

/// Panics while it is printed, as often as the number says.
struct Panics(u32);

impl fmt::Display for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => panic!("a value that was to be printed panicked, as it was asked to"),
            more => panic!("{}", Self(more - 1)),
        }
    }
}

/// Panics in the middle of a line, while this vCPU has locked the console.
fn say_and_panic() -> ! {
    say!("# misbehave-panic-in-console: {}", Panics(1));
    hang()
}

/// Panics while the page that Xen shares with the domain is not mapped, as while it is saved.
fn panic_without_shared_page() -> Check {
    events::mask();
    if let Err(errno) = shared_page::unmap() {
        error!("unmapping the shared page: {errno}");
    }
    panic!("misbehave-panic-without-shared-page was asked for");
}

/// Names page 0 as the ring of a domU's console, and prints.
fn fault_in_console() -> Check {
    // SAFETY: page 0 is never mapped, so every access to this ring faults and changes nothing, and
    // the trap handler ends the domain.
    unsafe { console::move_ring(core::ptr::null_mut()) };
    say!("# misbehave-fault-in-console: this line needs no ring");
    skip!("this domain has no console ring");
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
