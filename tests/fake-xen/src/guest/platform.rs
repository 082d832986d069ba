//! A kernel around the library's allocator: a guest with a frame allocator.

#![expect(unsafe_code, reason = "the trait is unsafe to implement")]

use std::fmt::Display;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use hypercall::Pfn;
use xen_contig::exchange::{Accounts, ExchangeError};
use xen_contig::frames::{Candidate, FrameAllocator, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::platform::Platform;
use xen_contig::sync::{Mutex, MutexGuard};

use super::FakeGuest;
use super::reserve_lock::{ReserveLock, check_not_held};
use crate::xen::FakeXen;

/// A guest whose usable frames are in a frame allocator. The guest is leaked: it lives as long as the
/// process.
#[derive(Debug)]
pub struct FakePlatform {
    guest: &'static FakeGuest,
    p2m: P2m<'static>,
    frames: Mutex<FrameAllocator<'static>>,
    accounts: Accounts,
    longest_lists: AtomicU64,
    set_aside: Mutex<Vec<(Pfn, ExchangeError)>>,
    leaked: Mutex<Vec<String>>,
    takes_denied: AtomicBool,
    /// How many takes of frames succeed until one fails.
    takes_until_failure: AtomicU64,
    lists_shortened: AtomicBool,
    search_denied: AtomicBool,
}

impl FakePlatform {
    /// A kernel for the guest, all of its usable frames free.
    pub fn new(guest: FakeGuest) -> Self {
        Self::around(Box::leak(Box::new(guest)))
    }

    /// The same for a guest that the caller keeps.
    pub fn around(guest: &'static FakeGuest) -> Self {
        let words = FrameAllocator::bitmap_words(guest.frames());
        let bitmap = Box::leak(vec![0; words].into_boxed_slice());
        let mut frames = FrameAllocator::new(bitmap, guest.frames());
        let first = guest.usable().next().map_or(guest.frames(), Pfn::number);
        let whole = guest.run(first, guest.frames() - first);
        frames.give(whole).expect("an empty allocator has no frame of the guest");
        let (p2m, accounts) = (guest.p2m(), Accounts::new());
        let [lists_shortened, search_denied] = [const { AtomicBool::new(false) }; 2];
        Self {
            guest,
            p2m,
            frames: Mutex::new(frames),
            accounts,
            longest_lists: AtomicU64::new(u64::MAX),
            set_aside: Mutex::new(Vec::new()),
            leaked: Mutex::new(Vec::new()),
            takes_denied: AtomicBool::new(false),
            takes_until_failure: AtomicU64::new(u64::MAX),
            lists_shortened,
            search_denied,
        }
    }

    /// The guest.
    pub const fn guest(&self) -> &'static FakeGuest {
        self.guest
    }

    /// How many frames are free in the guest.
    pub fn free_frames(&self) -> u64 {
        self.allocator().free_frames()
    }

    /// Makes it a kernel that cannot search its free frames, or no longer.
    pub fn deny_search(&self, denied: bool) {
        self.search_denied.store(denied, Relaxed);
    }

    /// Denies the kernel memory for extent lists, or no longer.
    pub fn deny_lists(&self, denied: bool) {
        self.limit_lists(if denied { 0 } else { u64::MAX });
    }

    /// Denies the kernel memory for extent lists of more than `most` words.
    pub fn limit_lists(&self, most: u64) {
        self.longest_lists.store(most, Relaxed);
    }

    /// Returns the frames that were set aside since the last call, and why.
    pub fn take_set_aside(&self) -> Vec<(Pfn, ExchangeError)> {
        mem::take(&mut self.set_aside.lock())
    }

    /// Returns the buffers that were leaked since the last call, each as `device: buffer`.
    pub fn take_leaked(&self) -> Vec<String> {
        mem::take(&mut self.leaked.lock())
    }

    /// Makes one take of frames fail, after `successes` that succeed. Returns false if the failure that the
    /// call before this one requested is still to come.
    pub fn fail_take(&self, successes: u64) -> bool {
        self.takes_until_failure.swap(successes, Relaxed) == u64::MAX
    }

    /// Makes it a kernel without a free frame, or no longer.
    pub fn deny_takes(&self, denied: bool) {
        self.takes_denied.store(denied, Relaxed);
    }

    /// Makes each extent list half as long as requested, or no longer.
    pub fn shorten_lists(&self, shortened: bool) {
        self.lists_shortened.store(shortened, Relaxed);
    }

    fn allocator(&self) -> MutexGuard<'_, FrameAllocator<'static>> {
        self.frames.lock()
    }
}

// SAFETY: all methods speak of one guest. The allocator hands out each frame once. The lists are
// memory of the host and lie in no run.
unsafe impl Platform for &FakePlatform {
    type Xen = FakeXen;
    type Memory = FakeGuest;
    type Linear = FakeGuest;
    type Lock = ReserveLock;
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
        check_not_held("`Platform::free_frames`");
        FakePlatform::free_frames(self)
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        check_not_held("`Platform::take`");
        if self.takes_denied.load(Relaxed) {
            return None;
        }
        match self.takes_until_failure.load(Relaxed) {
            u64::MAX => {}
            0 => {
                self.takes_until_failure.store(u64::MAX, Relaxed);
                return None;
            }
            more => self.takes_until_failure.store(more - 1, Relaxed),
        }
        self.allocator().take(frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        check_not_held("`Platform::take_where`");
        if self.search_denied.load(Relaxed) {
            return Search::End;
        }
        self.allocator().take_where(frames, from, fits)
    }

    fn give(&self, run: FrameRun) {
        check_not_held("`Platform::give`");
        self.allocator().give(run).expect("every run goes back once");
    }

    fn on_set_aside(&self, pfn: Pfn, error: &ExchangeError) {
        check_not_held("`Platform::on_set_aside`");
        self.set_aside.lock().push((pfn, *error));
    }

    fn on_leaked_buffer(&self, device: &dyn Display, buffer: &dyn Display) {
        check_not_held("`Platform::on_leaked_buffer`");
        self.leaked.lock().push(format!("{device}: {buffer}"));
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        check_not_held("`Platform::lists`");
        let lent = if self.lists_shortened.load(Relaxed) { words / 2 } else { words };
        (words <= self.longest_lists.load(Relaxed)).then(|| vec![0; lent as usize])
    }
}
