//! The last entries of a trace.

use core::fmt;

use arrayvec::ArrayVec;

use super::Call;
use crate::XenErrno;

/// How many entries are kept.
pub const RING_ENTRIES: usize = 64;

/// A hypercall that came back.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counts every traced call from 0.
    pub sequence: u64,
    /// When it was made, in the tracer's clock.
    pub time: u64,
    /// What was asked.
    pub call: Call,
    /// What Xen answered.
    pub result: Result<u64, XenErrno>,
    /// How much of it was done, where the call reports that apart from its result.
    pub done: Option<u64>,
}

impl fmt::Display for Entry {
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
pub struct Ring {
    entries: ArrayVec<Entry, RING_ENTRIES>,
    /// The oldest, once there are as many as there is room for.
    next: usize,
}

impl Ring {
    /// An empty ring: zeros alone, so that one in a static takes no room in an image.
    pub const fn new() -> Self {
        Self { entries: ArrayVec::new_const(), next: 0 }
    }

    /// Adds an entry, over the oldest one.
    pub fn push(&mut self, entry: Entry) {
        if let Err(full) = self.entries.try_push(entry) {
            self.entries[self.next] = full.element();
            self.next = (self.next + 1) % RING_ENTRIES;
        }
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        let (newer, older) = self.entries.split_at(self.next);
        older.iter().chain(newer)
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}
