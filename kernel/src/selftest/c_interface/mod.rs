//! Can a driver in C use the library through its C interface?
//!
//! The driver is `tests/c/program/selftest.c`, which also runs on the host against the model. Here its
//! hypercalls reach Xen through C code too, so a trace does not show them. In a dom0 with the device `edu`, the
//! device moves the driver's data between the addresses that the driver got.

mod kernel;

use alloc::vec::Vec;
use core::cell::RefCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use xen_contig::addr::DmaAddr;
use xen_contig_c::platform::xc_platform;

use super::{Check, Test, TestContext, error, fail, skip};
use crate::edu::{Edu, MASK};
use crate::machine::Machine;
use crate::say;

/// The maximum number of bytes of stack that a call may use, as `docs/EMBEDDING.md` says.
const STACK: u64 = 20 << 10;

/// `SELFTEST_NO_MEMORY` of `selftest.h`.
const NO_MEMORY: c_int = -1;

/// `struct selftest` of `selftest.h`.
#[repr(C)]
struct Selftest {
    platform: *const xc_platform,
    context: *mut c_void,
    say: unsafe extern "C" fn(*mut c_void, *const c_char),
    copy: Option<unsafe extern "C" fn(*mut c_void, u64, u64, u64) -> c_int>,
    mask: u64,
}

unsafe extern "C" {
    fn selftest_run(test: *const Selftest) -> c_int;
    fn selftest_stack(test: *const Selftest) -> u64;
}

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c-interface", driver).needs_exchange_order(4));
    tests.push(Test::new("c-interface-dma", driver_with_device).needs_exchange_order(4));
    tests.push(Test::new("c-interface-stack", stack).needs_exchange_order(6));
}

/// Prints a line of the C code.
unsafe extern "C" fn print(_: *mut c_void, line: *const c_char) {
    // SAFETY: the C code passes text with a zero at its end.
    let line = unsafe { CStr::from_ptr(line) };
    say!("{}", line.to_str().unwrap_or("# c-interface: a line that is not UTF-8"));
}

/// Lets the device copy bytes from one of its addresses to another.
unsafe extern "C" fn copy(context: *mut c_void, from: u64, to: u64, bytes: u64) -> c_int {
    // SAFETY: the context is the device that `driver_with_device` passed.
    let edu = unsafe { &*context.cast::<RefCell<Edu>>() };
    let mut edu = edu.borrow_mut();
    // SAFETY: the addresses are those of the driver's buffers, which are RAM and below the mask.
    let fetched = unsafe { edu.fetch(DmaAddr::new(from), 0, bytes) };
    // SAFETY: the driver owns the buffer ([M1](xen_contig::rules#M1)), and C has no references
    // ([M5](xen_contig::rules#M5)). After a failure the driver does not free it.
    match fetched.and_then(|()| unsafe { edu.store(0, DmaAddr::new(to), bytes) }) {
        Ok(()) => 0,
        Err(why) => {
            say!("# c-interface: copying {bytes} bytes from {from:#x} to {to:#x}: {why}");
            -1
        }
    }
}

/// Runs the C driver, with the processor in place of a device.
fn driver(context: &TestContext<'_>) -> Check {
    run(context.machine, None)
}

/// Runs the C driver with a device.
fn driver_with_device(context: &TestContext<'_>) -> Check {
    match Edu::open(context.machine) {
        Ok(edu) => run(context.machine, Some(&RefCell::new(edu))),
        Err(why) if why.is_expected() => skip!("{why}"),
        Err(why) => error!("{why}"),
    }
}

fn run(machine: &Machine, edu: Option<&RefCell<Edu>>) -> Check {
    let platform = kernel::platform(machine);
    let test = Selftest {
        platform: &raw const platform,
        context: edu.map_or(ptr::null_mut(), |edu| ptr::from_ref(edu).cast_mut().cast()),
        say: print,
        copy: edu.map(|_| copy as _),
        mask: if edu.is_some() { MASK } else { u32::MAX.into() },
    };
    // SAFETY: the platform describes the guest that the kernel runs in, and outlives the call.
    match unsafe { selftest_run(&raw const test) } {
        0 => Ok(()),
        NO_MEMORY => skip!("Xen has no free extent of the size that the test needs"),
        line => fail!("the check in line {line} of selftest.c; the line before this one says more"),
    }
}

/// Measures how much stack calls of the library need.
fn stack(context: &TestContext<'_>) -> Check {
    let platform = kernel::platform(context.machine);
    let (platform, mask) = (&raw const platform, u32::MAX.into());
    let test = Selftest { platform, context: ptr::null_mut(), say: print, copy: None, mask };
    // SAFETY: as in `run`. The C code paints 24 KiB below its frame, and the stack of the kernel has 128 KiB.
    match unsafe { selftest_stack(&raw const test) } {
        0 => fail!("a call failed; the line before this one says more"),
        bytes if bytes > STACK => {
            fail!("a call used {bytes} bytes of stack, expected at most {STACK}")
        }
        _ => Ok(()),
    }
}
