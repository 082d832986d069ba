//! Memory that the device can reach, and the search for memory that it can't.

use core::cmp::Ordering;
use core::ops::Range;

use xen_contig::addr::{AddressBits, DmaAddr, Gfn, Mfn, Order, PAGE_SIZE, Pfn};
use xen_contig::exchange::ExchangeError;
use xen_contig::frames::{Candidate, FrameRun};

use super::{Check, TestOutcome, error, fail, skip};
use crate::edu::MASK;
use crate::extent::ExtentRun;
use crate::layout;
use crate::machine::Machine;
use crate::selftest::owned::{Owned, free_remaining};

/// The width of the mask.
pub const BITS: AddressBits = match AddressBits::new(MASK.count_ones()) {
    Ok(bits) => bits,
    Err(_) => panic!("the mask has no more than 64 bits"),
};

/// The first frame that the device can't reach.
pub const FIRST_ABOVE: u64 = (MASK + 1) / PAGE_SIZE as u64;

/// The number by which a device knows a frame.
pub fn device_frame(machine: &Machine, pfn: Pfn) -> Option<u64> {
    machine.p2m.gfn(pfn).map(Gfn::number)
}

/// Takes free frames in a row that are all accepted.
pub fn search(machine: &Machine, frames: u64, accept: impl Fn(Pfn) -> bool) -> Option<FrameRun> {
    machine.frames.lock().take_first(frames, &mut |first| {
        // From the end, so that as many as possible are passed over at once.
        match (0..frames).rev().map(|index| first.add(index)).find(|pfn| !accept(*pfn)) {
            None => Candidate::Fits,
            Some(refused) => Candidate::TryFrom(refused.add(1)),
        }
    })
}

/// Takes the frames from `first` on, if they are all free.
pub fn take_at(machine: &Machine, first: Pfn, frames: u64) -> Option<FrameRun> {
    // A search begins anywhere, and what lies before that place is searched last.
    const NOWHERE: Pfn = Pfn::new(u64::MAX >> 1);
    machine.frames.lock().take_first(frames, &mut |candidate| match candidate.cmp(&first) {
        Ordering::Less => Candidate::TryFrom(first),
        Ordering::Equal => Candidate::Fits,
        Ordering::Greater => Candidate::TryFrom(NOWHERE),
    })
}

/// Takes frames all of which are above the mask, as the device sees them. What it reads in their
/// stead is RAM, too: not within the first MiB, where a PC has other memory.
pub fn above_mask(machine: &Machine, frames: u64) -> Option<FrameRun> {
    const FIRST_MIB: u64 = (1 << 20) / PAGE_SIZE as u64;
    let above = |pfn| {
        device_frame(machine, pfn)
            .is_some_and(|frame| frame >= FIRST_ABOVE && frame % FIRST_ABOVE >= FIRST_MIB)
    };
    search(machine, frames, above)
}

/// A buffer for the device: contiguous as the device sees it, and below its mask.
pub struct EduBuffer<'m> {
    machine: &'m Machine,
    memory: EduMemory,
}

enum EduMemory {
    /// PV: machine frames, exchanged.
    Extent(ExtentRun),
    /// PVH: guest frames as they are; the IOMMU translates.
    Run(FrameRun),
}

impl<'m> EduBuffer<'m> {
    /// Makes a buffer: in PV of memory that the device could not reach, by an exchange; in PVH of
    /// guest frames that are low enough.
    pub fn new(machine: &'m Machine, order: Order) -> Result<Self, TestOutcome> {
        let frames = order.frames();
        if machine.exchanger().is_some() {
            let Some(run) = above_mask(machine, frames) else {
                skip!("the device can reach all of the guest's free memory as it is")
            };
            return Self::exchanged(machine, run, BITS);
        }
        let below = |pfn| device_frame(machine, pfn).is_some_and(|frame| frame < FIRST_ABOVE);
        match search(machine, frames, below) {
            Some(run) => Ok(Self::as_it_is(machine, run)),
            None => skip!("the guest has no run of {frames} free frames below the mask"),
        }
    }

    /// Makes a buffer of a run by an exchange.
    pub fn exchanged(
        machine: &'m Machine,
        run: FrameRun,
        bits: AddressBits,
    ) -> Result<Self, TestOutcome> {
        let Some(exchanger) = machine.exchanger() else { error!("{}", machine.capability) };
        let run = Owned::of(machine, run);
        let Some(mut lists) = machine.lists(run.frames()) else {
            error!("the guest has no room for the list of {} frames", run.frames())
        };
        match exchanger.acquire(run.into_run(), bits, lists.words()) {
            Ok(extent) => Ok(Self { machine, memory: EduMemory::Extent(extent) }),
            Err(failure) => match free_remaining(machine, failure) {
                error @ ExchangeError::NoMemory { .. } => skip!("{error}"),
                error => fail!("{error}"),
            },
        }
    }

    /// The same guest frames, brought into the device's reach by an exchange.
    pub fn make_reachable(self) -> Result<Self, TestOutcome> {
        match self.memory {
            EduMemory::Run(run) => Self::exchanged(self.machine, run, BITS),
            EduMemory::Extent(_) => Ok(self),
        }
    }

    /// Takes a run whose frames are neighbours for the device without further ado.
    pub fn as_it_is(machine: &'m Machine, run: FrameRun) -> Self {
        Self { machine, memory: EduMemory::Run(run) }
    }

    /// The guest frames.
    pub fn run(&self) -> &FrameRun {
        match &self.memory {
            EduMemory::Extent(extent) => extent.run(),
            EduMemory::Run(run) => run,
        }
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.run().frames() * PAGE_SIZE as u64
    }

    /// The address of a byte for the device.
    pub fn device_address(&self, offset: u64) -> DmaAddr {
        let first = match &self.memory {
            // In PV the device sees machine frames, in PVH guest frames.
            EduMemory::Extent(extent) => extent.mfn().number(),
            EduMemory::Run(run) => run.first().number(),
        };
        DmaAddr::new(DmaAddr::of(Gfn::new(first)).get() + offset)
    }

    /// The address behind the last byte for the device.
    pub fn device_end(&self) -> u64 {
        self.device_address(0).get() + self.bytes()
    }

    fn byte(&self, offset: u64) -> *mut u8 {
        assert!(offset < self.bytes(), "byte {offset} is outside the buffer");
        (layout::linear(self.run().first()) + offset).as_mut_ptr()
    }

    /// Writes `value(offset)` to each byte of a part.
    pub fn fill(&self, part: Range<u64>, value: impl Fn(u64) -> u8) {
        for offset in part {
            // SAFETY: within the buffer, which is mapped and ours ([M1](xen_contig::rules#M1));
            // never a reference ([M5](xen_contig::rules#M5)).
            unsafe { self.byte(offset).write_volatile(value(offset)) };
        }
    }

    /// The first byte of a part that is not `value(offset)`, and what it is.
    pub fn differs(&self, part: Range<u64>, value: impl Fn(u64) -> u8) -> Option<(u64, u8)> {
        part.map(|offset| {
            // SAFETY: as in `fill`.
            (offset, unsafe { self.byte(offset).read_volatile() })
        })
        .find(|(offset, found)| *found != value(*offset))
    }

    /// Gives the memory back as ordinary memory.
    pub fn give_back(self) -> Check {
        let Self { machine, memory } = self;
        let extent = match memory {
            EduMemory::Run(run) => {
                machine.give(run);
                return Ok(());
            }
            EduMemory::Extent(extent) => extent,
        };
        let mfn: Mfn = extent.mfn();
        let Some(exchanger) = machine.exchanger() else { error!("{}", machine.capability) };
        let Some(mut lists) = machine.lists(2 * extent.order().frames()) else {
            error!("the guest has no room for the lists of {extent:?}")
        };
        match exchanger.release(extent, lists.words()) {
            Ok(run) => {
                machine.give(run);
                Ok(())
            }
            Err(failure) => {
                fail!("giving back the extent at mfn {mfn}: {}", free_remaining(machine, failure))
            }
        }
    }
}
