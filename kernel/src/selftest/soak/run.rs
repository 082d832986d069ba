//! The operations of a soak.

use alloc::vec::Vec;

use xen_contig::dma::{AllocError, Constraints, Request};
use xen_contig::exchange::ExchangeError;
use xen_contig::frames::FrameRun;

use super::random::SoakRandom;
use super::requests;
use super::tally::SoakTally;
use super::{Check, TestOutcome, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::selftest::dma::helpers::{
    Allocator, Buffer, HeldFrames, PAGE, fill, holds, is_sound, is_zero, scatter,
};
use crate::trace;

/// The number of frames that the guest keeps.
const LEFT: u64 = 2048;

/// The maximum number of live buffers.
const LIVE: usize = 160;

/// The maximum number of held pieces of ordinary memory.
const HELD: usize = 192;

/// The number of operations between two checks of the accounts.
const INTERVAL: u64 = 10_000;

/// A buffer and its pattern.
struct SoakBuffer<'a, 'm> {
    buffer: Buffer<'a, 'm>,
    seed: u64,
    /// The offset of the buffer in the buffer that it was cut from.
    base: u64,
}

/// A running soak.
pub struct Soak<'a, 'm> {
    machine: &'m Machine,
    allocators: &'a [Allocator<'m>; 3],
    random: SoakRandom,
    /// The guest's memory that takes no part in the soak.
    others: HeldFrames<'m>,
    /// Pieces of the other memory that are taken.
    held: Vec<FrameRun>,
    live: Vec<SoakBuffer<'a, 'm>>,
    tally: SoakTally,
    /// The number of frames that are free, held, in buffers or in a reserve.
    frames: u64,
}

impl<'a, 'm> Soak<'a, 'm> {
    /// Takes the guest's memory except for what the soak uses, and a part of that too.
    pub fn start(
        machine: &'m Machine,
        allocators: &'a [Allocator<'m>; 3],
        seed: u64,
    ) -> Result<Self, TestOutcome> {
        let free = { machine.frames.lock().free_frames() };
        let frames = LEFT.min(free / 2);
        let Some(left) = machine.take(frames) else {
            skip!("the guest has no run of {frames} free frames")
        };
        // Otherwise most requests would be met by the contiguous memory of the domain builder.
        let left = scatter(machine, left)?;
        let others = HeldFrames::all(machine);
        machine.give(left);
        let (held, live) = (Vec::with_capacity(HELD), Vec::with_capacity(LIVE));
        let (random, tally) = (SoakRandom::new(seed), SoakTally::default());
        let mut soak = Self { machine, allocators, random, others, held, live, tally, frames };
        // Small and large pieces alternate. Then half of them are freed.
        for _ in 0..HELD {
            soak.hold();
        }
        for _ in 0..HELD / 2 {
            soak.release();
        }
        soak.tally = SoakTally::default();
        say!("# soak: {} of {free} free frames take part, {} of them free", frames, soak.free());
        Ok(soak)
    }

    fn free(&self) -> u64 {
        self.machine.frames.lock().free_frames()
    }

    /// Runs `operations` operations, or stops at the first failure.
    pub fn run(&mut self, operations: u64) -> Check {
        for number in 1..=operations {
            trace::print_if_filling();
            let done = match self.random.below(100) {
                0..40 => self.alloc(),
                40..71 => self.free_one(),
                71..76 => self.split(),
                76..80 => self.alloc_many(),
                80 => self.trim(),
                81 => self.reclaim(),
                82..92 => self.scatter(),
                92..96 => {
                    self.hold();
                    Ok(())
                }
                _ => {
                    self.release();
                    Ok(())
                }
            };
            if let Err(outcome) = done {
                say!("# soak: at operation {number}");
                return Err(outcome);
            }
            if number.is_multiple_of(INTERVAL) {
                self.account(number)?;
            }
        }
        Ok(())
    }

    /// Frees everything. Returns the counts, and the check of the last buffers.
    pub fn end(self) -> (SoakTally, Check) {
        let Self { machine, live, held, tally, others, .. } = self;
        let intact = live
            .iter()
            .try_for_each(|SoakBuffer { buffer, seed, base }| holds(buffer, *seed, *base));
        drop(live);
        held.into_iter().for_each(|run| machine.give(run));
        drop(others);
        (tally, intact)
    }

    /// Checks that every frame is counted in one place ([M1](xen_contig::rules#M1)).
    fn account(&self, number: u64) -> Check {
        let free = self.free();
        let held: u64 = self.held.iter().map(FrameRun::frames).sum();
        let live: u64 = self.live.iter().map(|live| live.buffer.frames().frames()).sum();
        let reserve: u64 = self
            .allocators
            .iter()
            .map(Allocator::stats)
            .map(|stats| stats.idle + stats.set_aside + stats.records)
            .sum();
        say!(
            "# soak: {number}: {free} free, {held} held, {live} in {} buffers, {reserve} in \
             reserve",
            self.live.len()
        );
        if free + held + live + reserve != self.frames {
            fail!("expected {} frames, found {}", self.frames, free + held + live + reserve);
        }
        Ok(())
    }

    fn any_allocator(&mut self) -> &'a Allocator<'m> {
        &self.allocators[self.random.below(3) as usize]
    }

    fn alloc(&mut self) -> Check {
        if self.live.len() == LIVE {
            return self.free_one();
        }
        let size = requests::size(&mut self.random);
        let constraints = match requests::constraints(&mut self.random, size) {
            Ok(constraints) => constraints,
            Err(contradiction) => {
                self.tally.refused(&AllocError::from(contradiction));
                return Ok(());
            }
        };
        match self.any_allocator().alloc_coherent(size, &constraints) {
            Ok(buffer) => {
                if buffer.len() != size {
                    fail!("expected {size} bytes, got {buffer:?}");
                }
                self.check_and_fill(buffer, &constraints)?;
                self.tally.done("alloc");
                Ok(())
            }
            Err(error) => self.refused(error),
        }
    }

    /// Checks a new buffer and fills it with a pattern.
    fn check_and_fill(&mut self, mut buffer: Buffer<'a, 'm>, constraints: &Constraints) -> Check {
        is_sound(self.machine, &buffer, buffer.len(), constraints)?;
        is_zero(&buffer)?;
        let seed = self.random.next();
        fill(&mut buffer, seed, 0)?;
        self.live.push(SoakBuffer { buffer, seed, base: 0 });
        Ok(())
    }

    /// Counts a refusal. Fails if no request can cause the error.
    fn refused(&mut self, error: AllocError) -> Check {
        if let AllocError::Exchange(why) = error
            && !self.is_explicable(why)
        {
            fail!("an error that no request can cause: {why}");
        }
        self.tally.refused(&error);
        Ok(())
    }

    fn is_explicable(&self, error: ExchangeError) -> bool {
        match error {
            ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. } => true,
            ExchangeError::NodeNotPermitted { .. } => !self.machine.initial_domain,
            _ => false,
        }
    }

    fn pick(&mut self) -> Option<SoakBuffer<'a, 'm>> {
        let count = self.live.len() as u64;
        (count > 0).then(|| self.live.swap_remove(self.random.below(count.max(1)) as usize))
    }

    fn free_one(&mut self) -> Check {
        let Some(SoakBuffer { buffer, seed, base }) = self.pick() else {
            self.tally.done("free-none");
            return Ok(());
        };
        holds(&buffer, seed, base)?;
        drop(buffer);
        self.tally.done("free");
        Ok(())
    }

    fn split(&mut self) -> Check {
        let Some(SoakBuffer { mut buffer, seed, base }) = self.pick() else {
            self.tally.done("split-none");
            return Ok(());
        };
        let pages = buffer.len().div_ceil(PAGE);
        let at = self.random.within(0, pages) * PAGE;
        if self.live.len() + 2 > LIVE {
            self.live.push(SoakBuffer { buffer, seed, base });
            self.tally.done("split-crowded");
            return Ok(());
        }
        let len = buffer.len();
        let rest = buffer.split_off(at);
        self.live.push(SoakBuffer { buffer, seed, base });
        match rest {
            Ok(rest) => {
                self.live.push(SoakBuffer { buffer: rest, seed, base: base + at });
                self.tally.done("split");
                Ok(())
            }
            Err(_) if at == 0 || at >= len => {
                self.tally.done("split-at-end");
                Ok(())
            }
            Err(error) => fail!("splitting a buffer at byte {at}: {error}"),
        }
    }

    fn alloc_many(&mut self) -> Check {
        const SET: usize = 4;
        if self.live.len() + SET > LIVE {
            return self.free_one();
        }
        let mut limits = [Constraints::default(); SET];
        let requests = limits.each_mut().map(|limits| {
            let size = requests::size(&mut self.random).clamp(1, 64 * PAGE);
            if let Ok(constraints) = requests::constraints(&mut self.random, size) {
                *limits = constraints;
            }
            Request::new(size).within(limits)
        });
        match self.any_allocator().alloc_many(&requests) {
            Ok(buffers) => {
                for (buffer, limits) in buffers.into_iter().zip(&limits) {
                    self.check_and_fill(buffer, limits)?;
                }
                self.tally.done("alloc-many");
                Ok(())
            }
            Err((index, error)) if index < SET => self.refused(error),
            Err((index, error)) => fail!("request {index} of {SET}: {error}"),
        }
    }

    fn trim(&mut self) -> Check {
        let bytes = self.random.within(1, 512) * PAGE;
        let report = self.any_allocator().trim(bytes);
        match report.error {
            Some(error) if !self.is_explicable(error) => fail!("trimming failed: {report:?}"),
            Some(error) => self.tally.refused(&error),
            None if report.returned > 0 => self.tally.done("trim"),
            None => self.tally.done("trim-nothing"),
        }
        Ok(())
    }

    /// Takes idle memory from a reserve, as a kernel that is short of memory does.
    fn reclaim(&mut self) -> Check {
        let frames = self.random.within(1, 128);
        let freed = self.any_allocator().reclaim(frames);
        self.tally.done(if freed > 0 { "reclaim" } else { "reclaim-nothing" });
        Ok(())
    }

    /// Exchanges free frames for others, so that contiguous memory does not accumulate.
    fn scatter(&mut self) -> Check {
        let frames = self.random.within(2, 64);
        let run = { self.machine.frames.lock().take(frames, 1) };
        let Some(run) = run else {
            self.tally.done("scatter-none");
            return Ok(());
        };
        match scatter(self.machine, run) {
            Ok(run) => {
                self.machine.give(run);
                self.tally.done("scatter");
                Ok(())
            }
            Err(TestOutcome::Skip(_)) => {
                self.tally.done("scatter-no-memory");
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Takes a piece of ordinary memory, so that the free memory is fragmented.
    fn hold(&mut self) {
        if self.held.len() == HELD {
            return self.release();
        }
        let frames = match self.random.chance(80) {
            true => self.random.within(1, 4),
            false => self.random.within(1, 32),
        };
        let run = { self.machine.frames.lock().take(frames, 1) };
        match run {
            Some(run) => {
                self.held.push(run);
                self.tally.done("hold");
            }
            None => self.tally.done("hold-none"),
        }
    }

    fn release(&mut self) {
        let count = self.held.len() as u64;
        if count == 0 {
            return self.tally.done("release-none");
        }
        let run = self.held.swap_remove(self.random.below(count) as usize);
        self.machine.give(run);
        self.tally.done("release");
    }
}
