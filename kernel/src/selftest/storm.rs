//! Can several vCPUs allocate, free, map and unmap at random without disturbing each other?
//!
//! All vCPUs share one guest that is nearly full, one allocator that returns memory at once, and
//! one range of addresses. Frames circulate: one vCPU maps its own frames, unmaps them lazily and
//! frees them. The next vCPU that allocates a buffer gets them with the leftovers on them. No frame
//! may be lost, no vCPU may read another's bytes, and no operation may send an event to another vCPU.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use spin::Mutex;
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::Retain;
use xen_contig::vmap::{Flush, Protection, VmapError};

use super::dma::helpers::{
    Allocator, Buffer, HeldFrames, balanced, build, fill, holds, is_shortage, scatter,
};
use super::owned::OwnedRun;
use super::sent_events::{of_a_job, sent_during};
use super::soak::SoakRandom;
use super::vmap::test_area::TestArea;
use super::{Check, Test, TestContext, TestOutcome, error, fail, skip};
use crate::command_line::When;
use crate::machine::{Machine, word};
use crate::say;
use crate::smp;
use crate::traps::try_read;
use crate::vcpu::{self, VcpuId};

/// The number of frames that the vCPUs share, for each vCPU. It is a little more than a vCPU uses
/// on average.
const FRAMES: u64 = 160;

/// The maximum number of buffers, and of areas, of each vCPU.
const LIVE: usize = 12;

/// The largest buffer and the largest area, in pages.
const LARGEST: u64 = 16;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("storm-short", |context| storm(context, 2_000)).needs_exchange_order(4));
    tests.push(
        Test::new("storm", |context| storm(context, 100_000))
            .needs_exchange_order(4)
            .when(When::Asked),
    );
}

/// The operations of all vCPUs.
#[derive(Default)]
struct StormTally {
    allocated: AtomicU64,
    mapped: AtomicU64,
    purges: AtomicU64,
    /// The number of allocations that failed for lack of memory.
    refused: AtomicU64,
}

fn storm(context: &TestContext<'_>, operations: u64) -> Check {
    let machine = context.machine;
    let live = machine.areas.stats().live;
    let tally = StormTally::default();
    let vcpus = vcpu::count() as u64;
    let mut sent = 0;
    balanced(context, Retain::NOTHING, |allocator| {
        let _held = confine(machine)?;
        let failure = Mutex::new(None);
        let work = |id: VcpuId| {
            let rest = if id == VcpuId::BOOT { operations % vcpus } else { 0 };
            let share = operations / vcpus + rest;
            let seed =
                context.seed ^ (u64::from(id.number()) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut vcpu = StormVcpu::new(machine, allocator, &tally, seed);
            let result = vcpu.run(share).and(vcpu.end());
            if let Err(outcome) = result {
                say!("# storm: {id} stops after a failure");
                failure.lock().get_or_insert(outcome);
            }
        };
        let (delivered, all) = sent_during(|| smp::everywhere(&work))?;
        if let Err(undelivered) = delivered {
            error!("{undelivered}");
        }
        sent = all.saturating_sub(of_a_job());
        failure.into_inner().map_or(Ok(()), Err)
    })?;
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    say!(
        "# storm: {vcpus} vCPUs, {operations} operations: {} buffers, {} areas, {} purges of all, {} \
         refused for lack of memory as expected, {sent} events between vCPUs",
        count(&tally.allocated),
        count(&tally.mapped),
        count(&tally.purges),
        count(&tally.refused)
    );
    if sent > 0 {
        fail!("the operations sent {sent} events between vCPUs, expected none");
    }
    if machine.areas.stats().live != live {
        fail!("areas in use before: {live:?}, now: {:?}", machine.areas.stats());
    }
    if count(&tally.allocated) == 0 || count(&tally.mapped) == 0 {
        skip!("guest and Xen had no memory for any buffer or area");
    }
    Ok(())
}

/// Takes all of the guest's memory except for one run whose frames are not neighbours in the
/// machine.
fn confine(machine: &Machine) -> Result<HeldFrames<'_>, TestOutcome> {
    let free = { machine.frames.lock().free_frames() };
    let frames = (FRAMES * vcpu::count() as u64).min(free / 2);
    let Some(left) = machine.take(frames) else {
        skip!("the guest has no run of {frames} free frames")
    };
    let left = scatter(machine, left)?;
    let held = HeldFrames::all(machine);
    machine.give(left);
    Ok(held)
}

/// An area, its frames, and the number that marks their contents.
struct MappedArea<'m> {
    // The area is dropped before its frames.
    area: TestArea<'m>,
    run: OwnedRun<'m>,
    mark: u64,
}

/// The buffers and areas of one vCPU.
struct StormVcpu<'a, 'm> {
    machine: &'m Machine,
    allocator: &'a Allocator<'m>,
    tally: &'a StormTally,
    random: SoakRandom,
    buffers: Vec<(Buffer<'a, 'm>, u64)>,
    mapped: Vec<MappedArea<'m>>,
}

impl<'a, 'm> StormVcpu<'a, 'm> {
    fn new(
        machine: &'m Machine,
        allocator: &'a Allocator<'m>,
        tally: &'a StormTally,
        seed: u64,
    ) -> Self {
        let (buffers, mapped) = (Vec::with_capacity(LIVE), Vec::with_capacity(LIVE));
        Self { machine, allocator, tally, random: SoakRandom::new(seed), buffers, mapped }
    }

    fn run(&mut self, operations: u64) -> Check {
        for _ in 0..operations {
            match self.random.below(100) {
                0..30 if self.buffers.len() < LIVE => self.allocate()?,
                0..55 => self.free()?,
                55..75 if self.mapped.len() < LIVE => self.map()?,
                55..99 => self.unmap()?,
                _ => self.purge()?,
            }
        }
        Ok(())
    }

    /// Frees all buffers and areas.
    fn end(&mut self) -> Check {
        while !self.buffers.is_empty() {
            self.free()?;
        }
        while !self.mapped.is_empty() {
            self.unmap()?;
        }
        Ok(())
    }

    fn allocate(&mut self) -> Check {
        let size = 1 + self.random.below(LARGEST * PAGE_SIZE as u64);
        let constraints = build(|it| it.mask((1 << 36) - 1))?;
        match self.allocator.alloc_coherent(size, &constraints) {
            Ok(mut buffer) => {
                let seed = self.random.next();
                fill(&mut buffer, seed, 0)?;
                self.buffers.push((buffer, seed));
                self.tally.allocated.fetch_add(1, Relaxed);
            }
            Err(error) if is_shortage(&error) => {
                self.tally.refused.fetch_add(1, Relaxed);
            }
            Err(error) => fail!("{size} bytes: {error}"),
        }
        Ok(())
    }

    fn free(&mut self) -> Check {
        if self.buffers.is_empty() {
            return Ok(());
        }
        let index = self.random.below(self.buffers.len() as u64) as usize;
        let (buffer, seed) = self.buffers.swap_remove(index);
        holds(&buffer, seed, 0)
    }

    fn map(&mut self) -> Check {
        let frames = 1 + self.random.below(LARGEST);
        let Some(run) = ({ self.machine.frames.lock().take(frames, 1) }) else {
            self.tally.refused.fetch_add(1, Relaxed);
            return Ok(());
        };
        let run = OwnedRun::of(self.machine, run);
        // SAFETY: `run` owns the frames ([M1](xen_contig::rules#M1)) until the area is unmapped.
        let area = unsafe { self.machine.areas.vmap(run.iter(), Protection::ReadWrite, "storm") };
        let area = match area {
            Ok(area) => TestArea::new(self.machine, area),
            Err(VmapError::NoSpace { .. }) => return Ok(()),
            Err(error) => fail!("mapping {frames} frames: {error}"),
        };
        let mark = self.random.next();
        for (page, pfn) in (0..).zip(run.iter()) {
            // SAFETY: this vCPU owns the run ([M1](xen_contig::rules#M1)), and it is mapped.
            unsafe { word(pfn, 3).write_volatile(mark ^ page) };
        }
        self.tally.mapped.fetch_add(1, Relaxed);
        self.mapped.push(MappedArea { area, run, mark });
        Ok(())
    }

    fn unmap(&mut self) -> Check {
        if self.mapped.is_empty() {
            return Ok(());
        }
        let index = self.random.below(self.mapped.len() as u64) as usize;
        let MappedArea { area, run, mark } = self.mapped.swap_remove(index);
        for page in 0..run.frames() {
            match try_read(area.address() + page * PAGE_SIZE as u64 + 24) {
                Ok(found) if found == mark ^ page => {}
                other => {
                    fail!(
                        "page {page} of {:?} reads {other:x?}, expected {:#x}",
                        *area,
                        mark ^ page
                    )
                }
            }
        }
        area.vunmap()?;
        // The next owner of these frames gets them with the leftovers of the area.
        drop(run);
        Ok(())
    }

    fn purge(&mut self) -> Check {
        let flush = if self.random.below(2) == 0 { Flush::Inhibit } else { Flush::Now };
        self.tally.purges.fetch_add(1, Relaxed);
        match self.machine.areas.purge_all(flush) {
            Ok(_) => Ok(()),
            Err(error) => fail!("purging all: {error}"),
        }
    }
}
