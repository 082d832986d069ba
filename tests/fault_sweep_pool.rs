//! Every hypercall of every operation of the pools fails once, with each errno that it may give, and
//! every exchange goes wrong on the inside in every way that the model knows: each frame is
//! accounted for afterwards, all books agree, objects that were handed out before and a buffer of
//! somebody else's are intact, and the pool goes on.

#![forbid(unsafe_code)]

#[path = "faults/arm.rs"]
mod arm;
mod faults;

use std::collections::HashSet;

use fake_xen::{FakeGuest, GuestBuilder, LINEAR, POISON};
use faults::{Case, Tally, Wrong, sweep};
use fuzz::scene::CheckedKernel;
use hypercall::Order;
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::dma::{
    Allocator, AtomicPool, Backing, CoherentBuffer, Constraints, GiveBack, Pool, PoolConfig,
    PoolError, PoolObject,
};
use xen_contig::exchange::Accounts;
use xen_contig::paging::Width;
use xen_contig::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// Frames of a chunk, and objects cut from it.
const CHUNK: u64 = 16;
const OBJECTS: u64 = 16;

/// What is done while something is wrong.
#[derive(Clone, Copy, Debug)]
enum PoolAct {
    /// An atomic pool of two chunks is made.
    Build,
    /// One that has nothing left is refilled by two chunks.
    Refill,
    /// One that nobody has anything of is dropped.
    Drop,
    /// One of which an object was forgotten in the first of two chunks is trimmed.
    Trim,
    /// A pool grows as its objects are taken: a chunk, and another.
    Grow,
}

/// A guest in which things go wrong.
#[derive(Clone, Copy, Debug)]
struct PoolSetting {
    act: PoolAct,
    policy: GiveBack,
    translated: bool,
    /// Whether Xen has no extent as large as a chunk.
    fragmented: bool,
}

type Model<'k, 'g> = &'k CheckedKernel<'g>;

struct Stage<'k, 'g> {
    guest: &'g FakeGuest,
    kernel: &'k CheckedKernel<'g>,
    allocator: &'k Allocator<Model<'k, 'g>>,
    others: CoherentBuffer<'k, Model<'k, 'g>>,
    total: u64,
}

fn quarantined<'k>(kernel: &'k &CheckedKernel<'_>) -> &'k Accounts {
    kernel.accounts()
}

fn page_of(object: &PoolObject<'_, Model<'_, '_>>) -> Pfn {
    Pfn::new((object.as_ptr().as_ptr() as u64 - LINEAR) / PAGE)
}

impl PoolSetting {
    fn config(&self) -> PoolConfig {
        let backing = if self.translated { Backing::OneExtent } else { Backing::Whatever };
        let constraints = Constraints::builder().backing(backing).build().unwrap();
        let config = PoolConfig::builder(PAGE).align(8).constraints(constraints);
        config.chunk(CHUNK * PAGE).reserve(2 * OBJECTS).build().unwrap()
    }

    fn play(&self, wrong: Option<&Wrong>) -> Case {
        let builder = GuestBuilder::new(256);
        let guest = if self.translated { builder.translated().build() } else { builder.build() };
        let mut bitmap = Vec::new();
        let kernel = CheckedKernel::new(&guest, &mut bitmap);
        guest.paint();
        let allocator = Allocator::new(&kernel, self.policy);
        let total = kernel.free_frames();
        let others = allocator.alloc_coherent(8 * PAGE, &Constraints::default()).unwrap();
        others.frames().iter().for_each(|pfn| guest.fill(pfn, 0x07e5));
        let stage = Stage { guest: &guest, kernel: &kernel, allocator: &allocator, others, total };
        let case = match self.act {
            PoolAct::Build => stage.build(self, wrong),
            PoolAct::Refill => stage.refill(self, wrong),
            PoolAct::Drop => stage.drop(self, wrong),
            PoolAct::Trim => stage.trim(self, wrong),
            PoolAct::Grow => stage.grow(self, wrong),
        };
        stage.finish(if matches!(self.act, PoolAct::Trim) { CHUNK } else { 0 });
        assert!(case.met || case.quarantined == 0, "lost without a cause: {case:?}");
        assert_eq!(quarantined(&(&kernel)).quarantined(), case.quarantined, "lost afterwards");
        case
    }
}

impl<'k, 'g> Stage<'k, 'g> {
    fn arm(&self, setting: &PoolSetting, wrong: Option<&Wrong>) {
        if setting.fragmented {
            self.guest.fragment(Order::new(4).unwrap());
        }
        wrong.into_iter().for_each(|wrong| arm::arm(wrong, self.guest));
    }

    /// Ends what is wrong, and looks at every frame: `pool` of them are in chunks.
    fn judge<E: ToString>(
        &self,
        pool: u64,
        objects: &[PoolObject<'_, Model<'k, 'g>>],
        answer: Result<(), E>,
    ) -> Case {
        let met = self.guest.xen().disarm() > 0;
        self.guest.relieve();
        self.count(pool);
        let free: HashSet<Pfn> = self.kernel.free().into_iter().collect();
        for (index, object) in (0..).zip(objects) {
            let page = page_of(object);
            assert!(!free.contains(&page), "{object:?} is free");
            assert_eq!(object.load(8, Width::Quad), Ok(0xcafe + index), "{object:?}");
            assert_eq!(object.check_in_place(), Ok(()));
        }
        let quarantined = quarantined(&self.kernel).quarantined();
        Case { met, answer: answer.map_err(|error| error.to_string()), quarantined }
    }

    fn count(&self, pool: u64) {
        let (free, census) = (self.kernel.free(), self.guest.check());
        let waiting = self.allocator.stats().waiting;
        let quarantined = quarantined(&self.kernel).quarantined();
        let places = [free.len() as u64, waiting, quarantined, pool, 8];
        let sum: u64 = places.iter().sum();
        assert_eq!(sum, self.total, "free, waiting, quarantined, pool's, others': {places:?}");
        for pfn in &free {
            assert!(self.guest.mfn(*pfn).is_some(), "{pfn} is free and a hole");
            assert_ne!(self.guest.uniform(*pfn), Some(POISON), "{pfn} holds another's bytes");
        }
        let lost = census.holes.len() + census.unmapped.len();
        assert!(lost as u64 <= quarantined, "{census:?}");
        assert!(self.others.frames().iter().all(|pfn| self.guest.uniform(pfn) == Some(0x07e5)));
        assert_eq!(self.others.check_in_place(), Ok(()));
        assert_eq!(self.guest.given_up_dirty(), 0);
    }

    fn atomic<E: std::fmt::Debug>(
        &self,
        made: Result<AtomicPool<'k, Model<'k, 'g>, 4>, E>,
    ) -> AtomicPool<'k, Model<'k, 'g>, 4> {
        made.expect("nothing is wrong")
    }

    fn build(&self, setting: &PoolSetting, wrong: Option<&Wrong>) -> Case {
        self.arm(setting, wrong);
        let made = AtomicPool::<_, 4>::new(self.allocator, &setting.config());
        match made {
            Ok(pool) => {
                let case = self.judge(2 * CHUNK, &[], Ok::<(), String>(()));
                let objects = fill(2 * OBJECTS, || pool.alloc().unwrap());
                self.judge(2 * CHUNK, &objects, Ok::<(), String>(()));
                case
            }
            Err(error) => {
                let case = self.judge(0, &[], Err(error));
                drop(self.atomic(AtomicPool::new(self.allocator, &setting.config())));
                case
            }
        }
    }

    fn refill(&self, setting: &PoolSetting, wrong: Option<&Wrong>) -> Case {
        let pool = self.atomic(AtomicPool::new(self.allocator, &setting.config()));
        let mut objects = fill(2 * OBJECTS, || pool.alloc().unwrap());
        self.arm(setting, wrong);
        let refill = pool.refill();
        let added = refill.unwrap_or_else(|error| match error {
            PoolError::Alloc { added, .. } => added,
            error => panic!("{error}"),
        });
        assert_eq!(pool.capacity(), 2 * OBJECTS + added);
        let case = self.judge(2 * CHUNK + added / OBJECTS * CHUNK, &objects, refill.map(|_| ()));
        assert_eq!(pool.refill(), Ok(2 * OBJECTS - added), "once nothing is wrong any more");
        let first = objects.len() as u64;
        objects.extend(fill_from(first, 2 * OBJECTS, || pool.alloc().unwrap()));
        self.judge(4 * CHUNK, &objects, Ok::<(), String>(()));
        case
    }

    fn drop(&self, setting: &PoolSetting, wrong: Option<&Wrong>) -> Case {
        let pool = self.atomic(AtomicPool::new(self.allocator, &setting.config()));
        drop(fill(2 * OBJECTS, || pool.alloc().unwrap()));
        self.arm(setting, wrong);
        drop(pool);
        self.judge(0, &[], Ok::<(), String>(()))
    }

    fn trim(&self, setting: &PoolSetting, wrong: Option<&Wrong>) -> Case {
        let mut pool = self.atomic(AtomicPool::new(self.allocator, &setting.config()));
        let object = pool.alloc().unwrap();
        let page = page_of(&object);
        std::mem::forget(object);
        self.arm(setting, wrong);
        assert_eq!(pool.trim(), OBJECTS);
        let case = self.judge(CHUNK, &[], Ok::<(), String>(()));
        assert_eq!(pool.refill(), Ok(2 * OBJECTS));
        assert!(!self.kernel.free().contains(&page), "a device may still write there");
        case
    }

    fn grow(&self, setting: &PoolSetting, wrong: Option<&Wrong>) -> Case {
        let pool = Pool::<_, 2>::new(self.allocator, &setting.config()).unwrap();
        self.arm(setting, wrong);
        let (mut objects, mut refused) = (Vec::new(), Ok(()));
        // Past a refusal it goes on: the next object is a reason to ask again.
        for index in 0..OBJECTS + 2 {
            match pool.alloc() {
                Ok(mut object) => {
                    object.store(8, Width::Quad, 0xcafe + objects.len() as u64).unwrap();
                    objects.push(object);
                }
                Err(error) => refused = Err(format!("object {index}: {error}")),
            }
        }
        let chunks = pool.capacity() / OBJECTS;
        let case = self.judge(chunks * CHUNK, &objects, refused);
        let first = objects.len() as u64;
        objects.extend(fill_from(first, 2 * OBJECTS - first, || pool.alloc().unwrap()));
        self.judge(2 * CHUNK, &objects, Ok::<(), String>(()));
        case
    }

    /// All that nobody has is given back: but for a `leak`, what is not quarantined is free.
    fn finish(self, leak: u64) {
        let report = self.allocator.give_back_waiting();
        assert_eq!((report.kept, report.error), (0, None), "{report:?}");
        self.count(leak);
    }
}

/// Takes objects and writes to each.
fn fill<'p, P: Platform>(
    count: u64,
    next: impl FnMut() -> PoolObject<'p, P>,
) -> Vec<PoolObject<'p, P>> {
    fill_from(0, count, next)
}

fn fill_from<'p, P: Platform>(
    first: u64,
    count: u64,
    mut next: impl FnMut() -> PoolObject<'p, P>,
) -> Vec<PoolObject<'p, P>> {
    let fill = |index| {
        let mut object = next();
        assert_eq!(object.load(8, Width::Quad), Ok(0), "{object:?} is not zeroed");
        object.store(8, Width::Quad, 0xcafe + index).unwrap();
        object
    };
    (first..first + count).map(fill).collect()
}

fn sweep_all(act: PoolAct) {
    let mut sum = Tally::default();
    for (name, policy, translated, fragmented) in [
        ("at once", GiveBack::AtOnce, false, false),
        ("later", GiveBack::Later, false, false),
        ("kept", GiveBack::Keep, false, false),
        ("without an extent", GiveBack::AtOnce, false, true),
        ("translated", GiveBack::AtOnce, true, false),
        ("translated, without an extent", GiveBack::AtOnce, true, true),
    ] {
        let setting = PoolSetting { act, policy, translated, fragmented };
        let name = format!("pool {act:?} {name}");
        // What makes no hypercall can't meet a fault.
        let gives = matches!(act, PoolAct::Drop | PoolAct::Trim);
        if gives && (policy != GiveBack::AtOnce || translated) {
            let case = setting.play(Some(&Wrong::Call {
                call: 1,
                errno: hypercall::XenErrno::EPERM,
                after: 0,
            }));
            assert!(!case.met, "{name}: a hypercall was made");
            continue;
        }
        sum += sweep(&name, translated, |wrong| setting.play(wrong));
    }
    let Tally { cases, refused, quarantined } = sum;
    println!("{act:?} of pools: {cases} cases, {refused} refused, {quarantined} quarantined");
    assert!(cases > 0 && quarantined > 0, "{sum:?}");
    assert_eq!(refused > 0, !matches!(act, PoolAct::Drop | PoolAct::Trim), "{sum:?}");
}

#[test]
fn build() {
    sweep_all(PoolAct::Build);
}

#[test]
fn refill() {
    sweep_all(PoolAct::Refill);
}

#[test]
fn dropped() {
    sweep_all(PoolAct::Drop);
}

#[test]
fn trim() {
    sweep_all(PoolAct::Trim);
}

#[test]
fn grow() {
    sweep_all(PoolAct::Grow);
}
