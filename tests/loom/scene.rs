//! A kernel for one execution of a scenario. The end of the execution drops it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fake_xen::{AreaConfig, FakeGuest, FakePlatform};
use loom::thread::{Builder, JoinHandle};
use xen_contig::dma::{Allocator, Retain};

/// The kernel that the allocator runs in.
pub type Kernel = &'static FakePlatform;

/// Explores the interleavings of a scenario with at most `preemptions` preemptions.
///
/// A switch at the end of a thread, or where a thread waits, is not a preemption.
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
    assert!(
        executions > 10,
        "{executions} executions: the threads of this scenario do not interact"
    );
}

/// A value that threads may reference until the execution ends.
///
/// A leaked value would do the same, but a test has many thousands of executions.
pub struct Lasting<T: 'static>(*mut T);

impl<T> Lasting<T> {
    pub fn new(value: T) -> Self {
        Self(Box::into_raw(Box::new(value)))
    }

    /// Returns a reference for the threads of this execution.
    pub fn get(&self) -> &'static T {
        // SAFETY: `new` made the value, and only `drop` frees it. A scenario joins its threads before
        // it drops the value.
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
        // SAFETY: `new` made the box, and nothing else frees it.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Returns the builder of a small guest. 4 of its frames are for the records of the reserve.
const fn small() -> fake_xen::GuestBuilder {
    fake_xen::GuestBuilder::new(40).machine_frames(384)
}

/// A small guest, its kernel and an allocator. The order of the fields is the order of their drop.
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

    /// Returns a scene with virtual areas.
    pub fn with_areas(retain: Retain, areas: AreaConfig) -> Self {
        Self::around(retain, small().areas(areas))
    }

    /// Returns a scene with memory for the records of pools.
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

    /// Returns the number of frames that are not in a buffer.
    pub fn frames_outside_buffers(&self) -> u64 {
        let stats = self.allocator.stats();
        self.platform.free_frames() + stats.idle + stats.set_aside + stats.records
    }

    /// Trims all idle memory, and checks that every frame is free again.
    pub fn check_balance(&self) {
        let report = self.allocator.trim(u64::MAX);
        let stats = self.allocator.stats();
        assert_eq!((report.error, report.quarantined), (None, 0), "{stats:?}");
        assert_eq!((stats.idle, stats.set_aside, stats.records), (0, 0, 0), "{stats:?}");
        assert_eq!((stats.below_4g, stats.below_16m), (0, 0), "{stats:?}");
        assert_eq!(self.platform.free_frames(), self.free);
        self.guest.check_whole();
    }
}

/// Starts a thread. The default stack of loom is too small for the allocator.
pub fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    const WORDS: usize = 1 << 15;
    Builder::new().stack_size(WORDS).spawn(run).expect("loom permits another thread")
}

/// Waits for a thread.
pub fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("the thread did not panic")
}
