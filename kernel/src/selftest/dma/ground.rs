//! What the allocator's tests stand on: a guest whose free memory fits nothing as it is, checks of a
//! buffer against Xen's books, and accounts that must balance.

use alloc::vec::Vec;

use xen_contig::addr::{Mfn, PAGE_SIZE};
use xen_contig::dma::{self, AllocError, CoherentBuffer, Constraints, Retain};
use xen_contig::exchange::{ExchangeError, Lists, OnRefusal, Part};
use xen_contig::frames::FrameRun;
use xen_contig::paging::Width;

use super::{Check, TestOutcome, error, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::selftest::accounts::AccountsSnapshot;
use crate::selftest::{TestContext, books};
use crate::vcpu::xen;

/// Bytes of a frame.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// The allocator over this kernel.
pub type Allocator<'m> = dma::Allocator<&'m Machine>;
/// A buffer of it.
pub type Buffer<'a, 'm> = CoherentBuffer<'a, &'m Machine>;

/// Hypercalls made so far.
pub fn calls() -> u64 {
    xen().summary().total().calls
}

/// Constraints that are known not to contradict each other.
pub fn build(
    build: impl FnOnce(dma::ConstraintsBuilder) -> dma::ConstraintsBuilder,
) -> Result<Constraints, TestOutcome> {
    match build(Constraints::builder()).build() {
        Ok(constraints) => Ok(constraints),
        Err(contradiction) => fail!("these constraints can be met: {contradiction}"),
    }
}

/// Runs a body with an allocator of its own, and checks that every frame is back afterwards, by the
/// guest's books and by Xen's.
pub fn balanced<'m>(
    context: &TestContext<'m>,
    retain: Retain,
    body: impl FnOnce(&Allocator<'m>) -> Check,
) -> Check {
    let machine = context.machine;
    let before = AccountsSnapshot::of(machine);
    let allocator = Allocator::new(machine, retain);
    let result = body(&allocator);
    settle(&allocator)?;
    let now = AccountsSnapshot::of(machine);
    result?;
    if now != before {
        fail!("before: {before:?}, now: {now:?}, {:?}", allocator.stats());
    }
    Ok(())
}

/// Trims all that an allocator has idle.
pub fn settle(allocator: &Allocator<'_>) -> Check {
    /// Xen may have no memory to swap for at once; it has when other frames are back.
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        let report = allocator.trim(u64::MAX);
        match report.error {
            None => return Ok(()),
            Some(ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. }) => {}
            Some(error) => fail!("trimming: {error}, {report:?}"),
        }
    }
    fail!("Xen takes nothing back: {:?}", allocator.stats())
}

/// The buffer, or `None` where guest or Xen has no memory for it: that is said aloud.
pub fn served<T>(
    result: Result<T, AllocError>,
    test: &str,
    what: &str,
) -> Result<Option<T>, TestOutcome> {
    match result {
        Ok(buffer) => Ok(Some(buffer)),
        Err(error) if is_shortage(&error) => {
            say!("# {test}: {what}: {error}");
            Ok(None)
        }
        Err(error) => fail!("{what}: {error}"),
    }
}

/// Whether memory is what is missing.
pub fn is_shortage(error: &AllocError) -> bool {
    matches!(
        error,
        AllocError::Exchange(ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. })
            | AllocError::NoMemoryOnNode { .. }
            | AllocError::NoGuestMemory { .. }
            | AllocError::NoListMemory { .. }
            | AllocError::NoFramesInReach { .. }
    )
}

/// Checks a buffer of `len` bytes: each segment is one that the device takes, the machine frames
/// beneath it are neighbours by P2M, page tables and Xen's M2P, and nothing lies between segments.
pub fn is_sound(
    machine: &Machine,
    buffer: &Buffer<'_, '_>,
    len: u64,
    constraints: &Constraints,
) -> Check {
    let (segments, frames) = (buffer.segments(), buffer.frames().frames());
    if buffer.len() != len || frames != len.div_ceil(PAGE) {
        fail!("{len} bytes were asked for: {buffer:?} has {frames} frames");
    }
    if buffer.segments().count() > constraints.max_segments() {
        fail!("{buffer:?} has more than {} segments", constraints.max_segments());
    }
    let mut offset = 0;
    for segment in segments {
        if segment.offset != offset || !constraints.admits(segment.dma.get(), segment.len) {
            fail!("{segment:?} at offset {offset} is none for {constraints:?}");
        }
        offset += segment.len;
    }
    if offset != len {
        fail!("the segments of {buffer:?} have {offset} bytes");
    }
    let device_frame =
        |index: u64| buffer.dma_addr_at(index * PAGE).map(|dma| dma.frame().number());
    if machine.p2m.is_translated() {
        let first = buffer.frames().first();
        if (0..frames).any(|index| device_frame(index) != Some(first.add(index).number())) {
            fail!("in a translated guest the device sees guest frames, not {buffer:?}");
        }
    }
    books::agree(machine, buffer.frames(), |index| device_frame(index).map(Mfn::new))
}

/// What is looked at in a buffer: words of every page, its last one among them, and the odd bytes at
/// the end. Frames get mixed up whole; within one, a few words tell. Cut at a page boundary, a buffer
/// is looked at in the same places.
fn places(len: u64) -> impl Iterator<Item = (u64, Width)> {
    const WORDS: u64 = PAGE / 8;
    const STEP: usize = 64;
    let words = len / 8;
    let ends = (1..=words / WORDS).map(|page| page * WORDS - 1);
    let stepped = (0..words).step_by(STEP);
    let tail = (words * 8..len).map(|offset| (offset, Width::Byte));
    stepped.chain(ends).map(|word| (word * 8, Width::Quad)).chain(tail)
}

/// What belongs at an offset, never 0.
fn pattern(seed: u64, offset: u64, width: Width) -> u64 {
    let word = (seed ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    match width {
        Width::Quad => word,
        _ => word & 0xff,
    }
}

/// Writes a pattern into a buffer. `base` is where the buffer began in the one that it was cut from.
pub fn fill(buffer: &mut Buffer<'_, '_>, seed: u64, base: u64) -> Check {
    for (offset, width) in places(buffer.len()) {
        if let Err(error) = buffer.store(offset, width, pattern(seed, base + offset, width)) {
            fail!("writing: {error}");
        }
    }
    Ok(())
}

/// Checks that a buffer holds its pattern.
pub fn holds(buffer: &Buffer<'_, '_>, seed: u64, base: u64) -> Check {
    contains(buffer, |offset, width| pattern(seed, base + offset, width))
}

/// Checks that all of a buffer that is looked at is zero.
pub fn is_zero(buffer: &Buffer<'_, '_>) -> Check {
    contains(buffer, |_, _| 0)
}

fn contains(buffer: &Buffer<'_, '_>, expected: impl Fn(u64, Width) -> u64) -> Check {
    for (offset, width) in places(buffer.len()) {
        let expected = expected(offset, width);
        match buffer.load(offset, width) {
            Ok(found) if found == expected => {}
            other => fail!("{buffer:?} holds {other:x?} at {offset:#x}, not {expected:#x}"),
        }
    }
    Ok(())
}

/// Frames that are held so that nobody else has them. Gives them back when dropped.
pub struct Hog<'m> {
    machine: &'m Machine,
    runs: Vec<FrameRun>,
}

impl<'m> Hog<'m> {
    /// Takes all free frames, in pieces as large as can be.
    pub fn all(machine: &'m Machine) -> Self {
        const LARGEST: u32 = 18;
        let mut runs = Vec::new();
        for order in (0..=LARGEST).rev() {
            // The list of runs grows on the heap, which is no free frame.
            while let Some(run) = { machine.frames.lock().take(1 << order, 1) } {
                runs.push(run);
            }
        }
        Self { machine, runs }
    }

    /// The runs that are held.
    pub fn runs(&self) -> &[FrameRun] {
        &self.runs
    }
}

impl Drop for Hog<'_> {
    fn drop(&mut self) {
        self.runs.drain(..).for_each(|run| self.machine.give(run));
    }
}

/// A guest that has `frames` free frames in a row and no more, of which in PV no two are neighbours
/// in the machine.
pub struct Confined<'m> {
    hog: Hog<'m>,
    first: xen_contig::addr::Pfn,
    frames: u64,
}

/// Frames of what counts as a piece.
const PIECE: u64 = 4096;

impl<'m> Confined<'m> {
    /// Confines the guest. Skips where it has not so many frames in a row.
    pub fn to(machine: &'m Machine, frames: u64) -> Result<Self, TestOutcome> {
        let Some(mut run) = machine.take(frames) else {
            skip!("the guest has no {frames} free frames in a row")
        };
        if machine.exchanger().is_some() {
            run = scatter(machine, run)?;
        }
        let hog = Hog::all(machine);
        let first = run.first();
        machine.give(run);
        Ok(Self { hog, first, frames })
    }

    /// The first of the free frames.
    pub fn first(&self) -> xen_contig::addr::Pfn {
        self.first
    }

    /// Trims the allocator. Checks that all of the frames are free then, and that all records agree on
    /// them and on the others that are not in use, as far as these lie in pieces: a dom0's large runs
    /// would take a second.
    pub fn check_whole(self, allocator: &Allocator<'_>) -> Check {
        settle(allocator)?;
        let Self { hog, first, frames } = self;
        let machine = hog.machine;
        let Some(run) = ({ machine.frames.lock().take(frames, 1) }) else {
            let free = { machine.frames.lock().free_frames() };
            fail!(
                "of {frames} frames from pfn {first} on {free} are free, and not all in a row: {:?}",
                allocator.stats()
            );
        };
        let agreed = books::agree(machine, &run, |_| None);
        let back = run.first() == first;
        machine.give(run);
        agreed?;
        if !back {
            fail!("other frames are free than the {frames} from pfn {first} on");
        }
        let mut pieces = hog.runs().iter().filter(|run| run.frames() <= PIECE);
        pieces.try_for_each(|run| books::agree(machine, run, |_| None))
    }
}

/// Swaps frames of a run for others until no two that are neighbours in the guest are neighbours in
/// the machine. In a PVH guest the run stays what it is.
///
/// Xen may hand out single frames in a row, upwards or downwards, so it does not do to swap them all:
/// every second frame is swapped by a call of its own, and its neighbours stay.
pub fn scatter(machine: &Machine, mut run: FrameRun) -> Result<FrameRun, TestOutcome> {
    /// Calls of one transaction.
    const PARTS: usize = 512;
    let Some(exchanger) = machine.exchanger() else { return Ok(run) };
    let frames = run.frames();
    let Some(mut lists) = machine.lists(frames + 1) else {
        machine.give(run);
        skip!("the guest has no room for the lists of {frames} frames")
    };
    // Twice as often as it takes where Xen never hands out a neighbour by chance.
    for _ in 0..2 + frames.div_ceil(PARTS as u64) {
        let parts = in_line(machine, &run, PARTS);
        if parts.is_empty() {
            return Ok(run);
        }
        let (backing, extents) = lists.words().split_at_mut(frames as usize);
        run = match exchanger.exchange(run, &parts, OnRefusal::Return, Lists { backing, extents }) {
            Ok(progress) => match progress.error {
                None => progress.run,
                Some(error) => {
                    machine.give(progress.run);
                    if matches!(error, ExchangeError::NoMemory { .. }) {
                        skip!("{error}");
                    }
                    fail!("swapping frames for others: {error}")
                }
            },
            Err(failure) => {
                failure.remaining.into_iter().for_each(|run| machine.give(run));
                fail!("swapping frames for others: {}", failure.error)
            }
        };
    }
    machine.give(run);
    error!("Xen hands out the neighbours of {frames} frames again and again")
}

/// Frames that follow their neighbour in the machine, each a part, not two side by side, and not
/// more than `most`.
fn in_line(machine: &Machine, run: &FrameRun, most: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut last: Option<Mfn> = None;
    for (index, pfn) in (0..).zip(run.iter()) {
        let mfn = machine.p2m.mfn(pfn);
        let follows = last.is_some() && last.map(|last| last.add(1)) == mfn;
        last = mfn;
        if follows && parts.len() < most {
            parts.push(Part::replace(index, 1));
            // It will have another neighbour.
            last = None;
        }
    }
    parts
}
