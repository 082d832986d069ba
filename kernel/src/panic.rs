//! The panic handler. It prints the message, the place and the last hypercalls, then crashes the
//! domain so that Xen logs it.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::console::{self, say};
use crate::exit::{Exit, exit, hold};
use crate::{trace, vcpu};

/// The vCPU that panicked first.
static FIRST: AtomicU32 = AtomicU32::new(NONE);

/// The number of further panics of that vCPU.
static AGAIN: AtomicU32 = AtomicU32::new(0);

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
/// the second one too. A third panic ends the domain.
pub fn take_over() {
    let me = vcpu::current().number();
    match FIRST.compare_exchange(NONE, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => vcpu::stop_others(),
        Err(first) if first != me => hold(),
        Err(_) if AGAIN.fetch_add(1, Ordering::Relaxed) > 0 => exit(Exit::Crash),
        Err(_) => {}
    }
    // SAFETY: all other vCPUs are stopped, and this one never returns to the code that panicked.
    unsafe { console::break_lock() };
}
