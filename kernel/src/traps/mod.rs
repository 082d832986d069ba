//! Exceptions and the way in of events.
//!
//! A fault of [`try_read`] or [`try_write`] is what they are there for and becomes their error. Any
//! other exception prints what happened and where, then crashes the domain.

mod attempt;
mod entry;
mod report;

pub mod pv;
pub mod pvh;

pub use attempt::{try_read, try_write};

use crate::events;

/// What is on the stack when an exception is handled: as `entry` pushes it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Which exception.
    pub vector: u64,
    /// Its error code, 0 where it has none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The exceptions that the architecture defines.
const EXCEPTIONS: usize = 22;

/// The vector that an event has in a [`Frame`].
const EVENT: u64 = 22;

/// The vector that Xen's failsafe callback has in a [`Frame`].
const FAILSAFE: u64 = 23;

/// Interrupt flag; in the frame of a PV guest, the opposite of its event mask.
const INTERRUPTS: u64 = 1 << 9;

/// What every entry calls, with events masked since the TSC's `since`. Comes back for an event, and
/// for a fault that an attempt has led to.
extern "C" fn handle(frame: &mut Frame, since: u64) {
    if frame.vector == EVENT {
        events::upcall(since);
    } else if !attempt::recover(frame) {
        report::report(frame);
    } else if frame.rflags & INTERRUPTS != 0 {
        events::masked_since(since);
    }
}
