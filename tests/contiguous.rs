//! Memory in use that becomes contiguous in place.
//!
//! Its bytes and guest addresses stay, and its device addresses change. Xen does not check references
//! here, so the kernel must drop or name every other reference.

#[path = "faults/arm.rs"]
mod arm;
mod faults;

use std::cell::Cell;

use fake_xen::{AreaConfig, Asked, FakeGuest, FakePlatform, FakeXen, GuestBuilder, POISON};
use hypercall::ops::{MmuUpdate, MmuUpdateKind};
use hypercall::{Call, Xen, XenErrno};
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::dma::{
    AllocError, Allocator, CoherentBuffer, Constraints, ConstraintsBuilder, Retain, Sleep,
};
use xen_contig::exchange::{Accounts, ExchangeError, Relocation};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{Holder, LinearMapping};
use xen_contig::platform::Platform;
use xen_contig::vmap::Protection;

use arm::arm;
use faults::{Case, InjectedFault, sweep};

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The words of a frame that the tests compare.
const WORDS: [usize; 4] = [0, 7, 200, 511];

/// The highest bits of a word that a test writes.
const USED: u64 = 0xda7a << 48;

/// Returns what a test writes to a word.
fn pattern(pfn: Pfn, word: usize) -> u64 {
    USED | pfn.number() << 16 | word as u64
}

fn limits(build: impl FnOnce(ConstraintsBuilder) -> ConstraintsBuilder) -> Constraints {
    build(Constraints::builder()).build().expect("the limits do not contradict each other")
}

/// Returns the limits of a device that reaches the lower half of the machine.
fn low() -> Constraints {
    limits(|it| it.mask(4096 * PAGE - 1))
}

/// A guest, its kernel, and an allocator.
struct ContiguousScene {
    platform: Kernel,
    allocator: Allocator<Kernel>,
}

impl ContiguousScene {
    fn new() -> Self {
        Self::of(GuestBuilder::new(2048).areas(AreaConfig::lazy(512)).build())
    }

    fn of(guest: FakeGuest) -> Self {
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        platform.guest().paint();
        let allocator = Allocator::new(platform, Retain::default());
        platform.guest().xen().take_log();
        Self { platform, allocator }
    }

    fn guest(&self) -> &'static FakeGuest {
        self.platform.guest()
    }

    /// Takes frames and writes to them.
    fn take_in_use(&self, frames: u64) -> FrameRun {
        let run = self.platform.take(frames, 1).expect("the kernel has free frames");
        for pfn in run.iter() {
            WORDS.iter().for_each(|word| self.guest().write(0, pfn, *word, pattern(pfn, *word)));
        }
        run
    }

    /// Puts an extent of `frames` frames within the limits into the reserve.
    fn warm(&self, frames: u64, limits: &Constraints) {
        drop(self.allocator.alloc_coherent(frames * PAGE, limits).expect("Xen has an extent"));
        self.guest().xen().take_log();
    }

    fn backing(&self, pfns: impl Iterator<Item = Pfn>) -> Vec<Mfn> {
        pfns.filter_map(|pfn| self.guest().mfn(pfn)).collect()
    }

    /// Returns true if a frame has the bytes that [`take_in_use`](Self::take_in_use) wrote.
    fn holds(&self, pfn: Pfn) -> bool {
        let is_kept = |word: &usize| self.guest().read(1, pfn, *word) == pattern(pfn, *word);
        WORDS.iter().all(is_kept)
    }

    /// Releases a buffer. Its frames may become free frames of the kernel, so they are overwritten.
    fn release(&self, buffer: CoherentBuffer<'_, Kernel>) {
        buffer.frames().iter().for_each(|pfn| self.guest().fill(pfn, 0));
        drop(buffer);
    }

    /// Checks that no free frame has bytes of the run, or of another domain.
    fn check_nothing_leaked(&self) {
        let guest = self.guest();
        let lengths = (0..=10).rev().map(|order| 1 << order);
        let taken: Vec<FrameRun> = lengths
            .flat_map(|frames| std::iter::from_fn(move || self.platform.take(frames, 1)))
            .collect();
        for pfn in taken.iter().flat_map(FrameRun::iter) {
            for word in WORDS.map(|word| guest.read(0, pfn, word)) {
                assert_ne!(word >> 48, USED >> 48, "{pfn} has bytes of a run that was in use");
                assert_ne!(word, POISON, "{pfn} has bytes of another domain");
            }
        }
        taken.into_iter().for_each(|run| self.platform.give(run));
    }
}

/// Checks that the buffer meets the limits, and that its device addresses are right.
fn check_buffer(
    scene: &ContiguousScene,
    buffer: &CoherentBuffer<'_, Kernel>,
    limits: &Constraints,
    run: (Pfn, u64),
) {
    assert_eq!((buffer.frames().first(), buffer.frames().frames()), run, "the guest frames stay");
    assert!(buffer.segments().count() <= limits.max_segments());
    for segment in buffer.segments() {
        assert!(limits.admits(segment.dma.get(), segment.len), "{segment:?}");
    }
    for (index, pfn) in (0..).zip(buffer.frames().iter()) {
        let named = buffer.dma_addr_at(index * PAGE).map(|at| at.frame().number());
        assert_eq!(named, scene.guest().mfn(pfn).map(Mfn::number), "{pfn}");
        assert!(scene.holds(pfn), "the bytes of {pfn}");
    }
    scene.guest().check_whole();
}

#[test]
fn bytes_and_guest_addresses_stay_and_device_addresses_change() {
    for (warm, frames) in [(true, 16), (false, 16), (true, 1), (false, 300), (true, 512)] {
        let scene = ContiguousScene::new();
        if warm {
            scene.warm(frames, &low());
        }
        let run = scene.take_in_use(frames);
        let (first, old) = (run.first(), scene.backing(run.iter()));
        let buffer = scene.allocator.make_contiguous(run, &low()).expect("the run moves in place");
        check_buffer(&scene, &buffer, &low(), (first, frames));
        let new = scene.backing(buffer.frames().iter());
        assert!(new.iter().all(|mfn| !old.contains(mfn)), "all machine frames are new");
        assert_eq!(buffer.segments().count(), 1);
        // The device reads the same bytes at the new address.
        let mut bytes = [0; 8];
        scene.guest().dma_read(buffer.dma_addr(), &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), pattern(first, 0));
        for mfn in old {
            let pfn = scene.guest().pfn(mfn).expect("the guest owns the old frame");
            assert_eq!(
                scene.guest().uniform(pfn),
                Some(0),
                "the old machine frame {mfn} is zeroed"
            );
        }
        scene.check_nothing_leaked();
        scene.release(buffer);
        assert_eq!(scene.allocator.trim(u64::MAX).error, None);
        scene.guest().check_whole();
        scene.check_nothing_leaked();
    }
}

#[test]
fn nothing_is_exchanged_if_the_reserve_has_an_extent_and_xen_flushes_once() {
    let scene = ContiguousScene::new();
    scene.warm(64, &low());
    let buffer = scene
        .allocator
        .make_contiguous(scene.take_in_use(64), &low())
        .expect("the run moves in place");
    let log = scene.guest().xen().take_log();
    assert!(!log.iter().any(|call| call.asked.is_exchange()), "{log:?}");
    let flushes: Vec<usize> = (0..log.len()).filter(|index| log[*index].asked.flushes()).collect();
    let [flush] = flushes[..] else { panic!("not exactly one flush: {log:?}") };
    // The entries of both runs are cleared before the flush. The records and both mappings follow it.
    assert!(
        log.iter()
            .all(|call| call.asked.flushes() || matches!(call.asked, Asked::MmuUpdate { .. }))
    );
    assert!(flush >= 2 && log.len() - flush == 4, "{log:?}");
    scene.release(buffer);
}

#[test]
fn memory_that_suits_the_device_stays_where_it_is() {
    let scene = ContiguousScene::new();
    let pieces = limits(|it| it.max_segments(64));
    let run = scene.take_in_use(16);
    let (first, old) = (run.first(), scene.backing(run.iter()));
    let buffer = scene.allocator.make_contiguous(run, &pieces).expect("the run moves in place");
    check_buffer(&scene, &buffer, &pieces, (first, 16));
    assert_eq!(scene.backing(buffer.frames().iter()), old);
    assert_eq!(scene.guest().xen().take_log(), []);
    scene.release(buffer);
    // The frames are in the reserve now, and a trim frees them.
    assert_eq!(scene.allocator.stats().idle, 16);
    scene.allocator.trim(u64::MAX);
    scene.guest().check_whole();
}

#[test]
fn memory_can_be_moved_into_several_extents() {
    let scene = ContiguousScene::of(GuestBuilder::new(2048).max_order(4).build());
    let pieces = limits(|it| it.mask(4096 * PAGE - 1).max_segments(4));
    let run = scene.take_in_use(50);
    let first = run.first();
    let buffer = scene.allocator.make_contiguous(run, &pieces).expect("the run moves in place");
    check_buffer(&scene, &buffer, &pieces, (first, 50));
    assert!(buffer.segments().count() > 1);
    scene.release(buffer);
    assert_eq!(scene.allocator.trim(u64::MAX).error, None);
    scene.guest().check_whole();
    scene.check_nothing_leaked();
}

#[test]
fn an_alias_that_nothing_uses_is_dropped() {
    let scene = ContiguousScene::new();
    let guest = scene.guest();
    scene.warm(16, &low());
    let run = scene.take_in_use(16);
    let area = guest
        .vmap([run.first().add(3)], Protection::ReadWrite, "old")
        .expect("the stretch has free addresses");
    let address = area.address();
    guest.areas().vunmap(area).expect("a lazy unmap cannot fail");
    let buffer = scene.allocator.make_contiguous(run, &low()).expect("the run moves in place");
    assert_eq!(guest.areas().stats().leftover.pages, 0);
    assert!(!guest.is_mapped(address));
    guest.check_whole();
    scene.release(buffer);
}

#[test]
fn an_alias_of_the_spare_frames_is_dropped() {
    let scene = ContiguousScene::new();
    let guest = scene.guest();
    // The kernel has contiguous memory with a leftover area.
    let spare = scene.allocator.alloc_coherent(16 * PAGE, &low()).expect("Xen has an extent");
    let pfns: Vec<Pfn> = spare.frames().iter().collect();
    let area = guest
        .vmap(pfns.iter().copied(), Protection::ReadWrite, "old")
        .expect("the stretch has free addresses");
    guest.areas().vunmap(area).expect("a lazy unmap cannot fail");
    drop(spare);
    scene.allocator.reclaim(u64::MAX);
    // The run in use is other memory than that.
    let aside: Vec<FrameRun> = std::iter::from_fn(|| scene.platform.take(1, 1)).collect();
    let (run, others): (Vec<_>, Vec<_>) =
        aside.into_iter().partition(|run| (1024..1040).contains(&run.first().number()));
    others.into_iter().for_each(|run| scene.platform.give(run));
    assert_eq!(run.len(), 16);
    let run = guest.run(1024, 16);
    // Xen has no memory, so the allocator searches all of the kernel's memory.
    guest.exhaust_but(0);
    let buffer = scene.allocator.make_contiguous(run, &low()).expect("the run moves in place");
    guest.relieve();
    let mut aliases = 0;
    for mfn in scene.backing(buffer.frames().iter()) {
        aliases += guest.references(mfn) - 1;
    }
    assert_eq!(aliases, 0, "the linear mapping alone maps the new machine frames");
    assert_eq!(scene.allocator.stats().exchanged, 1, "the extent came from the kernel's memory");
    assert_eq!(guest.areas().stats().leftover.pages, 0);
    scene.release(buffer);
}

#[test]
fn a_frame_with_another_reference_is_named_and_nothing_moves() {
    type Prepare = fn(&FakeGuest, Pfn);
    type Named = fn(Holder) -> bool;
    let cases: [(Prepare, Named); 4] = [
        (|guest, pfn| guest.hold(pfn), |it| matches!(it, Holder::Granted { .. })),
        (|guest, pfn| guest.set_special(pfn, true), |it| matches!(it, Holder::Shared { .. })),
        (
            |guest, pfn| {
                guest.alias(3, pfn);
            },
            |it| matches!(it, Holder::Mapping { .. }),
        ),
        (
            |guest, pfn| {
                let _stays_mapped = guest
                    .vmap([pfn], Protection::ReadWrite, "live")
                    .expect("the stretch has free addresses");
            },
            |it| matches!(it, Holder::Area { name: "live", .. }),
        ),
    ];
    // The first limits need a move. The second limits are met in place.
    for wanted in [low(), limits(|it| it.max_segments(64))] {
        for (prepare, is_named) in cases {
            let scene = ContiguousScene::new();
            scene.warm(16, &low());
            let run = scene.take_in_use(16);
            let (first, busy) = (run.first(), run.first().add(9));
            prepare(scene.guest(), busy);
            let before = scene.guest().snapshot();
            scene.guest().xen().take_log();
            let failure = scene.allocator.make_contiguous(run, &wanted).expect_err("a reference");
            match failure.error {
                AllocError::Exchange(ExchangeError::FrameBusy { pfn, mfn, holder }) => {
                    assert_eq!((pfn, mfn), (busy, scene.guest().mfn(busy)));
                    assert!(is_named(holder), "{holder}");
                }
                error => panic!("{error}"),
            }
            let run = failure.remaining.whole().expect("nothing is lost");
            assert_eq!((run.first(), run.frames()), (first, 16));
            let after = scene.guest().snapshot();
            assert_eq!((after.moved(&before), after.rewritten(&before)), (vec![], vec![]));
            assert_eq!(scene.guest().xen().take_log(), []);
        }
    }
}

#[test]
fn a_refusal_leaves_the_run_and_the_reserve_as_they_were() {
    let scene = ContiguousScene::new();
    scene.warm(16, &low());
    let idle = scene.allocator.stats().idle;
    let refuse = |limits: &Constraints, lists: bool| {
        scene.platform.deny_lists(!lists);
        let run = scene.take_in_use(16);
        let failure = scene.allocator.make_contiguous(run, limits).expect_err("a refusal");
        scene.platform.deny_lists(false);
        let run = failure.remaining.whole().expect("nothing is lost");
        assert!(run.iter().all(|pfn| scene.holds(pfn)));
        scene.platform.give(run);
        assert_eq!(scene.allocator.stats().idle, idle);
        failure.error
    };
    assert_eq!(refuse(&low(), false), AllocError::NoListMemory { words: 32 });
    let at_once = limits(|it| it.mask(4096 * PAGE - 1).sleep(Sleep::MustNot));
    assert_eq!(refuse(&at_once, true), AllocError::MustNotSleep);
    let short = limits(|it| it.max_segment(4096));
    assert!(matches!(refuse(&short, true), AllocError::SegmentTooLong { .. }));
    scene.guest().check_whole();
    let empty = scene.platform.guest().run(1024, 0);
    let failure = scene.allocator.make_contiguous(empty, &low()).expect_err("no frames");
    assert_eq!(failure.error, AllocError::ZeroSize);
}

#[test]
fn a_translated_guest_keeps_memory_in_use_where_it_is() {
    let scene = ContiguousScene::of(GuestBuilder::new(2048).translated().build());
    let run = scene.take_in_use(16);
    let first = run.first();
    let any = Constraints::default();
    let at = limits(|it| it.lowest(1 << 40));
    let failure = scene.allocator.make_contiguous(run, &at).expect_err("out of reach");
    assert_eq!(failure.error, AllocError::MemoryInUseStays);
    let run = failure.remaining.whole().expect("nothing is lost");
    let buffer = scene.allocator.make_contiguous(run, &any).expect("contiguous already");
    assert_eq!(buffer.frames().first(), first);
    assert!(buffer.frames().iter().all(|pfn| scene.holds(pfn)));
    assert_eq!(buffer.dma_addr().frame().number(), first.number());
}

/// Relocates a run with a fault. Only quarantined frames lose their bytes.
fn case(frames: u64, warm: bool, fault: Option<&InjectedFault>) -> Case {
    let config = AreaConfig::lazy(512);
    let guest = GuestBuilder::new(1024).machine_frames(2560).areas(config).build();
    let scene = ContiguousScene::of(guest);
    let guest = scene.guest();
    if warm {
        scene.warm(frames, &low());
    }
    let run = scene.take_in_use(frames);
    let area = guest
        .vmap([run.first()], Protection::ReadWrite, "old")
        .expect("the stretch has free addresses");
    guest.areas().vunmap(area).expect("a lazy unmap cannot fail");
    let pfns: Vec<Pfn> = run.iter().collect();
    if let Some(fault) = fault {
        arm(fault, guest);
    }
    let result = scene.allocator.make_contiguous(run, &low());
    let met = guest.xen().disarm() > 0;
    let quarantined = scene.platform.accounts().quarantined();
    let census = guest.check();
    assert_eq!(census.holes.len() as u64, quarantined, "exactly the lost frames are counted");
    assert_eq!(census.unmapped, []);
    let answer = match result {
        Ok(buffer) => {
            assert!(pfns.iter().all(|pfn| scene.holds(*pfn)), "the bytes stay in place");
            assert_eq!(buffer.frames().iter().collect::<Vec<_>>(), pfns);
            assert_eq!(buffer.check_in_place(), Ok(()));
            scene.release(buffer);
            Ok(())
        }
        Err(failure) => {
            let lost = failure.remaining.lost();
            let remaining: Vec<Pfn> =
                failure.remaining.into_iter().flat_map(|run| run.iter()).collect();
            assert_eq!(remaining.len() as u64 + lost, frames);
            for pfn in &pfns {
                assert_eq!(remaining.contains(pfn), !census.holes.contains(pfn), "{pfn}");
            }
            assert!(remaining.iter().all(|pfn| scene.holds(*pfn)), "the bytes stay");
            for pfn in remaining {
                guest.fill(pfn, 0);
                scene.platform.give(guest.run(pfn.number(), 1));
            }
            Err(failure.error.to_string())
        }
    };
    scene.check_nothing_leaked();
    // Without a fault the next run moves, and all memory can be freed.
    let again = scene.take_in_use(4);
    let buffer = scene.allocator.make_contiguous(again, &low()).expect("no fault is armed");
    scene.release(buffer);
    scene.allocator.trim(u64::MAX);
    let census = guest.check();
    assert_eq!(census.holes.len() as u64, quarantined);
    scene.check_nothing_leaked();
    Case { met, answer, quarantined }
}

/// Fails every hypercall once.
fn sweep_all(name: &str, frames: u64, warm: bool) {
    let tally = sweep(name, false, |fault| case(frames, warm, fault));
    assert!(tally.refused > 0, "{tally:?}");
}

#[test]
fn every_hypercall_fails_once() {
    sweep_all("in place, warm", 16, true);
}

#[test]
fn every_hypercall_fails_once_without_an_extent_in_the_reserve() {
    sweep_all("in place, cold", 16, false);
}

#[test]
fn every_hypercall_fails_once_if_the_records_take_two_calls() {
    sweep_all("in place, two batches", 260, true);
}

/// A hypervisor that always refuses certain page-table updates.
struct RefusingXen<'a, F> {
    xen: &'a FakeXen,
    refuses: F,
    refused: Cell<u64>,
}

// SAFETY: it passes calls on to the model. Where it refuses an update, it does the updates before it
// and returns their number with an error, as Xen does.
unsafe impl<F: Fn(MmuUpdateKind) -> bool> Xen for RefusingXen<'_, F> {
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        if let Call::MmuUpdate { updates, done, domain } = call {
            let updates: &[MmuUpdate] = updates;
            if let Some(at) = updates.iter().position(|update| (self.refuses)(update.kind())) {
                let before = &updates[..at];
                // SAFETY: `Xen::call` requires of the caller what these updates, a part of its list,
                // require.
                unsafe { self.xen.mmu_update(before, done, *domain)? };
                **done = at as u32;
                self.refused.set(self.refused.get() + 1);
                return Err(XenErrno::EINVAL);
            }
        }
        // SAFETY: `Xen::call` requires of the caller what the same method of the model requires.
        unsafe { self.xen.call(call) }
    }
}

const RUN: u64 = 600;
const SPARE: u64 = 800;
const FRAMES: u64 = 8;

/// Relocates a run while Xen always refuses certain updates.
fn relocate(
    guest: &FakeGuest,
    accounts: &Accounts,
    refuses: impl Fn(MmuUpdateKind) -> bool,
) -> (Vec<Pfn>, Vec<Pfn>, u64, Option<ExchangeError>) {
    guest.paint();
    let xen = RefusingXen { xen: guest.xen(), refuses, refused: Cell::new(0) };
    let relocator = guest.relocator_via(&xen, accounts);
    let (run, spare) = (guest.run(RUN, FRAMES), guest.run(SPARE, FRAMES));
    relocator.check(&run).expect("nothing references the run");
    let mut list = [0; 2 * FRAMES as usize];
    let Relocation { run, spare, moved, error } = relocator.relocate(run, spare, &mut list);
    assert!(xen.refused.get() > 0, "the relocation made no refused update");
    let lost = run.lost() + spare.lost();
    assert_eq!(accounts.quarantined(), lost);
    let pfns = |runs: xen_contig::exchange::Remaining<'_>| -> Vec<Pfn> {
        runs.into_iter().flat_map(|run| run.iter()).collect()
    };
    let (run, spare) = (pfns(run), pfns(spare));
    for pfn in &run {
        assert_eq!(guest.uniform(*pfn), Some(FakeGuest::colour(*pfn)), "the bytes of {pfn}");
    }
    let census = guest.check();
    assert_eq!(census.holes.len() as u64, lost);
    assert_eq!(census.unmapped, []);
    let named = run.iter().chain(&spare).all(|pfn| !census.holes.contains(pfn));
    assert!(named, "every remaining frame is mapped");
    (run, spare, moved, error)
}

fn is_record_of(update: MmuUpdateKind, frame: Mfn) -> bool {
    matches!(update, MmuUpdateKind::MachineToPhys { mfn, .. } if mfn == frame)
}

fn maps(update: MmuUpdateKind, frame: Mfn) -> bool {
    matches!(update, MmuUpdateKind::PageTable { pte, .. } if pte.is_present() && pte.mfn() == frame)
}

#[test]
fn a_refused_m2p_update_loses_no_frame_or_one_spare_frame() {
    // Xen refuses the first update of a pair. The pairs before it are undone.
    let (guest, accounts) = (FakeGuest::new(1024), Accounts::new());
    let spare = guest.mfn(Pfn::new(SPARE + 5)).expect("the frame is populated");
    let (run, spares, moved, error) =
        relocate(&guest, &accounts, |update| is_record_of(update, spare));
    assert_eq!((run.len(), spares.len(), moved), (8, 8, 0));
    assert!(matches!(error, Some(ExchangeError::Record { mfn, .. }) if mfn == spare));
    guest.check_whole();
    // Xen refuses the second update of a pair, and the first one is undone.
    let (guest, accounts) = (FakeGuest::new(1024), Accounts::new());
    let used = guest.mfn(Pfn::new(RUN + 5)).expect("the frame is populated");
    let (run, spares, moved, error) =
        relocate(&guest, &accounts, |update| is_record_of(update, used));
    assert_eq!((run.len(), spares.len(), moved), (8, 8, 0));
    assert!(matches!(error, Some(ExchangeError::Record { mfn, .. }) if mfn == used));
    guest.check_whole();
    // Xen refuses the second update and also the undoing of the first.
    let (guest, accounts) = (FakeGuest::new(1024), Accounts::new());
    let used = guest.mfn(Pfn::new(RUN + 5)).expect("the frame is populated");
    let name = SPARE + 5;
    let names_spare = |update: MmuUpdateKind| matches!(update, MmuUpdateKind::MachineToPhys { pfn, .. } if pfn == name);
    let (run, spares, ..) = relocate(&guest, &accounts, names_spare);
    assert_eq!((run.len(), spares.len(), accounts.quarantined()), (8, 7, 1));
    assert_eq!(guest.mfn(Pfn::new(RUN + 5)), Some(used));
}

#[test]
fn a_pair_that_xen_does_not_swap_back_stays_swapped() {
    let (guest, accounts) = (FakeGuest::new(1024), Accounts::new());
    let stuck = guest.mfn(Pfn::new(SPARE + 5)).expect("the frame is populated");
    let once = guest.mfn(Pfn::new(RUN + 2)).expect("the frame is populated");
    // Pair 5 fails, and pair 2 cannot be undone.
    let refuses = |update: MmuUpdateKind| {
        let undoes = |pfn: u64| pfn == RUN + 2;
        is_record_of(update, stuck)
            || matches!(update, MmuUpdateKind::MachineToPhys { mfn, pfn }
                if mfn == once && undoes(pfn))
    };
    let (run, spares, moved, error) = relocate(&guest, &accounts, refuses);
    assert_eq!((run.len(), spares.len(), moved), (8, 8, 1), "{error:?}");
    guest.check_whole();
}

#[test]
fn a_machine_frame_that_xen_does_not_map_is_left_out() {
    // The run keeps the old machine frame at this place, so no byte is lost.
    let (guest, accounts) = (FakeGuest::new(1024), Accounts::new());
    let bad = guest.mfn(Pfn::new(SPARE + 5)).expect("the frame is populated");
    let (run, spares, moved, error) = relocate(&guest, &accounts, |update| maps(update, bad));
    assert_eq!((run.len(), spares.len(), moved), (8, 7, 7));
    assert!(matches!(error, Some(ExchangeError::PageTable { pfn, .. }) if pfn.number() == RUN + 5));
    // If Xen does not map an old machine frame again, only the spare run loses a frame.
    let (guest, accounts) = (FakeGuest::new(1024), Accounts::new());
    let bad = guest.mfn(Pfn::new(RUN + 5)).expect("the frame is populated");
    let (run, spares, moved, error) = relocate(&guest, &accounts, |update| maps(update, bad));
    assert_eq!((run.len(), spares.len(), moved, error), (8, 7, 8, None));
    // If Xen maps neither of the two, exactly this frame is quarantined.
    let (guest, accounts) = (FakeGuest::new(1024), Accounts::new());
    let entry = guest.entry(Pfn::new(RUN + 5)).get();
    let (run, spares, _, error) = relocate(
        &guest,
        &accounts,
        |update| matches!(update, MmuUpdateKind::PageTable { entry: at, pte } if at == entry && pte.is_present()),
    );
    assert_eq!((run.len(), spares.len(), accounts.quarantined()), (7, 8, 1), "{error:?}");
    assert!(!run.contains(&Pfn::new(RUN + 5)));
}
