//! [C75](xen_contig::conformance#C75): after the domain was saved and restored, other machine
//! frames back its memory.

use alloc::vec::Vec;

use xen_contig::addr::Gfn;
use xen_contig::dma::{
    BufferError, Constraints, Device, Pool, PoolConfig, PoolErrorKind, PoolObject, Retain,
};
use xen_contig::vmap::UnmapMode;

use crate::command_line::When;
use crate::events;
use crate::machine::Machine;
use crate::say;
use crate::selftest::dma::helpers::{
    Allocator, Buffer, PAGE, balanced, build, fill, holds, is_sound, scatter, served,
};
use crate::selftest::owned::OwnedRun;
use crate::selftest::vmap::map;
use crate::selftest::vmap::test_area::TestArea;
use crate::selftest::{Check, Test, TestContext, TestOutcome, error, fail, frame_checks, skip};
use crate::suspend::{Resumed, SaveRequests};
use crate::time::Deadline;
use crate::traps::try_read;
use crate::vcpu;

/// How many seconds the test waits for the toolstack.
const TIMEOUT_SECONDS: u64 = 300;

/// How many times the domain may continue without a restore.
const KEPT: u32 = 8;

/// The sizes of the buffers in bytes.
const SIZES: [u64; 4] = [1, PAGE + 1, 64 << 10, 2 << 20];

/// The number of objects of the pool whose addresses a device has.
const OBJECTS: usize = 24;

/// The size of an object in bytes.
const OBJECT: u64 = 512;

/// The number of frames of an area in use, and of a leftover area.
const FRAMES: u64 = 4;

pub fn add(tests: &mut Vec<Test>) {
    // The test needs a toolstack that saves the domain.
    tests.push(Test::new("c75-save-and-restore", saved).when(When::Named));
}

fn saved(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let areas = machine.areas.stats().live;
    // Freed memory stays in the reserve. After the restore the allocator must notice that it does
    // not fit any more.
    balanced(context, Retain::default(), |allocator| {
        let constraints = build(|it| it.mask((1 << 36) - 1))?;
        let device = match Device::new(allocator, "c75", &constraints) {
            Ok(device) => device,
            Err(error) => fail!("making a device: {error}"),
        };
        let config = PoolConfig::builder("c75", OBJECT).build();
        let mut pool = match config.and_then(|config| Pool::new(&device, config)) {
            Ok(pool) => pool,
            Err(error) => fail!("making a pool: {error}"),
        };
        {
            let objects = objects(&pool)?;
            let buffers = buffers(context, allocator, &constraints)?;
            let areas = SavedAreas::set(context)?;
            let result = until_restored(machine, || {
                buffers.iter().try_for_each(|buffer| buffer.check(machine, context.seed))?;
                areas.check(context.seed)
            });
            let result = result.and_then(|()| moved(machine, &buffers, &pool, &objects));
            areas.end()?;
            result?;
        }
        // Memory that moved has become ordinary memory, and the addresses from here on are valid.
        pool.trim();
        for len in SIZES {
            let served = served(allocator.alloc_coherent(len, &constraints), "c75", "anew")?;
            served.map_or(Ok(()), |buffer| is_sound(machine, &buffer, len, &constraints))?;
        }
        for object in &objects(&pool)? {
            if let Err(moved) = object.check_in_place() {
                fail!(
                    "after the restore the pool handed out an object that moved, {object:?}: \
                     {moved}"
                );
            }
        }
        Ok(())
    })?;
    if machine.areas.stats().live != areas {
        fail!("areas in use before: {areas:?}, now: {:?}", machine.areas.stats());
    }
    Ok(())
}

/// Lets the toolstack save the domain until it has been restored. Runs `check` after each time.
fn until_restored(machine: &Machine, check: impl Fn() -> Check) -> Check {
    for _ in 0..=KEPT {
        let requests = match SaveRequests::open(machine) {
            Ok(requests) => requests,
            Err(error) => skip!("{error}"),
        };
        say!("# c75: ready to be saved");
        if !requests.wait(Deadline::in_seconds(TIMEOUT_SECONDS)) {
            error!("the domain was not saved in {TIMEOUT_SECONDS} s; save it with `xl save`");
        }
        let resumed = match requests.suspend() {
            Ok(resumed) => resumed,
            Err(error) => fail!("suspending the domain: {error}"),
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
            fail!("an event that the vCPU sent to itself did not arrive in 10 s");
        }
        events::nap();
    }
    Ok(())
}

/// A buffer, and the frames that backed it when a device received its addresses.
struct SavedBuffer<'a, 'm> {
    buffer: Buffer<'a, 'm>,
    gfns: Vec<Option<Gfn>>,
}

impl SavedBuffer<'_, '_> {
    /// Checks that the guest's tables agree with Xen's, that the buffer contains its pattern, and
    /// that it reports correctly whether it moved.
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
            (page, said) => fail!(
                "the first page of {buffer:?} that moved is {page:?}, but the buffer reports \
                 {said:?}"
            ),
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
        skip!("guest or Xen has no memory for any buffer");
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

/// Counts the buffers and objects that moved, and checks what the pool reports.
///
/// In PV some must have moved, otherwise nothing was tested. In a translated guest none may move,
/// because devices use guest frames.
fn moved(
    machine: &Machine,
    buffers: &[SavedBuffer<'_, '_>],
    pool: &Pool<'_, &Machine>,
    objects: &[PoolObject<'_, &Machine>],
) -> Check {
    let buffers_moved = buffers.iter().filter(|told| told.buffer.check_in_place().is_err()).count();
    let objects_moved = objects.iter().filter(|object| object.check_in_place().is_err()).count();
    say!(
        "# c75: {buffers_moved} of {} buffers and {objects_moved} of {} objects moved",
        buffers.len(),
        objects.len()
    );
    match pool.check_in_place().map_err(|error| error.kind()) {
        Ok(()) if objects_moved == 0 => {}
        Err(PoolErrorKind::Moved { in_use, .. }) if in_use == objects_moved as u64 => {}
        said => fail!("{objects_moved} objects of the pool moved, but the pool reports {said:?}"),
    }
    let any = buffers_moved + objects_moved;
    if machine.p2m.is_translated() && any > 0 {
        fail!("{any} buffers and objects of a translated guest moved, expected none");
    }
    if !machine.p2m.is_translated() && any == 0 {
        error!("the restored domain has the same frames as before, so nothing was tested");
    }
    Ok(())
}

/// An area in use, and frames with a leftover.
struct SavedAreas<'m> {
    machine: &'m Machine,
    area: TestArea<'m>,
    frames: OwnedRun<'m>,
    leftover: OwnedRun<'m>,
}

impl<'m> SavedAreas<'m> {
    fn set(context: &TestContext<'m>) -> Result<Self, TestOutcome> {
        let machine = context.machine;
        let scattered = || {
            let run = OwnedRun::take(machine, FRAMES)?;
            Ok(OwnedRun::of(machine, scatter(machine, run.into_run())?))
        };
        let (frames, leftover) = (scattered()?, scattered()?);
        map(machine, &leftover, "left behind")?.unmap(UnmapMode::Lazy)?;
        frame_checks::dirty(&frames, context.seed);
        frame_checks::dirty(&leftover, context.seed);
        let area = map(machine, &frames, "in use")?;
        Ok(Self { machine, area, frames, leftover })
    }

    /// Checks that both mappings of the frames read the same contents.
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
                fail!("page {page} of {:?} does not map pfn {pfn}", **area);
            }
        }
        Ok(())
    }

    fn end(self) -> Check {
        self.area.unmap(UnmapMode::Lazy)
    }
}
