//! A kernel for one execution of a scenario. It is dropped when the execution ends.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fake_xen::{AreaConfig, FakeGuest, FakePlatform};
use loom::thread::{Builder, JoinHandle};
use xen_contig::dma::{Allocator, Retain};

/// The kernel that the allocator runs in.
pub type Kernel = &'static FakePlatform;

/// Explores a scenario, with no thread interrupted against its will more often than `preemptions`
/// times in all. What a thread does of its own will (to end, to wait) is not counted.
pub fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 20_000;
    let executions = Arc::new(AtomicU64::new(0));
    let (count, scenario) = (executions.clone(), Arc::new(scenario));
    model.check(move || {
        count.fetch_add(1, Relaxed);
        let scenario = scenario.clone();
        join(spawn(move || scenario()));
    });
    let executions = executions.load(Relaxed);
    println!("{executions} executions");
    assert!(executions > 10, "nothing in this scenario can happen in two orders");
}

/// Something that threads may hold on to until the execution ends: there are a great many of them,
/// so it can't be leaked.
pub struct Lasting<T: 'static>(*mut T);

impl<T> Lasting<T> {
    pub fn new(value: T) -> Self {
        Self(Box::into_raw(Box::new(value)))
    }

    /// For the threads of this execution, which all end before it does.
    pub fn get(&self) -> &'static T {
        // SAFETY: it is there until it is dropped, when no thread of the scenario is left.
        unsafe { &*self.0 }
    }
}

impl<T> Deref for Lasting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.get()
    }
}

impl<T> Drop for Lasting<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, dropped once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// 4 frames are for the reserve's records, and others are ahead of need.
const fn small() -> fake_xen::GuestBuilder {
    fake_xen::GuestBuilder::new(40).machine_frames(384)
}

/// A small guest, its kernel and an allocator. Fields are dropped from the top down.
pub struct LoomScene {
    pub allocator: Lasting<Allocator<Kernel>>,
    pub platform: Lasting<FakePlatform>,
    pub guest: Lasting<FakeGuest>,
    pub free: u64,
}

impl LoomScene {
    pub fn new(retain: Retain) -> Self {
        Self::around(retain, small())
    }

    /// The same with virtual areas.
    pub fn with_areas(retain: Retain, areas: AreaConfig) -> Self {
        Self::around(retain, small().areas(areas))
    }

    /// The same with memory for the records of pools.
    pub fn with_record_memory(retain: Retain) -> Self {
        Self::around(retain, small().record_memory())
    }

    fn around(retain: Retain, guest: fake_xen::GuestBuilder) -> Self {
        let guest = Lasting::new(guest.build());
        let platform = Lasting::new(FakePlatform::around(guest.get()));
        let allocator = Lasting::new(Allocator::new(platform.get(), retain));
        let free = platform.free_frames();
        Self { allocator, platform, guest, free }
    }

    /// Returns the number of frames that no buffer holds.
    pub fn unheld(&self) -> u64 {
        let stats = self.allocator.stats();
        self.platform.free_frames() + stats.idle + stats.set_aside + stats.records
    }

    /// Trims all idle memory. Then every frame is free in the kernel again.
    pub fn is_balanced(&self) {
        let report = self.allocator.trim(u64::MAX);
        let stats = self.allocator.stats();
        assert_eq!((report.error, report.quarantined), (None, 0), "{stats:?}");
        assert_eq!((stats.idle, stats.set_aside, stats.records), (0, 0, 0), "{stats:?}");
        assert_eq!((stats.below_4g, stats.below_16m), (0, 0), "{stats:?}");
        assert_eq!(self.platform.free_frames(), self.free);
        self.guest.check_whole();
    }
}

/// Starts a thread. Those that loom makes by itself have too small a stack for the allocator.
pub fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    const WORDS: usize = 1 << 15;
    Builder::new().stack_size(WORDS).spawn(run).expect("a thread more")
}

/// Waits for a thread.
pub fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("a thread that did not panic")
}
