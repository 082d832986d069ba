//! Helpers of the allocator's tests: a guest in which no free memory fits as it is, checks of a
//! buffer against Xen's tables, and accounts that must balance.

use alloc::vec::Vec;
use core::fmt::LowerHex;
use core::ops::Range;

use xen_contig::addr::{Mfn, Order, PAGE_SIZE};
use xen_contig::dma::{self, AllocError, CoherentBuffer, Constraints, Retain, Word};
use xen_contig::exchange::{Capability, ExchangeError, Lists, OnRefusal, Part};
use xen_contig::frames::FrameRun;

pub use super::limits::{Limits, build};
use super::{Check, TestOutcome, error, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::selftest::accounts::AccountsSnapshot;
use crate::selftest::{TestContext, frame_checks};
use crate::vcpu::xen;

/// The size of a frame in bytes.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// The allocator on this kernel.
pub type Allocator<'m> = dma::Allocator<&'m Machine>;
/// A buffer of this allocator.
pub type Buffer<'a, 'm> = CoherentBuffer<'a, &'m Machine>;

/// Returns the number of hypercalls made so far.
pub fn calls() -> u64 {
    xen().calls()
}

/// Returns the highest order that Xen exchanges for this domain; [`Order::MAX`] if it exchanges none.
pub fn extent_limit(machine: &Machine) -> Order {
    match machine.capability {
        Capability::Exchange { limit } => limit,
        Capability::Refill { .. } | Capability::None { .. } => Order::MAX,
    }
}

/// Returns true if Xen refused because an extent of a higher order is needed than it permits.
pub fn is_above_limit(error: &AllocError) -> bool {
    matches!(
        error,
        AllocError::OrderNotPermitted { .. }
            | AllocError::SegmentBelowAlignment { limit: Some(_), .. }
    )
}

/// Runs `body` with an allocator of its own, and checks that the accounts of guest and Xen are the
/// same before and after.
pub fn balanced<'m>(
    context: &TestContext<'m>,
    retain: Retain,
    body: impl FnOnce(&Allocator<'m>) -> Check,
) -> Check {
    let machine = context.machine;
    let before = AccountsSnapshot::of(machine);
    let allocator = Allocator::new(machine, retain);
    let result = body(&allocator);
    trim_all(&allocator)?;
    let now = AccountsSnapshot::of(machine);
    result?;
    if now != before {
        fail!("before: {before:?}, now: {now:?}, {:?}", allocator.stats());
    }
    Ok(())
}

/// Trims all idle memory of an allocator.
pub fn trim_all(allocator: &Allocator<'_>) -> Check {
    /// The maximum number of tries. Xen may lack memory for the exchange until other frames were
    /// returned to it.
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        let report = allocator.trim(u64::MAX);
        match report.error {
            None => return Ok(()),
            Some(ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. }) => {}
            Some(error) => fail!("trimming failed: {error}, {report:?}"),
        }
    }
    fail!(
        "Xen has no memory to exchange idle memory for after {TRIES} tries: {:?}",
        allocator.stats()
    )
}

/// Returns the buffer. If guest or Xen has no memory for it, this prints the error and returns
/// `None`.
pub fn served<T>(
    result: Result<T, AllocError>,
    test: &str,
    what: &str,
) -> Result<Option<T>, TestOutcome> {
    match result {
        Ok(buffer) => Ok(Some(buffer)),
        Err(error) if is_shortage(&error) => {
            say!("# {test}: {what} skipped, as this test permits: {error}");
            Ok(None)
        }
        Err(error) => fail!("{what}: {error}"),
    }
}

/// Returns true if the error is a lack of memory.
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

/// Checks a buffer of `len` bytes.
///
/// The device must accept each segment, and the segments must be adjacent. P2M, page tables and
/// Xen's M2P must name the machine frames that the segments name.
pub fn is_sound(
    machine: &Machine,
    buffer: &Buffer<'_, '_>,
    len: u64,
    constraints: &Constraints,
) -> Check {
    let (segments, frames) = (buffer.segments(), buffer.frames().frames());
    let limits = Limits::of(constraints);
    if buffer.len() != len || frames != len.div_ceil(PAGE) {
        fail!("expected a buffer of {len} bytes, got {buffer:?} with {frames} frames");
    }
    if buffer.segments().count() > limits.max_segments {
        fail!("{buffer:?} has more than {} segments", limits.max_segments);
    }
    let mut offset = 0;
    for segment in segments {
        if segment.offset != offset || !limits.take(segment.dma.get(), segment.len) {
            fail!("{segment:?} at offset {offset} is not within {constraints:?}");
        }
        offset += segment.len;
    }
    if offset != len {
        fail!("the segments of {buffer:?} have {offset} bytes, expected {len}");
    }
    let device_frame =
        |index: u64| buffer.dma_addr_at(index * PAGE).map(|dma| dma.frame().number());
    if machine.p2m.is_translated() {
        let first = buffer.frames().first();
        if (0..frames).any(|index| device_frame(index) != Some(first.add(index).number())) {
            fail!(
                "in a translated guest, the device addresses of {buffer:?} must be those of its guest \
                 frames"
            );
        }
    }
    frame_checks::agree(machine, buffer.frames(), |index| device_frame(index).map(Mfn::new))
}

/// Returns the offsets of the words that the checks read and write.
///
/// They are some words of every page, the last word among them. A wrong frame is wrong as a whole,
/// so a few words per page suffice. The places in a part that is cut off at a page boundary are the
/// same.
fn words(len: u64) -> impl Iterator<Item = u64> {
    const WORDS: u64 = PAGE / 8;
    const STEP: usize = 64;
    let words = len / 8;
    let ends = (1..=words / WORDS).map(|page| page * WORDS - 1);
    (0..words).step_by(STEP).chain(ends).map(|word| word * 8)
}

/// Returns the offsets of the bytes past the last whole word. The checks read and write all of them.
const fn odd_bytes(len: u64) -> Range<u64> {
    len / 8 * 8..len
}

/// Returns the pattern at an offset. Neither the word nor its lowest byte is 0.
const fn pattern(seed: u64, offset: u64) -> u64 {
    (seed ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Writes a pattern into a buffer. `base` is the offset of the buffer in the buffer that it was cut
/// from.
pub fn fill(buffer: &mut Buffer<'_, '_>, seed: u64, base: u64) -> Check {
    let len = buffer.len();
    words(len).try_for_each(|at| put(buffer, at, pattern(seed, base + at)))?;
    odd_bytes(len).try_for_each(|at| put(buffer, at, pattern(seed, base + at) as u8))
}

fn put<T: Word>(buffer: &mut Buffer<'_, '_>, at: u64, value: T) -> Check {
    if let Err(error) = buffer.store(at, value) {
        fail!("writing {buffer:?} at {at:#x}: {error}");
    }
    Ok(())
}

/// Checks that a buffer contains its pattern.
pub fn holds(buffer: &Buffer<'_, '_>, seed: u64, base: u64) -> Check {
    contains(buffer, |at| pattern(seed, base + at))
}

/// Checks that all checked places of a buffer are zero.
pub fn is_zero(buffer: &Buffer<'_, '_>) -> Check {
    contains(buffer, |_| 0)
}

fn contains(buffer: &Buffer<'_, '_>, expected: impl Fn(u64) -> u64) -> Check {
    let len = buffer.len();
    words(len).try_for_each(|at| is_at(buffer, at, expected(at)))?;
    odd_bytes(len).try_for_each(|at| is_at(buffer, at, expected(at) as u8))
}

fn is_at<T: Word + PartialEq + LowerHex>(buffer: &Buffer<'_, '_>, at: u64, expected: T) -> Check {
    match buffer.load::<T>(at) {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => fail!("{buffer:?} contains {found:#x} at {at:#x}, expected {expected:#x}"),
        Err(error) => fail!("reading {buffer:?} at {at:#x}: {error}"),
    }
}

/// Frames that are taken so that no other code can use them. They are freed on drop.
pub struct HeldFrames<'m> {
    machine: &'m Machine,
    runs: Vec<FrameRun>,
}

impl<'m> HeldFrames<'m> {
    /// Takes all free frames, in pieces as large as possible.
    pub fn all(machine: &'m Machine) -> Self {
        const LARGEST: u32 = 18;
        let mut runs = Vec::new();
        for order in (0..=LARGEST).rev() {
            // The list of runs grows on the heap, which uses no free frames.
            while let Some(run) = { machine.frames.lock().take(1 << order, 1) } {
                runs.push(run);
            }
        }
        Self { machine, runs }
    }

    /// Returns the runs that are held.
    pub fn runs(&self) -> &[FrameRun] {
        &self.runs
    }
}

impl Drop for HeldFrames<'_> {
    fn drop(&mut self) {
        self.runs.drain(..).for_each(|run| self.machine.give(run));
    }
}

/// A guest whose free frames are one run of `frames` frames. In PV no two of these are neighbours
/// in the machine.
pub struct ConfinedGuest<'m> {
    held: HeldFrames<'m>,
    first: xen_contig::addr::Pfn,
    frames: u64,
}

/// The maximum number of frames in a run that [`check_whole`](ConfinedGuest::check_whole) checks.
const PIECE: u64 = 4096;

impl<'m> ConfinedGuest<'m> {
    /// Confines the guest, or skips the test if the guest has no run of this length.
    pub fn to(machine: &'m Machine, frames: u64) -> Result<Self, TestOutcome> {
        let Some(mut run) = machine.take(frames) else {
            skip!("the guest has no run of {frames} free frames")
        };
        if machine.exchanger().is_some() {
            run = scatter(machine, run)?;
        }
        let held = HeldFrames::all(machine);
        let first = run.first();
        machine.give(run);
        Ok(Self { held, first, frames })
    }

    /// Returns the first of the free frames.
    pub fn first(&self) -> xen_contig::addr::Pfn {
        self.first
    }

    /// Trims the allocator and checks the tables.
    ///
    /// All frames of the run must be free and usable, and all tables must agree on them and on the other free
    /// frames. Runs longer than [`PIECE`] are left out, because checking a dom0's large runs would
    /// take a second.
    pub fn check_whole(self, allocator: &Allocator<'_>) -> Check {
        trim_all(allocator)?;
        let Self { held, first, frames } = self;
        let machine = held.machine;
        let Some(run) = ({ machine.frames.lock().take(frames, 1) }) else {
            let free = { machine.frames.lock().free_frames() };
            fail!(
                "expected a free run of {frames} frames from pfn {first} on, but {free} frames are free \
                 in other runs: {:?}",
                allocator.stats()
            );
        };
        frame_checks::dirty(&run, first.number());
        let agreed = frame_checks::agree(machine, &run, |_| None)
            .and_then(|()| frame_checks::holds_pattern(&run, first.number(), "a free frame"));
        let back = run.first() == first;
        machine.give(run);
        agreed?;
        if !back {
            fail!("the free run is not the one of {frames} frames from pfn {first} on");
        }
        let mut pieces = held.runs().iter().filter(|run| run.frames() <= PIECE);
        pieces.try_for_each(|run| frame_checks::agree(machine, run, |_| None))
    }
}

/// Exchanges frames of a run until no two guest neighbours are neighbours in the machine. In a PVH
/// guest the run stays as it is.
///
/// Xen may hand out consecutive single frames, upwards or downwards, so exchanging all frames at
/// once may not help. Therefore every second frame is exchanged by a call of its own, and its
/// neighbours stay.
pub fn scatter(machine: &Machine, mut run: FrameRun) -> Result<FrameRun, TestOutcome> {
    /// The maximum number of calls in one transaction.
    const PARTS: usize = 512;
    let Some(exchanger) = machine.exchanger() else { return Ok(run) };
    let frames = run.frames();
    let Some(mut lists) = machine.lists(frames + 1) else {
        machine.give(run);
        skip!("the guest has no free memory for the lists of {frames} frames")
    };
    // This is twice the number that is needed if Xen never hands out a neighbour by chance.
    for _ in 0..2 + frames.div_ceil(PARTS as u64) {
        let parts = neighbours_in_machine(machine, &run, PARTS);
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
                    fail!("exchanging single frames: {error}")
                }
            },
            Err(failure) => {
                failure.remaining.into_iter().for_each(|run| machine.give(run));
                fail!("exchanging single frames: {}", failure.error)
            }
        };
    }
    machine.give(run);
    error!("Xen handed out machine neighbours for {frames} frames in every transaction")
}

/// Returns at most `most` parts of one frame, each of which follows its guest neighbour in the
/// machine. No two parts are adjacent.
fn neighbours_in_machine(machine: &Machine, run: &FrameRun, most: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut last: Option<Mfn> = None;
    for (index, pfn) in (0..).zip(run.iter()) {
        let mfn = machine.p2m.mfn(pfn);
        let follows = last.is_some() && last.map(|last| last.add(1)) == mfn;
        last = mfn;
        if follows && parts.len() < most {
            parts.push(Part::replace(index, 1));
            // This frame gets another machine frame, so the next one no longer follows it.
            last = None;
        }
    }
    parts
}
