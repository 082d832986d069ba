//! A panic prints what, where and the last hypercalls, then crashes the domain so that Xen logs it.

use core::panic::PanicInfo;

use super::exit::{Exit, exit};
use super::{console, hypervisor, say};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // SAFETY: the only vCPU is here and does not go back.
    unsafe { console::break_lock() };
    match info.location() {
        Some(location) => say!("panic: {} (at {location})", info.message()),
        None => say!("panic: {}", info.message()),
    }
    hypervisor::show_recent();
    exit(Exit::Crash)
}
