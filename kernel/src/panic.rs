//! A panic prints what, where and the last hypercalls, then crashes the domain so that Xen logs it.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use super::exit::{Exit, exit, hold};
use super::{console, hypervisor, say, vcpu};

/// The vCPU that panicked first, and how often it has panicked since.
static FIRST: AtomicU32 = AtomicU32::new(NOBODY);
static AGAIN: AtomicU32 = AtomicU32::new(0);

const NOBODY: u32 = u32::MAX;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    take_over();
    let vcpu = vcpu::current().number();
    match info.location() {
        Some(location) => say!("panic: {} (at {location}, on vCPU {vcpu})", info.message()),
        None => say!("panic: {} (on vCPU {vcpu})", info.message()),
    }
    hypervisor::show_recent();
    exit(Exit::Crash)
}

/// Gives the console to this vCPU alone: all others are stopped. One that panics while another one
/// does waits for the end; one that panics while it prints a panic says so once more, and no more.
pub fn take_over() {
    let me = vcpu::current().number();
    match FIRST.compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => vcpu::stop_others(),
        Err(first) if first != me => hold(),
        Err(_) if AGAIN.fetch_add(1, Ordering::Relaxed) > 0 => exit(Exit::Crash),
        Err(_) => {}
    }
    // SAFETY: all other vCPUs are stopped, and this one does not go back.
    unsafe { console::break_lock() };
}
