//! A kernel that is short of memory for the lists of an exchange, and what it receives about frames that
//! Xen refuses.

#![expect(unsafe_code, reason = "the traits of a platform are unsafe to implement")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fake_xen::{FakeGuest, FakePlatform, FakeXen, GuestBuilder};
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::dma::{Allocator, Constraints, Retain};
use xen_contig::exchange::{Accounts, ExchangeError};
use xen_contig::frames::{Candidate, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The model's kernel, whose lists have no more than `most` words.
struct TightKernel {
    inner: &'static FakePlatform,
    most: AtomicU64,
    set_aside: Mutex<Vec<Pfn>>,
}

// SAFETY: all methods are those of the model's kernel, which keeps the promises.
unsafe impl Platform for &TightKernel {
    type Xen = FakeXen;
    type Memory = FakeGuest;
    type Linear = FakeGuest;
    type Lock = spin::Mutex<()>;
    type Lists<'p>
        = Vec<u64>
    where
        Self: 'p;

    fn xen(&self) -> &FakeXen {
        self.inner.guest().xen()
    }

    fn memory(&self) -> &FakeGuest {
        self.inner.guest()
    }

    fn linear(&self) -> Option<&FakeGuest> {
        Some(self.inner.guest())
    }

    fn p2m(&self) -> &P2m<'_> {
        Platform::p2m(&self.inner)
    }

    fn accounts(&self) -> &Accounts {
        Platform::accounts(&self.inner)
    }

    fn free_frames(&self) -> u64 {
        self.inner.free_frames()
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.inner.take(frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        self.inner.take_where(frames, from, fits)
    }

    fn give(&self, run: FrameRun) {
        self.inner.give(run);
    }

    fn on_set_aside(&self, pfn: Pfn, error: &ExchangeError) {
        assert!(
            matches!(error, ExchangeError::FrameBusy { pfn: busy, .. } if *busy == pfn),
            "{error}"
        );
        self.set_aside.lock().unwrap().push(pfn);
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        (words <= self.most.load(Relaxed)).then(|| vec![0; words as usize])
    }
}

/// The guest, and the memory of a released buffer in its reserve.
fn idle(pages: u64) -> (&'static TightKernel, Allocator<&'static TightKernel>, u64) {
    let guest = GuestBuilder::new(2048).machine_frames(8192).build();
    let inner: &'static FakePlatform = Box::leak(Box::new(FakePlatform::new(guest)));
    let (most, set_aside) = (AtomicU64::new(u64::MAX), Mutex::default());
    let kernel: &'static TightKernel = Box::leak(Box::new(TightKernel { inner, most, set_aside }));
    let free = inner.free_frames();
    let allocator = Allocator::new(kernel, Retain::default());
    let low = Constraints::builder().mask((1 << 24) - 1).build().unwrap();
    drop(allocator.alloc_coherent(pages * PAGE, &low).expect("low memory"));
    (kernel, allocator, free)
}

#[test]
fn a_trim_makes_do_with_short_lists() {
    for (pages, most) in [(512, 600), (512, 65), (512, 2), (257, 100), (64, 3)] {
        let (kernel, allocator, free) = idle(pages);
        kernel.most.store(most, Relaxed);
        let report = allocator.trim(u64::MAX);
        assert_eq!((report.error, report.quarantined), (None, 0), "{pages} pages, {most} words");
        assert!(report.returned >= pages, "{pages} pages, {most} words: {report:?}");
        let stats = allocator.stats();
        assert_eq!((stats.idle, stats.lent, stats.below_16m), (0, 0, 0), "{stats:?}");
        assert_eq!(kernel.inner.free_frames(), free);
        kernel.inner.guest().check_whole();
    }
}

#[test]
fn a_trim_without_lists_keeps_the_memory() {
    let (kernel, allocator, _) = idle(64);
    kernel.most.store(1, Relaxed);
    let report = allocator.trim(u64::MAX);
    assert!(matches!(report.error, Some(ExchangeError::NoListMemory { .. })), "{report:?}");
    assert!(allocator.stats().idle >= 64, "{report:?}");
    kernel.most.store(u64::MAX, Relaxed);
    assert_eq!(allocator.trim(u64::MAX).error, None);
    kernel.inner.guest().check_whole();
}

#[test]
fn each_refused_frame_is_reported_once() {
    let (kernel, allocator, free) = idle(64);
    allocator.trim(u64::MAX);
    let run = kernel.take(64, 64).expect("memory");
    let stuck = [run.first().add(5)];
    kernel.give(run);
    stuck.into_iter().for_each(|pfn| kernel.inner.guest().hold(pfn));
    let low = Constraints::builder().mask((1 << 23) - 1).build().unwrap();
    let buffers: Vec<_> =
        (0..4).map(|_| allocator.alloc_coherent(64 * PAGE, &low).expect("low memory")).collect();
    assert_eq!(*kernel.set_aside.lock().unwrap(), stuck);
    drop(buffers);
    // Xen refuses it again.
    allocator.trim(u64::MAX);
    assert_eq!(*kernel.set_aside.lock().unwrap(), stuck);
    stuck.into_iter().for_each(|pfn| kernel.inner.guest().unhold(pfn));
    allocator.trim(u64::MAX);
    assert_eq!((allocator.stats().set_aside, kernel.inner.free_frames()), (0, free));
    kernel.inner.guest().check_whole();
}
