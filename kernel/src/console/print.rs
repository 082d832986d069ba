//! The printing of lines to all sinks.

use core::fmt::{self, Write};

use arrayvec::ArrayString;
use hypercall::Xen;
use hypercall::ops::Port as EventPort;
use spin::Mutex;
use x86_64::instructions::port::Port;

use super::ring::ConsoleQueue;
use crate::hypervisor::untraced;

/// The maximum length of a line in bytes. What does not fit continues on a line that begins with
/// `# …`.
///
/// In its own log Xen splits a domU's lines after 200 bytes (`DOMAIN_PBUF_SIZE` in
/// `xen/common/domain.c`).
const LINE: usize = 1024;

/// The start of a line that continues the one before. KTAP takes it for a comment.
const CONTINUED: &str = "# … ";

/// The port that Xen watches in HVM guests (`XEN_HVM_DEBUGCONS_IOPORT`).
const DEBUG_PORT: u16 = 0xe9;

struct Console {
    line: ArrayString<LINE>,
    xen_log: bool,
    debug_port: bool,
    ring: Option<ConsoleQueue>,
}

static CONSOLE: Mutex<Console> = Mutex::new(Console {
    line: ArrayString::new_const(),
    xen_log: true,
    debug_port: false,
    ring: None,
});

/// Adds port 0xe9 as a sink. Only a PVH guest may use it.
pub fn use_debug_port() {
    CONSOLE.lock().debug_port = true;
}

/// Adds the PV console ring as a sink.
pub fn use_ring(ring: ConsoleQueue) {
    CONSOLE.lock().ring = Some(ring);
}

/// Makes the ring use another mapping of its page.
///
/// # Safety
/// `address` maps the same page, writable, from now on.
pub unsafe fn move_ring(address: *mut hypercall::abi::console::ConsoleRing) {
    if let Some(ring) = &mut CONSOLE.lock().ring {
        // SAFETY: by this function's contract `address` maps the ring's page, writable, from now on.
        unsafe { ring.move_to(address) };
    }
}

/// Makes the ring use the event channel of another backend.
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

/// Prints a line. Callers use [`say!`].
pub fn line(text: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    // Writing cannot fail, because text that does not fit the line continues on the next one.
    let _infallible = console.write_fmt(text);
    console.end_line();
}

/// Waits until the backend has read all output.
pub fn drain() {
    if let Some(ring) = &mut CONSOLE.lock().ring {
        ring.drain();
    }
}

/// Takes the console from the code that uses it, so that a panic can print.
///
/// An unfinished line is ended. If this vCPU panicked while it accessed the ring, the ring is no
/// longer used.
///
/// # Safety
/// The code that holds the lock never runs again.
pub unsafe fn seize() {
    // SAFETY: by this function's contract the holder of the lock never uses its guard again.
    unsafe { CONSOLE.force_unlock() };
    // No other vCPU runs, so the lock is free.
    let mut console = CONSOLE.lock();
    if console.ring.as_ref().is_some_and(ConsoleQueue::is_interrupted) {
        console.ring = None;
    }
    // A line with its line feed was being written, perhaps to a part of the sinks.
    if !console.line.is_empty() && !console.line.ends_with('\n') {
        console.end_line();
    }
    console.line.clear();
}

impl Console {
    fn end_line(&mut self) {
        self.line.push('\n');
        let text = self.line.as_bytes();
        self.xen_log = self.xen_log && untraced().console_write(text).is_ok();
        if self.debug_port && !self.xen_log {
            let mut port = Port::new(DEBUG_PORT);
            for byte in text {
                // SAFETY: Xen writes the byte to its log. The write has no other effect.
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
            if c == '\n' {
                self.end_line();
            // One byte is reserved for the line feed.
            } else if self.line.len() + c.len_utf8() >= LINE {
                self.end_line();
                self.line.push_str(CONTINUED);
            }
            if c != '\n' {
                self.line.push(c);
            }
        }
        Ok(())
    }
}
