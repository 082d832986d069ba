//! The kernel around the allocator. It leaks nothing, so a test can build thousands.

#![expect(unsafe_code, reason = "the trait is unsafe to implement")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fake_xen::{FakeGuest, FakeXen};
use xen_contig::addr::Pfn;
use xen_contig::exchange::Accounts;
use xen_contig::frames::{Candidate, FrameAllocator, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::platform::Platform;

/// A guest's frame allocator, which a second record of the free frames checks.
#[derive(Debug)]
pub struct CheckedKernel<'g> {
    guest: &'g FakeGuest,
    p2m: P2m<'g>,
    frames: Mutex<CheckedFrames<'g>>,
    accounts: Accounts,
    lists_refused: AtomicBool,
}

#[derive(Debug)]
struct CheckedFrames<'g> {
    allocator: FrameAllocator<'g>,
    /// Whether a frame is free, by its number.
    free: Vec<bool>,
}

impl CheckedFrames<'_> {
    fn mark(&mut self, run: &FrameRun, free: bool) {
        for pfn in run.iter() {
            let was = std::mem::replace(&mut self.free[pfn.number() as usize], free);
            assert_ne!(was, free, "{pfn} is in two places (M1)");
        }
    }
}

impl<'g> CheckedKernel<'g> {
    /// Returns a kernel whose usable frames are all free. The frame allocator uses `bitmap`.
    pub fn new(guest: &'g FakeGuest, bitmap: &'g mut Vec<u64>) -> Self {
        bitmap.resize(FrameAllocator::bitmap_words(guest.frames()), 0);
        let mut allocator = FrameAllocator::new(bitmap, guest.frames());
        let first = guest.usable().next().map_or(guest.frames(), Pfn::number);
        let whole = guest.run(first, guest.frames() - first);
        let mut free = vec![false; guest.frames() as usize];
        free[first as usize..].fill(true);
        allocator.give(whole).expect("a new allocator has no frame of the guest");
        Self {
            guest,
            p2m: guest.p2m(),
            frames: Mutex::new(CheckedFrames { allocator, free }),
            accounts: Accounts::new(),
            lists_refused: AtomicBool::new(false),
        }
    }

    /// Returns the guest.
    pub const fn guest(&self) -> &'g FakeGuest {
        self.guest
    }

    /// Returns how many frames are free in the guest.
    pub fn free_frames(&self) -> u64 {
        self.frames().allocator.free_frames()
    }

    /// Returns the frames that are free in the guest.
    pub fn free(&self) -> Vec<Pfn> {
        let frames = self.frames();
        (0..).zip(&frames.free).filter(|(_, free)| **free).map(|(pfn, _)| Pfn::new(pfn)).collect()
    }

    /// Sets whether the kernel has no memory for extent lists.
    pub fn refuse_lists(&self, refuse: bool) {
        self.lists_refused.store(refuse, Relaxed);
    }

    fn frames(&self) -> MutexGuard<'_, CheckedFrames<'g>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: all methods refer to one guest of one model. The allocator hands out each frame once, and
// lists lie in memory of the host, outside every frame.
unsafe impl Platform for &CheckedKernel<'_> {
    type Xen = FakeXen;
    type Memory = FakeGuest;
    type Linear = FakeGuest;
    type Lock = spin::Mutex<()>;
    type Lists<'p>
        = Vec<u64>
    where
        Self: 'p;

    fn xen(&self) -> &FakeXen {
        self.guest.xen()
    }

    fn memory(&self) -> &FakeGuest {
        self.guest
    }

    fn linear(&self) -> Option<&FakeGuest> {
        (!self.p2m.is_translated()).then_some(self.guest)
    }

    fn p2m(&self) -> &P2m<'_> {
        &self.p2m
    }

    fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn free_frames(&self) -> u64 {
        self.frames().allocator.free_frames()
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        let mut checked = self.frames();
        let run = checked.allocator.take(frames, align)?;
        checked.mark(&run, false);
        Some(run)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        let mut checked = self.frames();
        let found = checked.allocator.take_where(frames, from, fits);
        if let Search::Taken(run) = &found {
            checked.mark(run, false);
        }
        found
    }

    fn give(&self, run: FrameRun) {
        // A drop during a panic must not panic again, which would abort the test.
        if !std::thread::panicking() {
            let mut checked = self.frames();
            checked.mark(&run, true);
            checked.allocator.give(run).expect("every run is freed once");
        }
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        (!self.lists_refused.load(Relaxed)).then(|| vec![0; words as usize])
    }
}
