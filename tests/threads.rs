//! Host threads as vCPUs, which share an allocator and virtual areas.
//!
//! The model fails a test that accesses memory through a stale translation.

#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use fake_xen::{AreaConfig, Asked, FakePlatform, GuestBuilder, run_on};
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints, Retain};
use xen_contig::exchange::ExchangeError;
use xen_contig::platform::Platform;
use xen_contig::vmap::{Area, AreaCount, Budget, Flush, Protection, UnmapMode};

type Kernel = &'static FakePlatform;
type Buffer<'a> = CoherentBuffer<'a, Kernel>;

const PAGE: u64 = PAGE_SIZE as u64;
const VCPUS: u32 = 4;

/// The mask of some devices. At the start the guest has no memory below it.
const LOW: u64 = (1 << 25) - 1;

const STEPS: u64 = 3_000;

/// The highest number of buffers of a vCPU. Together they are half of the guest's memory.
const MOST: usize = 64;

/// The state that the vCPUs share.
struct Shared<'a> {
    platform: Kernel,
    allocator: &'a Allocator<Kernel>,
    /// Buffers that one vCPU passes to another.
    passed: Mutex<Vec<(Buffer<'a>, u64)>>,
    served: AtomicU64,
    refused: AtomicU64,
}

/// A vCPU and its buffers, each with the pattern that it wrote there.
struct VcpuThread<'s, 'a> {
    number: u32,
    shared: &'s Shared<'a>,
    random: u64,
    held: Vec<(Buffer<'a>, u64)>,
}

impl<'a> VcpuThread<'_, 'a> {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 8) % limit
    }

    fn step(&mut self) {
        match self.below(16) {
            0..5 if self.held.len() < MOST => self.allocate(),
            5..9 => drop(self.any().map(|held| self.checked(held))),
            9 => {
                let passed = self.any();
                self.shared.passed.lock().unwrap().extend(passed);
            }
            10 => {
                let taken = self.shared.passed.lock().unwrap().pop();
                let taken = taken.map(|held| self.checked(held));
                self.held.extend(taken);
            }
            11 => self.free_idle(),
            12 => {
                let areas = self.shared.platform.guest().areas();
                let flush = [Flush::Inhibit, Flush::Now][self.below(2) as usize];
                areas.purge_all(flush).expect("nothing refuses a purge");
            }
            _ if self.below(2) == 0 => self.map_buffer(),
            _ => self.map_frames(),
        }
    }

    /// Frees idle memory, as a kernel does that is short of memory, or reads the figures.
    fn free_idle(&mut self) {
        let allocator = self.shared.allocator;
        match self.below(4) {
            0 => {
                allocator.reclaim(64);
            }
            1 => {
                allocator.trim(64 * PAGE);
            }
            _ => self.check_figures(),
        }
    }

    /// Reads the figures, and checks that none is above the number of frames of the guest.
    fn check_figures(&self) {
        let stats = self.shared.allocator.stats();
        let frames = self.shared.platform.guest().frames();
        assert!(stats.idle + stats.set_aside + stats.records <= frames, "{stats:?}");
        assert!(stats.lent <= frames && stats.below_16m <= frames, "{stats:?}");
    }

    /// Takes a buffer from this vCPU.
    fn any(&mut self) -> Option<(Buffer<'a>, u64)> {
        let len = self.held.len() as u64;
        (len > 0).then(|| self.below(len)).map(|at| self.held.swap_remove(at as usize))
    }

    fn allocate(&mut self) {
        let size = 1 + self.below(8 * PAGE);
        let mut constraints = Constraints::builder();
        if self.below(4) == 0 {
            constraints = constraints.mask(LOW);
        }
        match self.shared.allocator.alloc_coherent(size, &constraints.build().unwrap()) {
            Ok(mut buffer) => {
                self.shared.served.fetch_add(1, Relaxed);
                let pattern = self.random | 1;
                for offset in ends(&buffer) {
                    assert_eq!(buffer.load(offset), Ok(0_u8), "{buffer:?} is not zeroed");
                }
                for offset in ends(&buffer) {
                    buffer.store(offset, (pattern + offset) as u8).unwrap();
                }
                self.held.push((buffer, pattern));
            }
            Err(AllocError::NoGuestMemory { .. } | AllocError::OutOfReach { .. }) => self.refuse(),
            Err(AllocError::Exchange(
                ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. },
            )) => self.refuse(),
            Err(error) => panic!("vCPU {}: {error}", self.number),
        }
    }

    fn refuse(&self) {
        self.shared.refused.fetch_add(1, Relaxed);
    }

    /// Checks that a buffer has the bytes that a vCPU wrote there.
    fn checked(&self, (buffer, pattern): (Buffer<'a>, u64)) -> (Buffer<'a>, u64) {
        for offset in ends(&buffer) {
            let expected = (pattern + offset) as u8;
            assert_eq!(buffer.load(offset), Ok(expected), "{buffer:?}");
        }
        (buffer, pattern)
    }

    /// Maps a buffer a second time, and reads it by that mapping.
    fn map_buffer(&mut self) {
        let Some((buffer, pattern)) = self.any() else { return };
        let area = self.map(buffer.frames().iter());
        let guest = self.shared.platform.guest();
        for (page, pfn) in (0..).zip(buffer.frames().iter()) {
            let word = guest.read_at(self.number, area.address() + page * PAGE);
            assert_eq!(word, guest.read(self.number, pfn, 0));
        }
        guest.areas().vunmap(area).expect("the area belongs to this guest");
        self.held.push((buffer, pattern));
    }

    /// Maps, unmaps and frees frames. Their alias stays until it is purged.
    fn map_frames(&mut self) {
        let frames = 1 + self.below(6);
        let Some(run) = self.shared.platform.take(frames, 1) else { return self.refuse() };
        let (guest, colour) = (self.shared.platform.guest(), self.random);
        let area = self.map(run.iter());
        for (page, pfn) in (0..).zip(run.iter()) {
            guest.write_at(self.number, area.address() + page * PAGE, colour + page);
            assert_eq!(guest.read(self.number, pfn, 0), colour + page);
        }
        guest.areas().vunmap(area).expect("the area belongs to this guest");
        self.shared.platform.give(run);
    }

    fn map(&self, frames: impl Iterator<Item = Pfn> + Clone) -> Area {
        let guest = self.shared.platform.guest();
        guest
            .vmap(frames, Protection::ReadWrite, "shared")
            .expect("addresses and records are available")
    }
}

/// Returns the offsets of the first and the last byte of each page.
fn ends(buffer: &Buffer<'_>) -> impl Iterator<Item = u64> + use<> {
    let len = buffer.len();
    (0..len).step_by(PAGE as usize).flat_map(move |first| [first, (first + PAGE).min(len) - 1])
}

/// Counts the frames of the guest that a device reaches with the mask of these tests.
fn low_frames(platform: Kernel) -> usize {
    let guest = platform.guest();
    let is_low = |pfn: &Pfn| guest.mfn(*pfn).is_some_and(|mfn| mfn.number() * PAGE <= LOW);
    guest.usable().filter(is_low).count()
}

/// Runs all vCPUs, and checks at the end that every frame and every address is free.
fn run_vcpus(retain: Retain, mode: UnmapMode, seed: u64) {
    // With two records for each vCPU, leftovers must be purged again and again.
    let budget = Budget { pages: 512, areas: 2 * VCPUS };
    let areas = AreaConfig { areas: 2 * VCPUS, mode, budget, ..AreaConfig::lazy(512) };
    let guest = GuestBuilder::new(4096).vcpus(VCPUS as usize).areas(areas).seed(seed).build();
    let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
    let (guest, free) = (platform.guest(), platform.free_frames());
    let low = low_frames(platform);
    let allocator = Allocator::new(platform, retain);
    let shared = Shared {
        platform,
        allocator: &allocator,
        passed: Mutex::new(Vec::new()),
        served: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for number in 0..VCPUS {
            let shared = &shared;
            scope.spawn(move || {
                run_on(number);
                let random = seed ^ (u64::from(number) + 1) << 40;
                let mut vcpu = VcpuThread { number, shared, random, held: Vec::new() };
                (0..STEPS).for_each(|_| vcpu.step());
                while let Some(held) = vcpu.any() {
                    drop(vcpu.checked(held));
                }
            });
        }
    });
    let Shared { passed, served, refused, .. } = shared;
    drop(passed);
    let (served, refused) = (served.into_inner(), refused.into_inner());
    println!("{served} buffers, {refused} refused, {:?}", allocator.stats());
    assert!(served > STEPS / 2 && refused < served / 4, "{served} served, {refused} refused");

    let report = allocator.trim(u64::MAX);
    let stats = allocator.stats();
    assert_eq!(
        (report.error, stats.idle, stats.set_aside, stats.records),
        (None, 0, 0, 0),
        "{stats:?}"
    );
    assert_eq!((stats.below_4g, stats.below_16m), (0, 0), "{stats:?}");
    assert_eq!(low_frames(platform), low, "Xen has the low memory again");
    guest.areas().purge_all(Flush::Now).expect("nothing refuses a purge");
    let stats = guest.areas().stats();
    let none = AreaCount::default();
    assert_eq!((stats.live, stats.leftover, stats.retired), (none, none, none));
    assert_eq!((platform.free_frames(), platform.accounts().quarantined()), (free, 0));
    assert_eq!(guest.given_up_dirty(), 0);
    // [F4](xen_contig::rules#F4): the guest sends no inter-processor interrupt.
    let log = guest.xen().take_log();
    assert!(log.iter().all(|call| call.asked != Asked::Send));
    assert!(log.iter().filter(|call| call.asked.is_exchange()).count() > 100);
    for vcpu in 0..VCPUS {
        let calls = log.iter().filter(|call| call.vcpu == vcpu).count();
        assert!(calls > 500, "vCPU {vcpu} made {calls} hypercalls");
    }
    guest.check_whole();
}

#[test]
fn vcpus_share_a_reserve_that_retains_memory() {
    run_vcpus(Retain::default(), UnmapMode::Lazy, 1);
}

#[test]
fn vcpus_share_a_reserve_that_retains_nothing() {
    run_vcpus(Retain::NOTHING, UnmapMode::Lazy, 2);
}

#[test]
fn vcpus_share_a_reserve_between_two_watermarks() {
    run_vcpus(Retain::Bytes { low: 16 * PAGE, high: 64 * PAGE }, UnmapMode::Lazy, 3);
}

#[test]
fn vcpus_share_a_reserve_and_unmap_at_once() {
    run_vcpus(Retain::NOTHING, UnmapMode::Sync, 4);
}
