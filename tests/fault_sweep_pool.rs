//! Faults in every operation of a pool.
//!
//! Every hypercall fails once with each errno, and every exchange fails inside Xen in every way that
//! the model knows. Afterwards each frame is counted, and P2M, M2P and page tables agree. Older
//! objects and another driver's buffer are intact, and the pool still works.

#![forbid(unsafe_code)]

#[path = "faults/arm.rs"]
mod arm;
mod faults;

use std::collections::HashSet;

use fake_xen::{FakeGuest, GuestBuilder, POISON};
use faults::{Case, InjectedFault, Tally, sweep};
use fuzz::scene::CheckedKernel;
use hypercall::Order;
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::dma::{
    Allocator, Backing, CoherentBuffer, Constraints, Device, Pool, PoolConfig, PoolErrorKind,
    PoolObject, PoolStatistics, Retain,
};
use xen_contig::exchange::Accounts;
use xen_contig::paging::GuestMemory;
use xen_contig::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The frames of a chunk.
const CHUNK: u64 = 16;
/// The objects of a chunk.
const OBJECTS: u64 = 16;

/// The operation that meets the fault.
#[derive(Clone, Copy, Debug)]
enum PoolOperation {
    /// Makes a pool with a reserve of two chunks.
    Build,
    /// Refills a pool by two chunks. All its objects are in use.
    Refill,
    /// Drops a pool that has no object in use.
    Drop,
    /// Trims a pool that has a forgotten object in the first of two chunks.
    Trim,
    /// Allocates objects, so that the pool grows by two chunks.
    Grow,
}

/// The guest that meets the fault.
#[derive(Clone, Copy, Debug)]
struct PoolSetting {
    operation: PoolOperation,
    retain: Retain,
    translated: bool,
    /// Whether Xen exchanges memory of translated guests.
    permitted: bool,
    /// Whether Xen has no extent as large as a chunk.
    fragmented: bool,
}

type Model<'k, 'g> = &'k CheckedKernel<'g>;

/// A guest, its kernel and allocator, and another driver's buffer.
struct PoolScene<'k, 'g> {
    guest: &'g FakeGuest,
    kernel: &'k CheckedKernel<'g>,
    allocator: &'k Allocator<Model<'k, 'g>>,
    device: &'k Device<'k, Model<'k, 'g>>,
    others: CoherentBuffer<'k, Model<'k, 'g>>,
    total: u64,
}

fn quarantined<'k>(kernel: &'k &CheckedKernel<'_>) -> &'k Accounts {
    kernel.accounts()
}

impl PoolSetting {
    fn constraints(&self) -> Constraints {
        let backing = if self.translated { Backing::OneExtent } else { Backing::Any };
        Constraints::builder().backing(backing).build().unwrap()
    }

    fn config(&self) -> PoolConfig {
        let config = PoolConfig::builder("swept", PAGE);
        config.chunk(CHUNK * PAGE).reserve(2 * OBJECTS).build().unwrap()
    }

    /// Returns the configuration of a pool without a reserve and with at most two chunks.
    fn growing(&self) -> PoolConfig {
        let config = PoolConfig::builder("growing", PAGE);
        config.chunk(CHUNK * PAGE).limit(2 * OBJECTS).build().unwrap()
    }

    /// Runs the operation with a fault.
    fn run(&self, fault: Option<&InjectedFault>) -> Case {
        let builder = GuestBuilder::new(256).record_memory();
        let guest = if self.translated { builder.translated().build() } else { builder.build() };
        guest.permit_translated_exchange(self.permitted);
        let mut bitmap = Vec::new();
        let kernel = CheckedKernel::new(&guest, &mut bitmap);
        guest.paint();
        // Allocator and device are leaked because the buffers borrow them as long as these borrow the kernel.
        let allocator: &_ = Box::leak(Box::new(Allocator::new(&kernel, self.retain)));
        let device = Device::new(allocator, "swept", &self.constraints()).unwrap();
        let device: &_ = Box::leak(Box::new(device));
        let total = kernel.free_frames();
        let others = allocator.alloc_coherent(8 * PAGE, &Constraints::default()).unwrap();
        others.frames().iter().for_each(|pfn| guest.fill(pfn, 0x07e5));
        let scene = PoolScene { guest: &guest, kernel: &kernel, allocator, device, others, total };
        let case = match self.operation {
            PoolOperation::Build => scene.build(self, fault),
            PoolOperation::Refill => scene.refill(self, fault),
            PoolOperation::Drop => scene.drop(self, fault),
            PoolOperation::Trim => scene.trim(self, fault),
            PoolOperation::Grow => scene.grow(self, fault),
        };
        scene.finish();
        assert!(case.met || case.quarantined == 0, "quarantined without a fault: {case:?}");
        let afterwards = quarantined(&(&kernel)).quarantined();
        assert_eq!(afterwards, case.quarantined, "quarantined after the fault");
        case
    }
}

impl<'k, 'g> PoolScene<'k, 'g> {
    fn arm(&self, setting: &PoolSetting, fault: Option<&InjectedFault>) {
        if setting.fragmented {
            self.guest.fragment(Order::new(4).unwrap());
        }
        fault.into_iter().for_each(|fault| arm::arm(fault, self.guest));
    }

    fn pool(&self, setting: &PoolSetting) -> Pool<'k, Model<'k, 'g>> {
        Pool::new(self.device, setting.config()).expect("no fault is armed")
    }

    fn page_of(&self, object: &PoolObject<'_, Model<'k, 'g>>) -> Pfn {
        let linear = self.guest.pointer(Pfn::new(0)).addr();
        Pfn::new((object.as_ptr().addr().get() - linear) as u64 / PAGE)
    }

    /// Disarms the fault, and checks every frame and object. The pool has `chunks` chunks.
    fn check<E: ToString>(
        &self,
        pool: Option<&Pool<'k, Model<'k, 'g>>>,
        chunks: u64,
        objects: &[PoolObject<'_, Model<'k, 'g>>],
        answer: Result<(), E>,
    ) -> Case {
        let met = self.guest.xen().disarm() > 0;
        self.guest.relieve();
        let frames = pool.map_or(0, |pool| {
            let PoolStatistics { chunk_frames, record_frames, .. } = pool.statistics();
            assert_eq!((chunk_frames, record_frames), (chunks * CHUNK, 1));
            chunk_frames + record_frames
        });
        self.check_frames(frames);
        let free: HashSet<Pfn> = self.kernel.free().into_iter().collect();
        for (index, object) in (0..).zip(objects) {
            let page = self.page_of(object);
            assert!(!free.contains(&page), "{object:?} is free");
            assert_eq!(object.load::<u64>(8), Ok(0xcafe + index), "{object:?}");
            assert_eq!(object.check_in_place(), Ok(()));
        }
        let quarantined = quarantined(&self.kernel).quarantined();
        Case { met, answer: answer.map_err(|error| error.to_string()), quarantined }
    }

    /// Checks that every frame is in one place. `pool` frames are in pools.
    fn check_frames(&self, pool: u64) {
        let (free, census) = (self.kernel.free(), self.guest.check());
        let stats = self.allocator.stats();
        let reserve = stats.idle + stats.set_aside + stats.records;
        let quarantined = quarantined(&self.kernel).quarantined();
        let places = [free.len() as u64, reserve, quarantined, pool, 8];
        let sum: u64 = places.iter().sum();
        assert_eq!(
            sum, self.total,
            "free, in the reserve, quarantined, in pools, in the buffer: {places:?}"
        );
        for pfn in &free {
            assert!(self.guest.mfn(*pfn).is_some(), "{pfn} is free and not populated");
            assert_ne!(self.guest.uniform(*pfn), Some(POISON), "{pfn} has another domain's bytes");
        }
        let lost = census.holes.len() + census.unmapped.len();
        assert!(lost as u64 <= quarantined, "{census:?}");
        assert!(self.others.frames().iter().all(|pfn| self.guest.uniform(pfn) == Some(0x07e5)));
        assert_eq!(self.others.check_in_place(), Ok(()));
        assert_eq!(self.guest.given_up_dirty(), 0);
    }

    fn build(&self, setting: &PoolSetting, fault: Option<&InjectedFault>) -> Case {
        self.arm(setting, fault);
        match Pool::new(self.device, setting.config()) {
            Ok(pool) => {
                let case = self.check(Some(&pool), 2, &[], Ok::<(), String>(()));
                let objects = fill(2 * OBJECTS, || pool.alloc_atomic().unwrap());
                self.check(Some(&pool), 2, &objects, Ok::<(), String>(()));
                case
            }
            Err(error) => {
                let case = self.check(None, 0, &[], Err(error));
                drop(self.pool(setting));
                case
            }
        }
    }

    fn refill(&self, setting: &PoolSetting, fault: Option<&InjectedFault>) -> Case {
        let pool = self.pool(setting);
        let mut objects = fill(2 * OBJECTS, || pool.alloc_atomic().unwrap());
        self.arm(setting, fault);
        let refill = pool.refill();
        let added = refill.unwrap_or_else(|error| match error.kind() {
            PoolErrorKind::Alloc { added, .. } => added,
            _ => panic!("{error}"),
        });
        let chunks = 2 + added / OBJECTS;
        let case = self.check(Some(&pool), chunks, &objects, refill.map(|_| ()));
        assert_eq!(pool.refill(), Ok(2 * OBJECTS - added), "the next refill succeeds");
        let first = objects.len() as u64;
        objects.extend(fill_from(first, 2 * OBJECTS, || pool.alloc_atomic().unwrap()));
        self.check(Some(&pool), 4, &objects, Ok::<(), String>(()));
        case
    }

    fn drop(&self, setting: &PoolSetting, fault: Option<&InjectedFault>) -> Case {
        let pool = self.pool(setting);
        drop(fill(2 * OBJECTS, || pool.alloc_atomic().unwrap()));
        self.arm(setting, fault);
        drop(pool);
        self.check(None, 0, &[], Ok::<(), String>(()))
    }

    fn trim(&self, setting: &PoolSetting, fault: Option<&InjectedFault>) -> Case {
        let mut pool = self.pool(setting);
        let object = pool.alloc_atomic().unwrap();
        let page = self.page_of(&object);
        std::mem::forget(object);
        self.arm(setting, fault);
        assert_eq!(pool.trim(), OBJECTS);
        let case = self.check(Some(&pool), 1, &[], Ok::<(), String>(()));
        assert_eq!((pool.statistics().objects, pool.statistics().in_use), (OBJECTS, 1));
        // 15 objects are available, and the reserve is 32 objects. So the refill adds two chunks.
        assert_eq!(pool.refill(), Ok(2 * OBJECTS));
        assert!(
            !self.kernel.free().contains(&page),
            "a device may still write to the forgotten object"
        );
        drop(pool);
        assert_eq!(self.lost(), CHUNK);
        case
    }

    fn grow(&self, setting: &PoolSetting, fault: Option<&InjectedFault>) -> Case {
        let pool = Pool::new(self.device, setting.growing())
            .expect("a pool without a reserve allocates nothing");
        self.arm(setting, fault);
        let (mut objects, mut refused) = (Vec::new(), Ok(()));
        // After a refusal the next allocation tries to grow the pool again.
        for index in 0..OBJECTS + 2 {
            match pool.alloc() {
                Ok(mut object) => {
                    object.store(8, 0xcafe + objects.len() as u64).unwrap();
                    objects.push(object);
                }
                Err(error) => refused = Err(format!("object {index}: {error}")),
            }
        }
        let chunks = pool.statistics().chunks;
        let case = self.check(Some(&pool), chunks, &objects, refused);
        let first = objects.len() as u64;
        objects.extend(fill_from(first, 2 * OBJECTS - first, || pool.alloc().unwrap()));
        self.check(Some(&pool), 2, &objects, Ok::<(), String>(()));
        case
    }

    /// Returns the number of frames in chunks that outlived their pools.
    fn lost(&self) -> u64 {
        self.device.report().live().map(|chunk| chunk.len / PAGE).sum()
    }

    /// Trims, and checks every frame after all pools are dropped.
    fn finish(self) {
        let report = self.allocator.trim(u64::MAX);
        assert_eq!((self.allocator.stats().idle, report.error), (0, None), "{report:?}");
        self.check_frames(self.lost());
    }
}

/// Allocates objects, checks that they are zeroed, and writes to each.
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
        assert_eq!(object.load(8), Ok(0_u64), "{object:?} is not zeroed");
        object.store(8, 0xcafe + index).unwrap();
        object
    };
    (first..first + count).map(fill).collect()
}

fn sweep_all(operation: PoolOperation) {
    let mut sum = Tally::default();
    let pv = PoolSetting {
        operation,
        retain: Retain::NOTHING,
        translated: false,
        permitted: false,
        fragmented: false,
    };
    let translated = PoolSetting { translated: true, ..pv };
    let permitted = PoolSetting { permitted: true, ..translated };
    for (name, setting) in [
        ("retaining nothing", pv),
        (
            "retaining 64 KiB",
            PoolSetting { retain: Retain::Bytes { low: 0, high: 64 << 10 }, ..pv },
        ),
        ("retaining by default", PoolSetting { retain: Retain::default(), ..pv }),
        ("without an extent", PoolSetting { fragmented: true, ..pv }),
        ("translated", translated),
        ("translated, without an extent", PoolSetting { fragmented: true, ..translated }),
        ("translated, exchange permitted", permitted),
    ] {
        let name = format!("pool {operation:?} {name}");
        // A drop and a trim make no hypercall, so they meet no fault.
        if matches!(operation, PoolOperation::Drop | PoolOperation::Trim) {
            let case = setting.run(Some(&InjectedFault::Call {
                call: 1,
                errno: hypercall::XenErrno::EPERM,
                after: 0,
            }));
            assert!(!case.met, "{name}: the operation made a hypercall");
            continue;
        }
        sum += sweep(&name, setting.translated, |fault| setting.run(fault));
    }
    let Tally { cases, refused, quarantined } = sum;
    println!("{operation:?} of pools: {cases} cases, {refused} refused, {quarantined} quarantined");
    if !matches!(operation, PoolOperation::Drop | PoolOperation::Trim) {
        assert!(cases > 0 && refused > 0 && quarantined > 0, "{sum:?}");
    }
}

#[test]
fn build() {
    sweep_all(PoolOperation::Build);
}

#[test]
fn refill() {
    sweep_all(PoolOperation::Refill);
}

#[test]
fn dropped() {
    sweep_all(PoolOperation::Drop);
}

#[test]
fn trim() {
    sweep_all(PoolOperation::Trim);
}

#[test]
fn grow() {
    sweep_all(PoolOperation::Grow);
}
