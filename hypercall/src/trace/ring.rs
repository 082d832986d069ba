//! The ring that a tracer records into.

use super::entry::TraceRecord;

/// A ring of records. A full one overwrites its oldest record.
///
/// Records are counted from 0. Record `n` lies in slot `n % slots.len()`.
#[derive(Debug, Default)]
pub(crate) struct TraceRing {
    slots: &'static mut [Option<TraceRecord>],
    /// The number of the oldest record that a slot still holds.
    oldest: u64,
    /// The number of the next record to write.
    next: u64,
    /// The number of the next record to take.
    unread: u64,
    /// The records that were overwritten before they were taken, or found no ring.
    lost: u64,
}

impl TraceRing {
    /// Makes a ring without slots, which loses every record.
    pub const fn new() -> Self {
        Self { slots: &mut [], oldest: 0, next: 0, unread: 0, lost: 0 }
    }

    /// Changes the slots and keeps the newest records that fit, of those that have not been taken.
    pub fn replace(&mut self, slots: &'static mut [Option<TraceRecord>]) {
        let Self { unread, lost, .. } = *self;
        let mut new = Self { slots, oldest: unread, next: unread, unread, lost };
        while let Some(record) = self.take() {
            new.push(record);
        }
        *self = new;
    }

    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn get(&self, number: u64) -> Option<&TraceRecord> {
        let slots = self.slots.len() as u64;
        let held = (self.oldest..self.next).contains(&number);
        if held { self.slots[(number % slots) as usize].as_ref() } else { None }
    }

    /// Adds a record.
    pub fn push(&mut self, record: TraceRecord) {
        if let Some(slot) = self.next_slot() {
            *slot = Some(record);
        }
    }

    /// Returns the slot for a new record, which the caller must write. `None` without slots.
    #[inline]
    pub fn next_slot(&mut self) -> Option<&mut Option<TraceRecord>> {
        let slots = self.slots.len() as u64;
        if slots == 0 {
            self.lost += 1;
            return None;
        }
        let index = (self.next % slots) as usize;
        self.next += 1;
        if self.next - self.oldest > slots {
            self.oldest += 1;
        }
        if self.unread < self.oldest {
            self.unread = self.oldest;
            self.lost += 1;
        }
        Some(&mut self.slots[index])
    }

    /// Returns the number of the next record.
    pub const fn mark(&self) -> u64 {
        self.next
    }

    /// Removes the records from number `mark` on. Returns false if one of them has been taken, or if the
    /// ring does not reach that far since it was replaced by a ring without slots.
    pub fn truncate(&mut self, mark: u64) -> bool {
        let possible = (self.unread..=self.next).contains(&mark);
        if possible {
            self.next = mark;
        }
        possible
    }

    /// Returns the last record, if it has not been taken.
    pub fn last_mut(&mut self) -> Option<&mut TraceRecord> {
        let slots = self.slots.len() as u64;
        if self.unread == self.next {
            return None;
        }
        self.slots[((self.next - 1) % slots) as usize].as_mut()
    }

    /// Returns the oldest record that has not been taken.
    pub fn peek(&self) -> Option<&TraceRecord> {
        self.get(self.unread)
    }

    /// Takes the oldest record that has not been taken.
    pub fn take(&mut self) -> Option<TraceRecord> {
        let record = *self.get(self.unread)?;
        self.unread += 1;
        Some(record)
    }

    /// Returns the number of records that have not been taken.
    pub const fn waiting(&self) -> u64 {
        self.next - self.unread
    }

    /// Returns the number of records lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
    }

    /// Iterates over the last `count` records, taken or not, oldest first.
    pub fn recent(&self, count: usize) -> impl Iterator<Item = &TraceRecord> {
        let first = self.next.saturating_sub(count as u64).max(self.oldest);
        (first..self.next).filter_map(|number| self.get(number))
    }
}
