//! The console: every line to every sink that takes it.
//!
//! | sink | reaches | taken by |
//! |---|---|---|
//! | `console_io` | Xen's log | dom0; a domU only of a Xen built for verbose debugging |
//! | port 0xe9 | Xen's log | a PVH guest, where `console_io` is refused |
//! | the PV console ring | the backend in dom0: `xl console`, xenconsoled's log | a domU |
//!
//! The console is behind a spin lock. This one is held across hypercalls, or lines would mix; no
//! handler of events or faults prints, but for one that ends in a panic and breaks the lock.
//!
//! A sink that refuses is dropped, without a word: there may be nobody left to say it to.

mod ring;

use core::fmt::{self, Write};

use arrayvec::ArrayString;
use hypercall::Xen;
use hypercall::ops::Port as EventPort;
use spin::Mutex;
use x86_64::instructions::port::Port;

use super::hypervisor::untraced;
pub use ring::Ring;

/// What Xen's guest console buffers per line; longer lines are split there anyway
/// (`DOMAIN_PBUF_SIZE` is 200 in `xen/common/domain.c`).
const LINE: usize = 192;

/// The port that Xen watches in HVM guests (`XEN_HVM_DEBUGCONS_IOPORT`).
const DEBUG_PORT: u16 = 0xe9;

struct Console {
    line: ArrayString<LINE>,
    xen_log: bool,
    debug_port: bool,
    ring: Option<Ring>,
}

static CONSOLE: Mutex<Console> = Mutex::new(Console {
    line: ArrayString::new_const(),
    xen_log: true,
    debug_port: false,
    ring: None,
});

/// Lets a PVH guest use port 0xe9. A PV guest has no I/O ports.
pub fn use_debug_port() {
    CONSOLE.lock().debug_port = true;
}

/// Adds the PV console ring.
pub fn use_ring(ring: Ring) {
    CONSOLE.lock().ring = Some(ring);
}

/// Moves the ring's page to another address, keeping its state.
///
/// # Safety
/// The new address maps the same page, writable, for good.
pub unsafe fn move_ring(address: *mut hypercall::abi::console::ConsoleRing) {
    if let Some(ring) = &mut CONSOLE.lock().ring {
        // SAFETY: the caller's.
        unsafe { ring.move_to(address) };
    }
}

/// Goes over to the event channel of another backend.
pub fn rebind_ring(port: EventPort) {
    if let Some(ring) = &mut CONSOLE.lock().ring {
        ring.rebind(port);
    }
}

/// Prints a line.
macro_rules! say {
    ($($argument:tt)*) => { $crate::console::line(format_args!($($argument)*)) };
}
pub(crate) use say;

/// Prints a line; use [`say!`].
pub fn line(text: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    // Writing can't fail: what does not fit a line goes to the next one.
    let _infallible = console.write_fmt(text);
    console.end_line();
}

/// Waits until what was printed has left the domain.
pub fn drain() {
    if let Some(ring) = &mut CONSOLE.lock().ring {
        ring.drain();
    }
}

/// Lets a panic print although it came in the middle of a line.
///
/// # Safety
/// Nobody who holds the lock will run again.
pub unsafe fn break_lock() {
    // SAFETY: the caller's.
    unsafe { CONSOLE.force_unlock() };
}

impl Console {
    fn end_line(&mut self) {
        self.line.push('\n');
        let text = self.line.as_bytes();
        self.xen_log = self.xen_log && untraced().console_write(text).is_ok();
        if self.debug_port && !self.xen_log {
            let mut port = Port::new(DEBUG_PORT);
            for byte in text {
                // SAFETY: Xen takes the byte for its log and does nothing else with it.
                unsafe { port.write(*byte) };
            }
        }
        if let Some(ring) = &mut self.ring
            && ring.write(text).is_err()
        {
            self.ring = None;
        }
        self.line.clear();
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            // One byte stays free for the line feed.
            if c == '\n' || self.line.len() + c.len_utf8() >= LINE {
                self.end_line();
            }
            if c != '\n' {
                self.line.push(c);
            }
        }
        Ok(())
    }
}
