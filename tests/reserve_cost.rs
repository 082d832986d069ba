//! What a request costs before it is refused: hypercalls, exchanged frames, and idle memory of the
//! reserve.

#![forbid(unsafe_code)]

use fake_xen::{Asked, FakePlatform, GuestBuilder, Logged};
use hypercall::XenErrno;
use xen_contig::addr::{AddressBits, Order, PAGE_SIZE};
use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints, Retain};
use xen_contig::exchange::ExchangeError;
use xen_contig::platform::Platform;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// Frames of the machine. Its highest zone begins at frame 8192.
const MACHINE: u64 = 10_000;
const ZONE: u64 = 8192;

struct CostScene {
    platform: Kernel,
    allocator: Allocator<Kernel>,
    free: u64,
}

/// What a refused request came to.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    calls: usize,
    exchanged: u64,
}

impl CostScene {
    fn new() -> Self {
        let guest = GuestBuilder::new(4096).machine_frames(MACHINE).build();
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let free = platform.free_frames();
        let retain = Retain::Bytes { low: 1 << 20, high: 1 << 21 };
        Self { platform, allocator: Allocator::new(platform, retain), free }
    }

    /// Leaves some memory below 2^25 idle in the reserve. Returns the number of frames.
    fn leave_idle(&self) -> u64 {
        let low = Constraints::builder().mask((1 << 25) - 1).build().unwrap();
        drop(self.allocator.alloc_coherent(64 * PAGE, &low).expect("low memory"));
        let idle = self.allocator.stats().idle;
        assert!(idle >= 64, "{idle}");
        idle
    }

    /// Allocates what is to be refused.
    fn refused(&self, pages: u64, limits: &Constraints) -> (AllocError, Cost) {
        self.platform.guest().xen().take_log();
        let error = match self.allocator.alloc_coherent(pages * PAGE, limits) {
            Ok(buffer) => panic!("{buffer:?} was served"),
            Err(error) => error,
        };
        let log = self.platform.guest().xen().take_log();
        let exchanged = |asked: &Asked| match asked {
            Asked::Exchange { input: (extents, order), .. } => extents << order,
            _ => 0,
        };
        let inside = |call: &Logged| match call.asked {
            Asked::Multicall { entries } => entries,
            _ => 0,
        };
        let calls = log.len() - log.iter().map(inside).sum::<usize>();
        let done = log.iter().filter(|call| call.answer.is_ok());
        (error, Cost { calls, exchanged: done.map(|call| exchanged(&call.asked)).sum() })
    }

    fn above(&self, frame: u64) -> Constraints {
        Constraints::builder().lowest(frame * PAGE).build().unwrap()
    }

    /// Allocates pages until Xen has no free frame in the highest zone.
    fn empty_zone(&self) -> Vec<CoherentBuffer<'_, Kernel>> {
        let above = self.above(ZONE);
        std::iter::from_fn(|| self.allocator.alloc_coherent(PAGE, &above).ok()).collect()
    }

    fn is_balanced(&self) {
        self.allocator.trim(u64::MAX);
        assert_eq!(self.platform.free_frames(), self.free, "{:?}", self.allocator.stats());
        self.platform.guest().check_whole();
    }
}

#[test]
fn a_lower_bound_above_the_machine_moves_nothing() {
    for pages in [1, 3, 64] {
        let scene = CostScene::new();
        let idle = scene.leave_idle();
        for lowest in [MACHINE + 1, MACHINE + 2 - pages, 2 * MACHINE, 1 << 30] {
            let (error, cost) = scene.refused(pages, &scene.above(lowest));
            let expected = AllocError::OutOfReach { lowest: lowest * PAGE, mask: u64::MAX };
            assert_eq!(error, expected);
            assert_eq!(cost, Cost { calls: 1, exchanged: 0 }, "{pages} pages above {lowest}");
            assert_eq!(scene.allocator.stats().idle, idle);
        }
        scene.is_balanced();
    }
}

/// Xen hands out its highest memory first. If that is too low, it has none that is higher.
#[test]
fn a_lower_bound_above_what_xen_has_costs_little() {
    let scene = CostScene::new();
    scene.leave_idle();
    let buffers = scene.empty_zone();
    // What Xen has free there, and what the guest had there.
    assert!(buffers.len() as u64 > (MACHINE - ZONE) / 2, "{}", buffers.len());
    let idle = scene.allocator.stats().idle;
    for _ in 0..3 {
        let (error, cost) = scene.refused(1, &scene.above(ZONE));
        assert!(matches!(error, AllocError::OutOfReach { .. }), "{error}");
        assert!(cost.exchanged <= 64 && cost.calls <= 24, "{cost:?}");
        assert_eq!(scene.allocator.stats().idle, idle);
    }
    drop(buffers);
    scene.is_balanced();
}

/// Within a zone, what Xen hands out first tells nothing of the rest. An eighth of the free memory is held
/// aside on the way, and returned.
#[test]
fn a_search_within_a_zone_returns_what_it_held_aside() {
    let scene = CostScene::new();
    let top = scene.above(MACHINE - 1);
    let _owner = scene.allocator.alloc_coherent(PAGE, &top);
    let idle = scene.leave_idle();
    let free = scene.platform.free_frames();
    for _ in 0..3 {
        let (error, cost) = scene.refused(1, &top);
        assert!(matches!(error, AllocError::OutOfReach { .. }), "{error}");
        assert!(cost.calls <= 100 && cost.exchanged <= 2 * free / 8, "{cost:?}");
        let stats = scene.allocator.stats();
        assert!(stats.idle == idle && scene.platform.free_frames() >= free, "{free}: {stats:?}");
    }
}

#[test]
fn a_mask_that_xen_cannot_be_told_returns_what_it_held_aside() {
    let scene = CostScene::new();
    // Nothing below 2^25 is free, and what lies above it and below 2^26 is not within the mask.
    scene.platform.guest().exhaust_below(AddressBits::new(25).unwrap());
    let mask = Constraints::builder().mask((1 << 25) + 0xfff).build().unwrap();
    let own = std::iter::from_fn(|| scene.allocator.alloc_coherent(PAGE, &mask).ok());
    let own: Vec<_> = own.collect();
    let idle = scene.allocator.stats().idle;
    let (_, cost) = scene.refused(1, &mask);
    assert!(cost.calls <= 150, "{cost:?}");
    assert_eq!(scene.allocator.stats().idle, idle);
    drop(own);
    scene.platform.guest().relieve();
    scene.is_balanced();
}

/// Xen has nothing below the highest power of two within the mask. What it has above is out of reach, and
/// one extent of it is more than may be held aside.
#[test]
fn a_reach_between_two_powers_of_two_is_refused_with_the_answer_of_xen() {
    let scene = CostScene::new();
    scene.platform.guest().exhaust_below(AddressBits::new(24).unwrap());
    let taken = std::iter::from_fn(|| scene.platform.take(1, 1)).collect::<Vec<_>>();
    let (given, used): (Vec<_>, Vec<_>) =
        taken.into_iter().partition(|run| (1024..2048).contains(&run.first().number()));
    given.into_iter().for_each(|run| scene.platform.give(run));
    let within = Constraints::builder().mask((1 << 24) + (1 << 20) - 1).build().unwrap();
    let (error, _) = scene.refused(512, &within);
    assert!(
        matches!(
            error,
            AllocError::Exchange(
                ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. }
            )
        ),
        "{error}"
    );
    used.into_iter().for_each(|run| scene.platform.give(run));
    scene.platform.guest().relieve();
    scene.is_balanced();
}

/// Nothing tells a frame that Xen refuses from a Xen that refuses all.
#[test]
fn a_xen_that_refuses_every_frame_is_asked_a_few_times() {
    let scene = CostScene::new();
    scene.platform.guest().deny_exchange(Some(XenErrno::EINVAL));
    for order in [0, 3, 6] {
        let order = Order::new(order).unwrap();
        let low = Constraints::builder().mask((1 << 22) - 1).build().unwrap();
        let (error, cost) = scene.refused(order.frames(), &low);
        assert!(matches!(error, AllocError::Exchange(_)), "{error}");
        assert!(cost.calls <= 100, "{order}: {cost:?}");
    }
    scene.platform.guest().deny_exchange(None);
    scene.is_balanced();
}
