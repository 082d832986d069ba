//! The cost of the reserve, in words of its records that are read or written under its lock.
//!
//! The memory of these tests counts accesses, and their lock reads the counter when it is taken and
//! released. The guest of 64 GiB is translated and stores only the frames that are written, because the
//! model would store all.

#![expect(unsafe_code, reason = "the traits of a platform are unsafe to implement")]

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use fake_xen::{FakeGuest, FakePlatform, FakeXen, GuestBuilder};
use lock_api::{GuardSend, RawMutex};
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn, PseudoPhysAddr};
use xen_contig::dma::{Allocator, CoherentBuffer, Constraints, Retain, Sleep};
use xen_contig::exchange::Accounts;
use xen_contig::frames::{Candidate, FrameAllocator, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::paging::{FrameInUse, GuestMemory, Holder, NoLinearMapping, Word};
use xen_contig::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The frames of a guest of 64 GiB.
const LARGE: u64 = 64 << 18;
/// The frames of a guest of 256 MiB.
const SMALL: u64 = 256 << 8;

thread_local! {
    static WORDS: Cell<u64> = const { Cell::new(0) };
    static COST: Cell<LockCost> = const { Cell::new(LockCost { longest: 0, all: 0 }) };
}

/// The words that were read or written under the lock since the last [`measure`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LockCost {
    /// The words in the longest hold of the lock.
    longest: u64,
    /// The words in all holds.
    all: u64,
}

/// Runs `work`, and returns the words that it read or wrote under the lock.
fn measure<R>(work: impl FnOnce() -> R) -> (R, LockCost) {
    COST.set(LockCost::default());
    let result = work();
    (result, COST.get())
}

fn count_word() {
    WORDS.set(WORDS.get() + 1);
}

/// A lock that counts the words between its `lock` and its `unlock`.
struct CountingLock {
    locked: AtomicBool,
    begin: Mutex<u64>,
}

// SAFETY: `locked` is true exactly while the lock is held, and `try_lock` fails if it is true.
unsafe impl RawMutex for CountingLock {
    const INIT: Self = Self { locked: AtomicBool::new(false), begin: Mutex::new(0) };
    type GuardMarker = GuardSend;

    fn lock(&self) {
        assert!(self.try_lock(), "a second thread waits for the lock");
    }

    fn try_lock(&self) -> bool {
        let taken = !self.locked.swap(true, Ordering::Acquire);
        *self.begin.lock().unwrap() = WORDS.get();
        taken
    }

    unsafe fn unlock(&self) {
        let words = WORDS.get() - *self.begin.lock().unwrap();
        let LockCost { longest, all } = COST.get();
        COST.set(LockCost { longest: longest.max(words), all: all + words });
        self.locked.store(false, Ordering::Release);
    }
}

/// The memory of a guest of any size. It stores the frames that were written.
#[derive(Default)]
struct SparseMemory(Mutex<HashMap<u64, Box<[u64; 512]>>>);

// SAFETY: each frame has words of its own. `pointer` returns null, which no test dereferences.
unsafe impl GuestMemory for SparseMemory {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        let mut stored = self.0.lock().unwrap();
        (0..frames).for_each(|index| {
            stored.remove(&first.add(index).number());
        });
    }

    fn pointer(&self, _: Pfn) -> *mut u8 {
        std::ptr::null_mut()
    }

    unsafe fn load<T: Word>(&self, at: PseudoPhysAddr) -> T {
        count_word();
        let stored = self.0.lock().unwrap();
        T::from_bits(stored.get(&at.frame().number()).map_or(0, |words| words[at.offset() / 8]))
    }

    unsafe fn store<T: Word>(&self, at: PseudoPhysAddr, value: T) {
        count_word();
        let mut stored = self.0.lock().unwrap();
        let words = stored.entry(at.frame().number()).or_insert_with(|| Box::new([0; 512]));
        words[at.offset() / 8] = value.to_bits();
    }
}

/// A translated guest of any size.
struct SparseKernel {
    guest: FakeGuest,
    memory: SparseMemory,
    p2m: P2m<'static>,
    frames: Mutex<FrameAllocator<'static>>,
    accounts: Accounts,
}

impl SparseKernel {
    fn new(frames: u64) -> &'static Self {
        let bitmap = Box::leak(vec![0; FrameAllocator::bitmap_words(frames)].into_boxed_slice());
        let mut free = FrameAllocator::new(bitmap, frames);
        // SAFETY: the guest is new, so nothing else owns its frames.
        free.give(unsafe { FrameRun::new(Pfn::new(1), frames - 1) }).unwrap();
        Box::leak(Box::new(Self {
            guest: GuestBuilder::new(256).translated().build(),
            memory: SparseMemory::default(),
            p2m: P2m::translated(frames),
            frames: Mutex::new(free),
            accounts: Accounts::new(),
        }))
    }

    fn free(&self) -> MutexGuard<'_, FrameAllocator<'static>> {
        self.frames.lock().unwrap()
    }
}

// SAFETY: the frame allocator hands out each frame once. The lists are memory of the host.
unsafe impl Platform for &SparseKernel {
    type Xen = FakeXen;
    type Memory = SparseMemory;
    type Linear = NoLinearMapping;
    type Lock = CountingLock;
    type Lists<'p>
        = Vec<u64>
    where
        Self: 'p;

    fn xen(&self) -> &FakeXen {
        self.guest.xen()
    }

    fn memory(&self) -> &SparseMemory {
        &self.memory
    }

    fn linear(&self) -> Option<&NoLinearMapping> {
        None
    }

    fn p2m(&self) -> &P2m<'_> {
        &self.p2m
    }

    fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn free_frames(&self) -> u64 {
        self.free().free_frames()
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.free().take(frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        self.free().take_where(frames, from, fits)
    }

    fn give(&self, run: FrameRun) {
        self.free().give(run).expect("every run is freed once");
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        Some(vec![0; words as usize])
    }
}

/// A PV guest of the model. It counts accesses to memory.
struct CountingKernel {
    inner: &'static FakePlatform,
    memory: CountingMemory,
}

struct CountingMemory(&'static FakeGuest);

// SAFETY: every method calls the same method of the model's guest.
unsafe impl GuestMemory for CountingMemory {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: the caller meets the requirements of the same method.
        unsafe { self.0.zero(first, frames) }
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.0.pointer(pfn)
    }

    fn purge(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        self.0.purge(run)
    }

    fn holder(&self, pfn: Pfn, mfn: Option<Mfn>) -> Holder {
        self.0.holder(pfn, mfn)
    }

    unsafe fn load<T: Word>(&self, at: PseudoPhysAddr) -> T {
        count_word();
        // SAFETY: the caller meets the requirements of the same method.
        unsafe { self.0.load(at) }
    }

    unsafe fn store<T: Word>(&self, at: PseudoPhysAddr, value: T) {
        count_word();
        // SAFETY: the caller meets the requirements of the same method.
        unsafe { self.0.store(at, value) }
    }
}

// SAFETY: every method calls the same method of the model's platform.
unsafe impl Platform for &CountingKernel {
    type Xen = FakeXen;
    type Memory = CountingMemory;
    type Linear = FakeGuest;
    type Lock = CountingLock;
    type Lists<'p>
        = Vec<u64>
    where
        Self: 'p;

    fn xen(&self) -> &FakeXen {
        self.inner.guest().xen()
    }

    fn memory(&self) -> &CountingMemory {
        &self.memory
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

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        self.inner.lists(words)
    }
}

fn pv_allocator(frames: u64, machine: u64) -> Allocator<&'static CountingKernel> {
    let guest = GuestBuilder::new(frames).machine_frames(machine).build();
    let inner: &'static FakePlatform = Box::leak(Box::new(FakePlatform::new(guest)));
    let memory = CountingMemory(inner.guest());
    let kernel: &'static CountingKernel = Box::leak(Box::new(CountingKernel { inner, memory }));
    Allocator::new(kernel, Retain::default())
}

fn alloc<P: Platform>(allocator: &Allocator<P>, pages: u64) -> CoherentBuffer<'_, P> {
    allocator.alloc_coherent(pages * PAGE, &Constraints::default()).expect("memory is available")
}

/// The cost of requests that the reserve serves, and of their release.
#[derive(Clone, Copy, Debug)]
struct Costs {
    requests: u64,
    words: u64,
    longest: u64,
}

impl Costs {
    /// Checks that a request costs at most 1.5 times as much as with `other`.
    fn check_close_to(&self, other: &Self) {
        assert!(self.requests > 300 && other.requests > 300, "{self:?} {other:?}");
        // self.words / self.requests <= 1.5 * other.words / other.requests
        let (mine, theirs) = (self.words * other.requests, other.words * self.requests);
        assert!(2 * mine <= 3 * theirs, "{self:?} against {other:?}");
        assert!(2 * self.longest <= 3 * other.longest, "{self:?} against {other:?}");
    }
}

/// Runs the same requests with any allocator: at most 16 buffers at a time, of 1 to 64 pages.
fn run_requests<P: Platform>(allocator: &Allocator<P>) -> Costs {
    let mut costs = Costs { requests: 0, words: 0, longest: 0 };
    let mut live = Vec::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as usize % limit
    };
    for _ in 0..1000 {
        let hold = if live.len() == 16 || (live.len() > 4 && random(2) == 0) {
            let released = live.swap_remove(random(live.len()));
            measure(|| drop(released)).1
        } else {
            let pages = [1, 1, 2, 3, 4, 8, 13, 64][random(8)];
            let before = allocator.stats().from_reserve;
            let (buffer, hold) = measure(|| alloc(allocator, pages));
            live.push(buffer);
            if allocator.stats().from_reserve == before {
                continue;
            }
            hold
        };
        costs.requests += 1;
        costs.words += hold.all;
        costs.longest = costs.longest.max(hold.longest);
    }
    costs
}

/// Puts 8 MiB of idle memory into the reserve.
fn fill<P: Platform>(allocator: &Allocator<P>) {
    let blocks: Vec<_> = (0..4).map(|_| alloc(allocator, 512)).collect();
    drop(blocks);
}

/// Measures and prints the costs.
///
/// `cargo test --test reserve_steps -- --nocapture` prints them for the documentation.
fn costs_of(
    name: &str,
    prepare: impl FnOnce(&'static Allocator<&'static SparseKernel>),
    frames: u64,
) -> Costs {
    let allocator =
        Box::leak(Box::new(Allocator::new(SparseKernel::new(frames), Retain::default())));
    fill(allocator);
    prepare(allocator);
    let costs = run_requests(allocator);
    println!("{name}: {costs:?}, {} per request", costs.words as f64 / costs.requests as f64);
    costs
}

#[test]
fn a_large_guest_costs_no_more_than_a_small_one() {
    let small = costs_of("256 MiB", |_| (), SMALL);
    let large = costs_of("64 GiB", |_| (), LARGE);
    large.check_close_to(&small);
    small.check_close_to(&large);
}

#[test]
fn a_fragmented_reserve_costs_no_more_than_an_empty_one() {
    let whole = costs_of("whole", |_| (), LARGE);
    let fragmented = costs_of(
        "fragmented",
        |allocator| {
            let pages: Vec<_> = (0..20_000).map(|_| alloc(allocator, 1)).collect();
            for (index, page) in pages.into_iter().enumerate() {
                if index % 2 == 0 { drop(page) } else { std::mem::forget(page) }
            }
            fill(allocator);
        },
        LARGE,
    );
    fragmented.check_close_to(&whole);
}

#[test]
fn live_buffers_do_not_slow_a_request() {
    let none = costs_of("none live", |_| (), LARGE);
    let many = costs_of(
        "100,000 live",
        |allocator| {
            (0..100_000).for_each(|_| std::mem::forget(alloc(allocator, 1)));
            fill(allocator);
        },
        LARGE,
    );
    many.check_close_to(&none);
}

/// The highest permitted number of words in one hold of the lock.
///
/// An entry costs at most 5 words: three directories lead to its two words.
mod longest {
    /// A request in one piece, or a release.
    ///
    /// At most 18 blocks of an odd extent are merged, and one block is split at each of 18 orders. A
    /// merge takes the buddy out of its list, which costs 25 words.
    pub const PIECE: u64 = 1000;
    /// A request in several pieces: at most 8 starts of 64 pieces, each visited twice.
    pub const PIECES: u64 = 6000;
    /// A step of at most 2048 frames by which memory joins or leaves the reserve.
    ///
    /// It costs nine pages of records, or one block that is split and merged.
    pub const MOVE: u64 = 400;
}

/// Checks the longest hold of the lock, and that the allocator reports it.
///
/// The allocator counts records, each of at most 32 words.
fn check_hold<P: Platform>(name: &str, allocator: &Allocator<P>, hold: LockCost, limit: u64) {
    println!("{name}: {hold:?}");
    assert!(hold.longest <= limit, "{name}: {hold:?}");
    let reported = allocator.stats().longest_hold;
    assert!(hold.longest <= 32 * reported, "{name}: {hold:?}, {reported} records reported");
}

/// Splits one block down to a page, and merges it again.
#[test]
fn the_longest_split_and_merge_are_bounded() {
    let allocator = Allocator::new(SparseKernel::new(LARGE), Retain::default());
    let largest = alloc(&allocator, 1 << 18);
    let ((), hold) = measure(|| drop(largest));
    check_hold("release of 1 GiB", &allocator, hold, longest::PIECE);
    let (page, hold) = measure(|| alloc(&allocator, 1));
    check_hold("a page of 1 GiB", &allocator, hold, longest::PIECE);
    let (other, second) = measure(|| alloc(&allocator, 3));
    check_hold("three pages", &allocator, second, longest::PIECE);
    let ((), released) = measure(|| [page, other].into_iter().for_each(drop));
    let ((), merged) = measure(|| drop(alloc(&allocator, 512)));
    check_hold("releases", &allocator, released, longest::PIECE);
    check_hold("merging", &allocator, merged, longest::PIECE);
    assert!(hold.longest > 100, "a block was split at each order: {hold:?}");
    // The release makes a free block of each order.
    drop(alloc(&allocator, (1 << 18) - 1));
    let (_page, odd) = measure(|| alloc(&allocator, 1));
    check_hold("merging 18 blocks", &allocator, odd, longest::PIECE);
}

/// The reserve has single frames that are not contiguous. The devices take too few segments, or enough.
#[test]
fn the_longest_search_for_pieces_is_bounded() {
    let mut longest = 0;
    for (pages, segments) in [(2, 2), (64, 64), (70, 70), (600, 600), (64, 63), (33, 32)] {
        let allocator = pv_allocator(8192, 32_768);
        let scattered = Constraints::builder().max_segments(600).build().unwrap();
        let mut buffer = allocator.alloc_coherent(600 * PAGE, &scattered).expect("single frames");
        // The lowest frame is released last, so it is the first of the free blocks.
        (0..600).rev().for_each(|page| drop(buffer.split_off(page * PAGE)));
        drop(buffer);
        assert_eq!(allocator.stats().idle, 600, "{:?}", allocator.stats());
        let limits =
            Constraints::builder().max_segments(segments).sleep(Sleep::MustNot).build().unwrap();
        let (buffer, hold) = measure(|| allocator.alloc_coherent(pages * PAGE, &limits).map(drop));
        assert_eq!(buffer.is_ok(), segments as u64 >= pages, "{buffer:?}");
        let name = format!("{pages} pages in {segments} segments");
        check_hold(&name, &allocator, hold, longest::PIECES);
        longest = longest.max(hold.longest);
    }
    assert!(longest > longest::PIECES / 2, "{longest} words: no search came near the limit");
}

#[test]
fn the_longest_hold_of_adoption_is_bounded() {
    for order in [0, 3, 9, 13, 18] {
        let allocator = Allocator::new(SparseKernel::new(LARGE), Retain::default());
        let (buffer, hold) = measure(|| alloc(&allocator, 1 << order));
        assert!(allocator.stats().adopted == 1, "{:?}", allocator.stats());
        check_hold(&format!("adoption of order {order}"), &allocator, hold, longest::MOVE);
        drop(buffer);
        let (freed, hold) = measure(|| allocator.trim(u64::MAX).freed);
        assert!(freed >= 1 << order);
        check_hold(&format!("trim of order {order}"), &allocator, hold, longest::MOVE);
    }
}

#[test]
fn the_longest_hold_of_growth_and_return_is_bounded() {
    for order in [0, 3, 9] {
        let allocator = pv_allocator(8192, 32_768);
        let low = Constraints::builder().mask((1 << 25) - 1).build().unwrap();
        let (buffer, hold) = measure(|| allocator.alloc_coherent(PAGE << order, &low).unwrap());
        assert!(order == 0 || allocator.stats().exchanged == 1, "{:?}", allocator.stats());
        check_hold(&format!("growth by order {order}"), &allocator, hold, longest::MOVE);
        drop(buffer);
        let (report, hold) = measure(|| allocator.trim(u64::MAX));
        assert!(order == 0 || report.returned >= 1 << order, "{report:?}");
        check_hold(&format!("return of order {order}"), &allocator, hold, longest::MOVE);
    }
}
