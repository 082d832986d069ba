//! Memory that the device can reach, and the search for memory that it cannot reach.

use core::cmp::Ordering;
use core::ops::Range;

use xen_contig::addr::{AddressBits, DmaAddr, Gfn, Order, PAGE_SIZE, Pfn};
use xen_contig::frames::{Candidate, FrameRun};

use super::{Check, TestOutcome, error, skip};
use crate::edu::MASK;
use crate::layout;
use crate::machine::Machine;
use crate::selftest::owned::{OwnedExtent, OwnedRun, refused};

/// The width of the mask.
pub const BITS: AddressBits = match AddressBits::new(MASK.count_ones()) {
    Ok(bits) => bits,
    Err(_) => panic!("the mask has no more than 64 bits"),
};

/// The first frame that the device cannot reach.
pub const FIRST_ABOVE: u64 = (MASK + 1) / PAGE_SIZE as u64;

/// Returns the number of a frame in the device's addresses.
pub fn device_frame(machine: &Machine, pfn: Pfn) -> Option<u64> {
    machine.p2m.gfn(pfn).map(Gfn::number)
}

/// Takes a run of free frames that `accept` accepts.
pub fn search(machine: &Machine, frames: u64, accept: impl Fn(Pfn) -> bool) -> Option<FrameRun> {
    machine.frames.lock().take_first(frames, &mut |first| {
        // The search starts from the end of the run, so that it skips as many frames as possible.
        match (0..frames).rev().map(|index| first.add(index)).find(|pfn| !accept(*pfn)) {
            None => Candidate::Fits,
            Some(refused) => Candidate::TryFrom(refused.add(1)),
        }
    })
}

/// Takes the frames from `first` on, if all of them are free.
pub fn take_at(machine: &Machine, first: Pfn, frames: u64) -> Option<FrameRun> {
    // A search begins anywhere. The frames before that place are searched last.
    const NOWHERE: Pfn = Pfn::new(u64::MAX >> 1);
    machine.frames.lock().take_first(frames, &mut |candidate| match candidate.cmp(&first) {
        Ordering::Less => Candidate::TryFrom(first),
        Ordering::Equal => Candidate::Fits,
        Ordering::Greater => Candidate::TryFrom(NOWHERE),
    })
}

/// Takes frames that are all above the mask in the device's addresses.
///
/// The addresses without the bits above the mask must be RAM too, because the device accesses
/// these. Therefore they must lie above the first MiB, where a PC has other memory.
pub fn above_mask(machine: &Machine, frames: u64) -> Option<FrameRun> {
    const FIRST_MIB: u64 = (1 << 20) / PAGE_SIZE as u64;
    let above = |pfn| {
        device_frame(machine, pfn)
            .is_some_and(|frame| frame >= FIRST_ABOVE && frame % FIRST_ABOVE >= FIRST_MIB)
    };
    search(machine, frames, above)
}

/// A buffer for the device: contiguous in its addresses, and below its mask.
///
/// It is released on drop. Drop the device first: its engine may not have stopped after a failure.
pub struct EduBuffer<'m> {
    machine: &'m Machine,
    memory: EduMemory<'m>,
}

enum EduMemory<'m> {
    /// PV: machine frames that were exchanged.
    Extent(OwnedExtent<'m>),
    /// PVH: guest frames without an exchange. The IOMMU translates them.
    Run(OwnedRun<'m>),
}

impl<'m> EduBuffer<'m> {
    /// Allocates a buffer.
    ///
    /// In PV this exchanges memory that the device cannot reach. In PVH it takes guest frames below
    /// the mask.
    pub fn new(machine: &'m Machine, order: Order) -> Result<Self, TestOutcome> {
        let frames = order.frames();
        if machine.exchanger().is_some() {
            let Some(run) = above_mask(machine, frames) else {
                skip!("the device can reach all of the guest's free memory without an exchange")
            };
            return Self::exchanged(machine, run, BITS);
        }
        let below = |pfn| device_frame(machine, pfn).is_some_and(|frame| frame < FIRST_ABOVE);
        match search(machine, frames, below) {
            Some(run) => Ok(Self::as_it_is(machine, run)),
            None => skip!("the guest has no run of {frames} free frames below the mask"),
        }
    }

    /// Makes a buffer from a run by an exchange.
    pub fn exchanged(
        machine: &'m Machine,
        run: FrameRun,
        bits: AddressBits,
    ) -> Result<Self, TestOutcome> {
        let run = OwnedRun::of(machine, run);
        let Some(exchanger) = machine.exchanger() else { error!("{}", machine.capability) };
        let Some(mut lists) = machine.lists(run.frames()) else {
            error!("the guest has no free memory for the list of {} frames", run.frames())
        };
        match exchanger.acquire(run.into_run(), bits, lists.words()) {
            Ok(extent) => {
                let extent = OwnedExtent::of(machine, extent);
                Ok(Self { machine, memory: EduMemory::Extent(extent) })
            }
            Err(failure) => Err(refused(machine, "the exchange failed", failure)),
        }
    }

    /// Returns the same guest frames, which an exchange brings into the device's reach.
    pub fn make_reachable(self) -> Result<Self, TestOutcome> {
        match self.memory {
            EduMemory::Run(run) => Self::exchanged(self.machine, run.into_run(), BITS),
            EduMemory::Extent(_) => Ok(self),
        }
    }

    /// Makes a buffer from a run whose frames are neighbours for the device already.
    pub fn as_it_is(machine: &'m Machine, run: FrameRun) -> Self {
        Self { machine, memory: EduMemory::Run(OwnedRun::of(machine, run)) }
    }

    /// Returns the guest frames.
    pub fn run(&self) -> &FrameRun {
        match &self.memory {
            EduMemory::Extent(extent) => extent.run(),
            EduMemory::Run(run) => run,
        }
    }

    /// Returns the number of bytes.
    pub fn bytes(&self) -> u64 {
        self.run().frames() * PAGE_SIZE as u64
    }

    /// Returns the device's address of a byte.
    pub fn device_address(&self, offset: u64) -> DmaAddr {
        let first = match &self.memory {
            // In PV the device uses machine frames, in PVH guest frames.
            EduMemory::Extent(extent) => extent.mfn().number(),
            EduMemory::Run(run) => run.first().number(),
        };
        DmaAddr::new(DmaAddr::of(Gfn::new(first)).get() + offset)
    }

    /// Returns the device's address after the last byte.
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
            // SAFETY: the byte is within the buffer, which is mapped and owns its frames
            // ([M1](xen_contig::rules#M1)). No reference to it exists ([M5](xen_contig::rules#M5)).
            unsafe { self.byte(offset).write_volatile(value(offset)) };
        }
    }

    /// Returns the first byte of a part that differs from `value(offset)`, with its offset.
    pub fn differs(&self, part: Range<u64>, value: impl Fn(u64) -> u8) -> Option<(u64, u8)> {
        part.map(|offset| {
            // SAFETY: the byte is within the buffer, which is mapped and owns its frames
            // ([M1](xen_contig::rules#M1)). No reference to it exists ([M5](xen_contig::rules#M5)).
            (offset, unsafe { self.byte(offset).read_volatile() })
        })
        .find(|(offset, found)| *found != value(*offset))
    }

    /// Releases the buffer to ordinary memory.
    pub fn release(self) -> Check {
        match self.memory {
            EduMemory::Run(_) => Ok(()),
            EduMemory::Extent(extent) => extent.release().map(drop),
        }
    }
}
