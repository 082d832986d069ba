//! The machine that the C program runs on.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use fake_xen::{ExchangeFault, FakeGuest};
use hypercall::XenErrno;
use xen_contig::addr::{AddressBits, DmaAddr, Mfn, Pfn};
use xen_contig::paging::LinearMapping;
use xen_contig_c::platform::xc_platform;

use crate::{any_input, registers};

type Hypercall = unsafe extern "C" fn(*mut c_void, u32, u64, u64, u64, u64) -> i64;

/// `struct machine` of `kernel.h`.
#[repr(C)]
struct Machine {
    hypercall: Hypercall,
    entry: unsafe extern "C" fn(*mut c_void, u64) -> u64,
    context: *mut c_void,
    p2m: *mut u64,
    frames: u64,
    linear_base: u64,
    first_free: u64,
}

/// `struct selftest` of `selftest.h`.
#[repr(C)]
struct Selftest {
    platform: *const xc_platform,
    context: *mut c_void,
    say: unsafe extern "C" fn(*mut c_void, *const c_char),
    copy: Option<unsafe extern "C" fn(*mut c_void, u64, u64, u64) -> c_int>,
    mask: u64,
}

/// `struct model` of `errors.c`.
#[repr(C)]
struct Model {
    test: Selftest,
    change: unsafe extern "C" fn(*mut c_void, c_int, u64) -> u64,
}

unsafe extern "C" {
    fn kernel_boot(machine: *const Machine, platform: *mut xc_platform);
    fn selftest_run(test: *const Selftest) -> c_int;
    fn selftest_stack(test: *const Selftest) -> u64;
    fn errors_run(model: *const Model) -> c_int;
}

/// Returns the model guest that a C function received.
///
/// # Safety
/// `context` is what [`Program::new`] gave the C program.
unsafe fn guest<'g>(context: *mut c_void) -> &'g FakeGuest {
    // SAFETY: as for this function; the program outlives the C functions.
    unsafe { &*context.cast::<FakeGuest>() }
}

unsafe extern "C" fn hypercall(
    context: *mut c_void,
    number: u32,
    a: u64,
    b: u64,
    c: u64,
    d: u64,
) -> i64 {
    // SAFETY: the context is the guest, and the library makes the hypercall.
    unsafe { registers::enter(guest(context).xen(), number, [a, b, c, d]) }
}

unsafe extern "C" fn entry(context: *mut c_void, frame: u64) -> u64 {
    // SAFETY: the context is the guest.
    unsafe { guest(context) }.entry(Pfn::new(frame)).get()
}

unsafe extern "C" fn say(_: *mut c_void, line: *const c_char) {
    // SAFETY: the program passes text with a zero at its end.
    println!("{}", unsafe { CStr::from_ptr(line) }.to_str().expect("UTF-8"));
}

/// The model's device copies.
unsafe extern "C" fn copy(context: *mut c_void, from: u64, to: u64, bytes: u64) -> c_int {
    // SAFETY: the context is the guest.
    let guest = unsafe { guest(context) };
    let mut engine = vec![0; bytes as usize];
    guest.dma_read(DmaAddr::new(from), &mut engine);
    guest.dma_write(DmaAddr::new(to), &engine);
    0
}

/// Changes the machine, as `enum change` of `errors.c` says.
unsafe extern "C" fn change(context: *mut c_void, what: c_int, value: u64) -> u64 {
    // SAFETY: the context is the guest.
    let guest = unsafe { guest(context) };
    let errno = XenErrno::from_raw(value as u16);
    match what {
        0 => guest.relieve(),
        1 => guest.exhaust_below(AddressBits::new(value as u32).expect("a number of bits")),
        2 => guest.deny_exchange(errno),
        3 => guest.hold(Pfn::new(value)),
        4 => guest.unhold(Pfn::new(value)),
        5 => guest.xen().arm_exchange(ExchangeFault::OutUnwritable(value)),
        6 => return guest.forge(Pfn::new(value), Mfn::new(value)).number(),
        _ => panic!("errors.c knows another machine"),
    }
    0
}

/// The C program on a guest.
pub struct Program {
    guest: Box<FakeGuest>,
    platform: xc_platform,
}

impl Program {
    /// Boots the C kernel on a guest with real memory.
    pub fn new(guest: FakeGuest) -> Self {
        let guest = Box::new(guest);
        let machine = Machine {
            hypercall,
            entry,
            context: ptr::from_ref(&*guest).cast_mut().cast(),
            p2m: guest.p2m().table_address().map_or(ptr::null_mut(), |at| at.as_mut_ptr()),
            frames: guest.frames(),
            linear_base: guest.address(Pfn::new(0)).as_u64(),
            first_free: guest.usable().next().expect("a usable frame").number(),
        };
        let mut platform = std::mem::MaybeUninit::uninit();
        // SAFETY: the C kernel reads the machine and fills the platform.
        let platform = unsafe {
            kernel_boot(&raw const machine, platform.as_mut_ptr());
            platform.assume_init()
        };
        Self { guest, platform }
    }

    /// Returns the guest.
    pub fn guest(&self) -> &FakeGuest {
        &self.guest
    }

    /// Returns what the C kernel says of itself.
    pub const fn platform(&mut self) -> &mut xc_platform {
        &mut self.platform
    }

    fn test(&self) -> Selftest {
        let (context, mask) = (self.platform.context, (1 << 22) - 1);
        Selftest { platform: &raw const self.platform, context, say, copy: Some(copy), mask }
    }

    /// Runs the driver. Returns the line of the check that failed, or 0.
    pub fn selftest(&self) -> c_int {
        let test = self.test();
        // SAFETY: the platform describes the guest, which lives for the call.
        unsafe { selftest_run(&raw const test) }
    }

    /// Measures the stack. Returns the most bytes that a call used.
    pub fn stack(&self) -> u64 {
        let test = self.test();
        // SAFETY: as in `selftest`.
        unsafe { selftest_stack(&raw const test) }
    }

    /// Provokes errors of the model. Returns the line of the check that failed, or 0.
    pub fn errors(&self) -> c_int {
        let model = Model { test: self.test(), change };
        // SAFETY: as in `selftest`.
        unsafe { errors_run(&raw const model) }
    }

    /// Calls all functions with any numbers. A panic ends the process.
    pub fn any_input(&self, rounds: u64) {
        let take = self.platform.take.expect("the kernel has frames");
        let give = self.platform.give.expect("the kernel takes frames back");
        let (context, frames) = (self.platform.context, 4);
        // SAFETY: the frames are the caller's between `take` and `give`, and lie in the linear mapping.
        unsafe {
            let first = take(context, frames, 1);
            let memory = (self.platform.linear_base + (first << 12)) as *mut u8;
            any_input::run(&self.platform, memory, frames << 12, rounds);
            give(context, first, frames);
        }
    }
}
