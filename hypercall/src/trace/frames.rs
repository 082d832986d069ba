//! The frames of an exchange, or of another change of the reservation.

use core::fmt;

use arrayvec::ArrayVec;

use crate::abi::memory::MemoryReservation;

/// The number of runs in one record.
const RUNS: usize = 8;

/// Consecutive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedRun {
    /// The first frame.
    pub first: u64,
    /// The number of frames.
    pub frames: u64,
}

impl fmt::Display for TracedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.frames {
            1 => write!(f, "{:#x}", self.first),
            frames => write!(f, "{:#x}+{frames}", self.first),
        }
    }
}

/// The list that frames stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// The frames that the guest gives to Xen, by their numbers in its page tables.
    In,
    /// The pseudo-physical frames at which the new memory appears.
    At,
    /// The frames that Xen gives to the guest, by their numbers in its page tables.
    Out,
}

/// A part of a list, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameList {
    /// The number of the call.
    pub sequence: u64,
    /// The list.
    pub list: ListKind,
    runs: [TracedRun; RUNS],
    /// The number of frames after these that are not recorded.
    pub cut: u64,
}

impl FrameList {
    /// Returns the runs.
    pub fn runs(&self) -> impl Iterator<Item = &TracedRun> {
        self.runs.iter().filter(|run| run.frames > 0)
    }
}

impl fmt::Display for FrameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            ListKind::In => "in",
            ListKind::At => "at",
            ListKind::Out => "out",
        };
        f.write_str(list)?;
        self.runs().try_for_each(|run| write!(f, " {run}"))?;
        if self.cut > 0 { write!(f, " cut={}", self.cut) } else { Ok(()) }
    }
}

/// A list of extents in the guest's memory, as a hypercall names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtentList {
    pub start: *const u64,
    pub extents: u64,
    pub order: u32,
}

impl ExtentList {
    /// Returns the list of a reservation.
    pub const fn of(reservation: &MemoryReservation) -> Self {
        Self {
            start: reservation.extent_start,
            extents: reservation.nr_extents,
            order: reservation.extent_order,
        }
    }

    /// Passes the list to `push` in parts of eight runs, at most `most` parts.
    ///
    /// `read` returns `None` for a word that cannot be read. The list ends there. A list whose frames a
    /// `u64` cannot count is not read.
    pub fn record(
        self,
        sequence: u64,
        list: ListKind,
        most: usize,
        read: impl Fn(*const u64) -> Option<u64>,
        mut push: impl FnMut(FrameList),
    ) {
        // Xen refuses a list with more frames than a number has before it reads the list
        // (`memory_exchange` and `do_memory_op` in `xen/common/memory.c`).
        let size = 1_u64.checked_shl(self.order);
        let Some(size) = size.filter(|size| self.extents.checked_mul(*size).is_some()) else {
            return;
        };
        let mut parts = 0;
        let mut runs = ArrayVec::<TracedRun, RUNS>::new();
        let part = |runs: &mut ArrayVec<TracedRun, RUNS>, cut| {
            let mut all = [TracedRun { first: 0, frames: 0 }; RUNS];
            all.iter_mut().zip(runs.drain(..)).for_each(|(slot, run)| *slot = run);
            FrameList { sequence, list, runs: all, cut }
        };
        for index in 0..self.extents {
            let cut = (self.extents - index) * size;
            let Some(first) = read(self.start.wrapping_add(index as usize)) else {
                return push(part(&mut runs, cut));
            };
            if let Some(last) = runs.last_mut()
                && last.first.wrapping_add(last.frames) == first
            {
                last.frames = last.frames.saturating_add(size);
                continue;
            }
            if runs.is_full() {
                parts += 1;
                if parts == most {
                    return push(part(&mut runs, cut));
                }
                push(part(&mut runs, 0));
            }
            runs.push(TracedRun { first, frames: size });
        }
        if !runs.is_empty() {
            push(part(&mut runs, 0));
        }
    }
}
