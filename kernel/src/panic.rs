//! The panic handler. It prints the message, the place and the last hypercalls, then crashes the
//! domain so that Xen logs it.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::console::{self, say};
use crate::exit::{Exit, crash, exit, hold};
use crate::{trace, vcpu};

/// The vCPU that panicked first.
static FIRST: AtomicU32 = AtomicU32::new(NONE);

/// The number of panics of that vCPU so far. Each one interrupts the output of the one before.
static PANICS: AtomicU32 = AtomicU32::new(0);

const NONE: u32 = u32::MAX;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    take_over();
    let vcpu = vcpu::current().number();
    match info.location() {
        Some(location) => say!("panic: {} (at {location}, on vCPU {vcpu})", info.message()),
        None => say!("panic: {} (on vCPU {vcpu})", info.message()),
    }
    trace::print_recent();
    exit(Exit::Crash)
}

/// Stops all other vCPUs and gives the console to this one.
///
/// A vCPU that panics after another one is held. A vCPU that panics while it prints a panic prints
/// the second one too. A third panic crashes the domain without another word.
///
/// No step waits for a lock, reads the clock, or uses the page that Xen shares with the domain: the
/// panic may have interrupted the code that holds the lock or has unmapped the page.
pub fn take_over() {
    let me = vcpu::current().number();
    match FIRST.compare_exchange(NONE, me, Ordering::AcqRel, Ordering::Acquire) {
        Err(first) if first != me => hold(),
        Ok(_) | Err(_) => {}
    }
    match PANICS.fetch_add(1, Ordering::Relaxed) {
        0 => vcpu::stop_others(),
        1 => {}
        _ => crash(),
    }
    // SAFETY: all other vCPUs are stopped, and this one never returns to the code that panicked.
    unsafe { console::seize() };
}
