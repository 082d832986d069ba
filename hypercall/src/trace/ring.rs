//! The last entries of a trace.

use core::fmt;

use arrayvec::ArrayVec;

use super::CallRecord;
use crate::XenErrno;

/// The number of entries that a [`TraceRing`] keeps.
pub const RING_ENTRIES: usize = 64;

/// A hypercall that has returned.
///
/// `Display` prints the line of the trace.
#[derive(Clone, Debug)]
pub struct TraceEntry {
    /// The number of calls that this tracer recorded before.
    pub sequence: u64,
    /// The time just before the call, in the unit of the tracer's [`Clock`](crate::Clock).
    pub time: u64,
    /// The hypercall and its arguments before the call.
    pub call: CallRecord,
    /// The result of the hypercall.
    pub result: Result<u64, XenErrno>,
    /// How much was done, for hypercalls that report it apart from the result; see
    /// [`Call::done`](crate::Call::done).
    pub done: Option<u64>,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:06} @{:012} {} -> ", self.sequence, self.time, self.call)?;
        match self.result {
            Ok(value) => write!(f, "{value}")?,
            Err(errno) => write!(f, "{errno}")?,
        }
        self.done.map_or(Ok(()), |done| write!(f, " done={done}"))
    }
}

/// A ring of the last [`RING_ENTRIES`] entries.
#[derive(Debug)]
pub struct TraceRing {
    entries: ArrayVec<TraceEntry, RING_ENTRIES>,
    /// The index of the oldest entry in a full ring; 0 until then.
    next: usize,
}

impl TraceRing {
    /// Makes an empty ring. Its bytes are all zero, so a static one takes no room in an image.
    pub const fn new() -> Self {
        Self { entries: ArrayVec::new_const(), next: 0 }
    }

    /// Adds an entry. A full ring overwrites its oldest one.
    pub fn push(&mut self, entry: TraceEntry) {
        if self.entries.is_full() {
            self.entries[self.next] = entry;
            self.next = (self.next + 1) % RING_ENTRIES;
        } else {
            self.entries.push(entry);
        }
    }

    /// Iterates over the entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &TraceEntry> {
        let (newer, older) = self.entries.split_at(self.next);
        older.iter().chain(newer)
    }
}

impl Default for TraceRing {
    fn default() -> Self {
        Self::new()
    }
}
