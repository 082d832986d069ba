//! [C75](xen_contig::conformance#C75): the domain is saved and restored, and its memory lies in
//! other machine frames.

use alloc::vec::Vec;

use xen_contig::addr::Gfn;
use xen_contig::dma::{
    BufferError, Constraints, Pool, PoolConfig, PoolErrorKind, PoolObject, Retain,
};
use xen_contig::vmap::UnmapMode;

use crate::command_line::When;
use crate::events;
use crate::machine::Machine;
use crate::say;
use crate::selftest::dma::helpers::{
    Allocator, Buffer, PAGE, balanced, build, fill, holds, is_sound, scatter, served,
};
use crate::selftest::owned::Owned;
use crate::selftest::vmap::map;
use crate::selftest::vmap::test_area::TestArea;
use crate::selftest::{Check, Test, TestContext, TestOutcome, error, fail, frame_checks, skip};
use crate::suspend::{Requests, Resumed};
use crate::time::Deadline;
use crate::traps::try_read;
use crate::vcpu;

/// Seconds that the toolstack has to ask.
const PATIENCE: u64 = 300;

/// How often the domain may come back as it was before it is saved for good.
const KEPT: u32 = 8;

/// Sizes of the buffers, in bytes.
const SIZES: [u64; 4] = [1, PAGE + 1, 64 << 10, 2 << 20];

/// Objects of the pool that a device was told of.
const OBJECTS: usize = 24;

/// Bytes of each.
const OBJECT: u64 = 512;

/// Frames of an area in use, and of one that was left behind.
const FRAMES: u64 = 4;

pub fn add(tests: &mut Vec<Test>) {
    // It waits for somebody who saves the domain.
    tests.push(Test::new("c75-save-and-restore", saved).when(When::Named));
}

fn saved(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let areas = machine.areas.stats().live;
    // Memory that was given back is used again where it lies: after the restore the allocator has
    // to see that it does not fit any more.
    balanced(context, Retain::default(), |allocator| {
        let constraints = build(|it| it.mask((1 << 36) - 1))?;
        let config = PoolConfig::builder("c75", OBJECT).constraints(constraints).build();
        let mut pool = match config.and_then(|config| Pool::new(allocator, config)) {
            Ok(pool) => pool,
            Err(error) => fail!("a pool: {error}"),
        };
        {
            let objects = objects(&pool)?;
            let buffers = buffers(context, allocator, &constraints)?;
            let areas = Areas::set(context)?;
            let result = until_restored(machine, || {
                buffers.iter().try_for_each(|buffer| buffer.check(machine, context.seed))?;
                areas.check(context.seed)
            });
            let result = result.and_then(|()| moved(machine, &buffers, &pool, &objects));
            areas.end()?;
            result?;
        }
        // Whatever was moved is ordinary memory, and what is told from here on is true.
        pool.trim();
        for len in SIZES {
            let served = served(allocator.alloc_coherent(len, &constraints), "c75", "anew")?;
            served.map_or(Ok(()), |buffer| is_sound(machine, &buffer, len, &constraints))?;
        }
        for object in &objects(&pool)? {
            if let Err(moved) = object.check_in_place() {
                fail!("the pool hands out {object:?} after the restore: {moved}");
            }
        }
        Ok(())
    })?;
    if machine.areas.stats().live != areas {
        fail!("areas in use before: {areas:?}, now: {:?}", machine.areas.stats());
    }
    Ok(())
}

/// Lets the domain be saved until it has been restored, and checks after each time that all is where
/// the guest has it.
fn until_restored(machine: &Machine, check: impl Fn() -> Check) -> Check {
    for _ in 0..=KEPT {
        let requests = match Requests::open(machine) {
            Ok(requests) => requests,
            Err(error) => skip!("{error}"),
        };
        say!("# c75: ready to be saved");
        if !requests.wait(Deadline::in_seconds(PATIENCE)) {
            error!("nobody has saved the domain for {PATIENCE} s: `xl save` does");
        }
        let resumed = match requests.suspend() {
            Ok(resumed) => resumed,
            Err(error) => fail!("{error}"),
        };
        match resumed {
            Resumed::Kept => say!("# c75: back in the same domain"),
            Resumed::Restored => say!("# c75: restored"),
        }
        events_come()?;
        check()?;
        if resumed == Resumed::Restored {
            return Ok(());
        }
    }
    error!("the domain was kept {KEPT} times and never restored")
}

/// Checks that the vCPU's own events are delivered.
fn events_come() -> Check {
    let me = vcpu::local();
    let fired = me.events.fired();
    events::notify(me);
    let deadline = Deadline::in_seconds(10);
    while me.events.fired() == fired {
        if deadline.has_passed() {
            fail!("an event that the vCPU sent itself has not come for 10 s");
        }
        events::nap();
    }
    Ok(())
}

/// A buffer, and where its frames were when a device was told.
struct SavedBuffer<'a, 'm> {
    buffer: Buffer<'a, 'm>,
    gfns: Vec<Option<Gfn>>,
}

impl SavedBuffer<'_, '_> {
    /// Checks that the guest's books agree with Xen's, that the bytes are there, and that what the
    /// buffer says of where it lies is true.
    fn check(&self, machine: &Machine, seed: u64) -> Check {
        let Self { buffer, gfns } = self;
        frame_checks::agree(machine, buffer.frames(), |_| None)?;
        holds(buffer, seed ^ buffer.len(), 0)?;
        let now = buffer.frames().iter().map(|pfn| machine.p2m.gfn(pfn));
        let other = now.zip(gfns).position(|(now, told)| now != *told);
        match (other, buffer.check_in_place()) {
            (None, Ok(())) => Ok(()),
            (Some(page), Err(BufferError::Moved(moved))) if moved.offset == page as u64 * PAGE => {
                Ok(())
            }
            (page, said) => fail!("of {buffer:?} page {page:?} is the first elsewhere: {said:?}"),
        }
    }
}

fn buffers<'a, 'm>(
    context: &TestContext<'m>,
    allocator: &'a Allocator<'m>,
    constraints: &Constraints,
) -> Result<Vec<SavedBuffer<'a, 'm>>, TestOutcome> {
    let mut buffers = Vec::new();
    for len in SIZES {
        let served = served(allocator.alloc_coherent(len, constraints), "c75", "before")?;
        let Some(mut buffer) = served else { continue };
        fill(&mut buffer, context.seed ^ len, 0)?;
        let gfns = buffer.frames().iter().map(|pfn| context.machine.p2m.gfn(pfn)).collect();
        buffers.push(SavedBuffer { buffer, gfns });
    }
    if buffers.is_empty() {
        skip!("there was no memory for any buffer");
    }
    Ok(buffers)
}

fn objects<'p, 'm>(
    pool: &'p Pool<'_, &'m Machine>,
) -> Result<Vec<PoolObject<'p, &'m Machine>>, TestOutcome> {
    let mut objects = Vec::new();
    while objects.len() < OBJECTS {
        match pool.alloc() {
            Ok(object) => objects.push(object),
            Err(error) => fail!("object {} of the pool: {error}", objects.len()),
        }
    }
    Ok(objects)
}

/// Checks what the restored domain's pool says, and counts. In PV all must lie elsewhere, or nothing
/// was tried; in a translated guest the device's frames are the guest's, and they are what they were.
fn moved(
    machine: &Machine,
    buffers: &[SavedBuffer<'_, '_>],
    pool: &Pool<'_, &Machine>,
    objects: &[PoolObject<'_, &Machine>],
) -> Check {
    let buffers_moved = buffers.iter().filter(|told| told.buffer.check_in_place().is_err()).count();
    let objects_moved = objects.iter().filter(|object| object.check_in_place().is_err()).count();
    say!(
        "# c75: {buffers_moved} of {} buffers and {objects_moved} of {} objects lie elsewhere",
        buffers.len(),
        objects.len()
    );
    match pool.check_in_place().map_err(|error| error.kind()) {
        Ok(()) if objects_moved == 0 => {}
        Err(PoolErrorKind::Moved { in_use, .. }) if in_use == objects_moved as u64 => {}
        said => fail!("{objects_moved} objects of the pool lie elsewhere: {said:?}"),
    }
    let any = buffers_moved + objects_moved;
    if machine.p2m.is_translated() && any > 0 {
        fail!("a translated guest's frames are what they were");
    }
    if !machine.p2m.is_translated() && any == 0 {
        error!("the restored domain got the very frames that it had");
    }
    Ok(())
}

/// An area in use, and frames that one was left behind on.
struct Areas<'m> {
    machine: &'m Machine,
    area: TestArea<'m>,
    frames: Owned<'m>,
    leftover: Owned<'m>,
}

impl<'m> Areas<'m> {
    fn set(context: &TestContext<'m>) -> Result<Self, TestOutcome> {
        let machine = context.machine;
        let scattered = || {
            let run = Owned::take(machine, FRAMES)?;
            Ok(Owned::of(machine, scatter(machine, run.into_run())?))
        };
        let (frames, leftover) = (scattered()?, scattered()?);
        map(machine, &leftover, "left behind")?.unmap(UnmapMode::Lazy)?;
        frame_checks::dirty(&frames, context.seed);
        frame_checks::dirty(&leftover, context.seed);
        let area = map(machine, &frames, "in use")?;
        Ok(Self { machine, area, frames, leftover })
    }

    /// Checks that both mappings of the frames show what is in them.
    fn check(&self, seed: u64) -> Check {
        let Self { machine, area, frames, leftover } = self;
        for (run, what) in [(frames, "an area's frames"), (leftover, "frames left behind")] {
            frame_checks::agree(machine, run, |_| None)?;
            frame_checks::holds_pattern(run, seed, what)?;
        }
        for (page, pfn) in (0..).zip(frames.iter()) {
            let linear = crate::layout::linear(pfn);
            let (shown, held) = (try_read(area.address() + page * PAGE), try_read(linear));
            if shown.is_err() || shown.ok() != held.ok() {
                fail!("page {page} of {:?} shows other memory than pfn {pfn}", **area);
            }
        }
        Ok(())
    }

    fn end(self) -> Check {
        self.area.unmap(UnmapMode::Lazy)
    }
}
