//! Frames that are set aside, so that the allocator must get memory from Xen.

use core::ops::Range;

use xen_contig::addr::{AddressBits, PAGE_SIZE, Pfn};
use xen_contig::frames::{Candidate, FrameRun};

use crate::machine::{Machine, word};

/// Free frames within reach of a mask, taken from the frame allocator. They are freed on drop.
///
/// The first word of each frame contains the number of the next one, so the list needs no memory.
pub struct FramesSetAside<'m> {
    machine: &'m Machine,
    bits: AddressBits,
    last: Option<Pfn>,
}

impl<'m> FramesSetAside<'m> {
    /// Returns an empty list of frames below `2^bits`.
    pub const fn new(machine: &'m Machine, bits: AddressBits) -> Self {
        Self { machine, bits, last: None }
    }

    /// Returns the width of the mask.
    pub const fn bits(&self) -> AddressBits {
        self.bits
    }

    /// Takes every free frame within reach.
    pub fn take_all(&mut self) {
        self.take_within(0..self.machine.p2m.frames());
    }

    /// Takes every free frame within reach whose number lies in a range.
    pub fn take_within(&mut self, pfns: Range<u64>) {
        let machine = self.machine;
        let mut search = Search { machine, bits: self.bits, pfns, start: None, upper: 0, lower: 0 };
        while let Some(run) = { search.next() } {
            let pfn = run.first();
            let previous = self.last.map_or(NONE, Pfn::number);
            // SAFETY: the run owns the frame ([M1](xen_contig::rules#M1)). The linear mapping maps
            // it.
            unsafe { word(pfn, 0).write_volatile(previous) };
            self.last = Some(pfn);
        }
    }
}

/// The end marker of the list.
const NONE: u64 = u64::MAX;

impl Drop for FramesSetAside<'_> {
    fn drop(&mut self) {
        while let Some(pfn) = self.last {
            // SAFETY: the frame is in the list, so the list owns it, and its first word is a number
            // that `take_within` wrote ([M1](xen_contig::rules#M1)).
            let previous = unsafe { word(pfn, 0).read_volatile() };
            self.last = (previous != NONE).then_some(Pfn::new(previous));
            // SAFETY: the frame was taken as a run of one frame, which was forgotten. It has just
            // left the list ([M1](xen_contig::rules#M1)).
            self.machine.give(unsafe { FrameRun::new(pfn, 1) });
        }
    }
}

/// A search of the free frames that tests each frame once.
///
/// The frame allocator begins in the middle and continues at the bottom. In each part the numbers
/// rise, so the search keeps the lowest number that it has not tested.
struct Search<'m> {
    machine: &'m Machine,
    bits: AddressBits,
    pfns: Range<u64>,
    /// The first frame that was tested.
    start: Option<u64>,
    upper: u64,
    lower: u64,
}

impl Search<'_> {
    fn next(&mut self) -> Option<FrameRun> {
        let machine = self.machine;
        machine.frames.lock().take_first(1, &mut |pfn| self.ask(pfn))
    }

    fn ask(&mut self, pfn: Pfn) -> Candidate {
        let number = pfn.number();
        let start = *self.start.get_or_insert(number);
        let from = if number >= start { &mut self.upper } else { &mut self.lower };
        if number < *from {
            return Candidate::TryFrom(Pfn::new(*from));
        }
        if number < self.pfns.start {
            return Candidate::TryFrom(Pfn::new(self.pfns.start));
        }
        if number >= self.pfns.end {
            *from = self.machine.p2m.frames();
            return Candidate::TryFrom(Pfn::new(*from));
        }
        *from = number + 1;
        let last = self.machine.p2m.gfn(pfn).map(|gfn| gfn.number() * PAGE_SIZE as u64);
        let reach = u64::MAX >> (u64::BITS - self.bits.get());
        match last.is_some_and(|address| address <= reach) {
            true => Candidate::Fits,
            false => Candidate::TryFrom(Pfn::new(*from)),
        }
    }
}
