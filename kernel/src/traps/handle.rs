//! The function that every entry calls.

use super::attempt::recover;
use super::frame::{EVENT, INTERRUPTS, TrapFrame};
use super::report::report;
use crate::events;

/// Handles an exception or event, with events masked since the TSC's `since`.
///
/// Returns after an event, and after a fault that [`try_read`](super::try_read) or
/// [`try_write`](super::try_write) caused.
pub extern "C" fn handle(frame: &mut TrapFrame, since: u64) {
    if frame.vector == EVENT {
        events::upcall(since);
    } else if !recover(frame) {
        report(frame);
    } else if frame.rflags & INTERRUPTS != 0 {
        events::masked_since(since);
    }
}
