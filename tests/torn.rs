//! The recovery of a torn exchange ([C51](xen_contig::conformance#C51)).
//!
//! The library finds the new frames by Xen's M2P. It quarantines the frames in doubt, and returns the
//! frames before and after them. `hostile_xen.rs` tests exchanges of which nothing is recovered.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fake_xen::{ExchangeFault, FakeGuest, Fault, Lie, Owner};
use hypercall::{PageTableFlags, XenErrno};
use xen_contig::addr::{AddressBits, MachineAddr, Mfn, Order, Pfn};
use xen_contig::exchange::{
    Accounts, ExchangeError, ExchangeFailure, Lists, OnRefusal, Part, Placement, Remaining,
};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{FlushClock, GuestMemory, LinearMapping};

const FIRST: u64 = 512;
const FRAMES: u64 = 16;
const BITS: u32 = 23;

/// A frame of the guest outside the run.
const OTHER: Pfn = Pfn::new(900);

/// A part of four chunks of four frames.
const CHUNKS: [Part; 1] = [Part::gather(0, 4, order(2), Placement::ANYWHERE)];

const fn order(order: u32) -> Order {
    match Order::new(order) {
        Ok(order) => order,
        Err(_) => Order::ZERO,
    }
}

fn torn(exchanged: u64) -> ExchangeError {
    ExchangeError::Torn { errno: Some(XenErrno::EFAULT), exchanged }
}

struct TornScene {
    guest: FakeGuest,
    accounts: Accounts,
}

impl TornScene {
    fn new() -> Self {
        let scene = Self { guest: FakeGuest::new(1024), accounts: Accounts::new() };
        scene.guest.paint();
        scene
    }

    /// Returns the machine frames that back the run.
    fn backing(&self) -> Vec<Mfn> {
        self.guest.run(FIRST, FRAMES).iter().filter_map(|pfn| self.guest.mfn(pfn)).collect()
    }

    /// Exchanges by the linear mapping `linear`. Returns the failure.
    fn fail_by<'a>(
        &'a self,
        linear: &'a impl LinearMapping,
        parts: &[Part],
    ) -> ExchangeFailure<'a> {
        let xen = self.guest.xen();
        let exchanger = self.guest.exchanger_via(xen, linear, &self.accounts, Order::MAX);
        let (backing, extents) = (&mut [0; FRAMES as usize], &mut [0; FRAMES as usize]);
        let run = self.guest.run(FIRST, FRAMES);
        exchanger.exchange(run, parts, OnRefusal::Undo, Lists { backing, extents }).unwrap_err()
    }

    /// Exchanges with a fault. Returns the failure.
    fn fail(&self, fault: ExchangeFault, parts: &[Part]) -> ExchangeFailure<'_> {
        self.guest.xen().arm_exchange(fault);
        let failure = self.fail_by(&self.guest, parts);
        assert_eq!(self.guest.xen().disarm(), 1, "{failure}");
        failure
    }

    /// Checks that every frame of the run is returned, mapped and zeroed.
    fn check_recovered(&self, remaining: Remaining<'_>) {
        let run = remaining.whole().expect("nothing is lost");
        assert_eq!((&run, self.accounts.quarantined()), (&self.guest.run(FIRST, FRAMES), 0));
        self.guest.check_whole();
        self.check_zeroed_except(FRAMES..FRAMES);
        // The run can be exchanged again.
        let exchanger = self.guest.exchanger(&self.accounts, Order::MAX);
        let list = &mut [0; FRAMES as usize];
        assert!(exchanger.acquire(run, AddressBits::UNLIMITED, list).is_ok());
    }

    /// Checks that the run is zeroed except for the lost frames.
    ///
    /// No frame outside the run may have changed.
    fn check_zeroed_except(&self, lost: Range<u64>) {
        for pfn in self.guest.usable() {
            let expected = match pfn.number().checked_sub(FIRST) {
                // A lost frame is not mapped, so its bytes cannot be read.
                Some(index) if lost.contains(&index) => continue,
                Some(0..FRAMES) => 0,
                _ => FakeGuest::colour(pfn),
            };
            assert_eq!(self.guest.uniform(pfn), Some(expected), "{pfn}");
        }
    }

    /// Checks that exactly these frames of the run are quarantined and unmapped.
    ///
    /// The others are returned, mapped and zeroed.
    fn check_lost(&self, lost: Range<u64>, failure: ExchangeFailure<'_>) {
        let piece = |frames: Range<u64>| {
            let run = |frames: Range<u64>| {
                self.guest.run(FIRST + frames.start, frames.end - frames.start)
            };
            (!frames.is_empty()).then(|| run(frames))
        };
        let pieces: Vec<FrameRun> =
            [piece(0..lost.start), piece(lost.end..FRAMES)].into_iter().flatten().collect();
        let quarantined = lost.end - lost.start;
        assert_eq!(self.accounts.quarantined(), quarantined, "{failure}");
        assert_eq!(failure.remaining.lost(), quarantined, "{failure}");
        let message = failure.to_string();
        let remaining: Vec<FrameRun> = failure.remaining.into_iter().collect();
        assert_eq!(remaining, pieces, "{message}");
        let census = self.guest.check();
        let holes: Vec<Pfn> = lost.clone().map(|index| Pfn::new(FIRST + index)).collect();
        assert_eq!((census.holes, census.unmapped), (holes, vec![]), "{message}");
        assert_eq!(census.orphans.len() as u64, quarantined, "{message}");
        self.check_zeroed_except(lost);
        // The remaining runs can be exchanged again.
        let exchanger = self.guest.exchanger(&self.accounts, Order::MAX);
        for run in remaining {
            let lists =
                Lists { backing: &mut [0; FRAMES as usize], extents: &mut [0; FRAMES as usize] };
            let part = [Part::replace(0, run.frames())];
            let again = exchanger.exchange(run, &part, OnRefusal::Undo, lists).unwrap();
            assert_eq!((again.done, again.error), (again.run.frames(), None));
        }
        assert_eq!(self.guest.check().holes.len() as u64, quarantined);
    }

    /// Checks that each frame is returned and mapped, or quarantined and unmapped.
    fn check_accounts(&self, failure: ExchangeFailure<'_>) {
        let message = failure.to_string();
        let returned: Vec<Pfn> = failure.remaining.into_iter().flat_map(|run| run.iter()).collect();
        assert_eq!(returned.len() as u64 + self.accounts.quarantined(), FRAMES, "{message}");
        let census = self.guest.check();
        let run = self.guest.run(FIRST, FRAMES);
        let holes: Vec<Pfn> = run.iter().filter(|pfn| !returned.contains(pfn)).collect();
        assert_eq!((census.holes, census.unmapped), (holes, vec![]), "{message}");
        assert!(returned.iter().all(|pfn| self.guest.uniform(*pfn) == Some(0)), "{message}");
    }

    /// Returns the frames of the run that another machine frame backs than before.
    fn moved(&self, old: &[Mfn]) -> Vec<u64> {
        let is_moved = |index: &u64| {
            let mfn = self.guest.mfn(Pfn::new(FIRST + index));
            mfn.is_some_and(|mfn| mfn != old[*index as usize])
        };
        (0..FRAMES).filter(is_moved).collect()
    }
}

/// Returns the frames of a chunk of [`CHUNKS`].
const fn chunk(index: u64) -> Range<u64> {
    4 * index..4 * index + 4
}

#[test]
fn c51_the_new_frames_of_an_acquire_are_found() {
    let scene = TornScene::new();
    let old = scene.backing();
    let exchanger = scene.guest.exchanger(&scene.accounts, Order::MAX);
    scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(0));
    let bits = AddressBits::new(BITS).unwrap();
    let run = scene.guest.run(FIRST, FRAMES);
    let failure = exchanger.acquire(run, bits, &mut [0; FRAMES as usize]).unwrap_err();
    assert_eq!((scene.guest.xen().disarm(), failure.error), (1, torn(0)));
    assert!(old.iter().all(|mfn| scene.guest.owner(*mfn) == Some(Owner::Free)));
    assert!(scene.backing().iter().all(|mfn| !old.contains(mfn)));
    scene.check_recovered(failure.remaining);
}

#[test]
fn c51_the_new_frames_of_a_release_are_found() {
    for entry in [0, 7, FRAMES - 1] {
        let scene = TornScene::new();
        let exchanger = scene.guest.exchanger(&scene.accounts, Order::MAX);
        let run = scene.guest.run(FIRST, FRAMES);
        let list = &mut [0; 2 * FRAMES as usize];
        let extent = exchanger.acquire(run, AddressBits::UNLIMITED, list).unwrap();
        scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(entry));
        let failure = exchanger.release(extent, list).unwrap_err();
        assert_eq!((scene.guest.xen().disarm(), failure.error), (1, torn(0)));
        scene.check_recovered(failure.remaining);
    }
}

#[test]
fn c51_chunks_before_the_torn_one_stay_exchanged_and_later_ones_are_mapped_again() {
    for (preempt, chunk) in (0..4).flat_map(|chunk| [(false, chunk), (true, chunk)]) {
        let scene = TornScene::new();
        scene.guest.xen().set_preempt(preempt);
        let old = scene.backing();
        let failure = scene.fail(ExchangeFault::OutUnwritable(chunk), &CHUNKS);
        assert_eq!(failure.error, torn(4 * chunk));
        let backing = scene.backing();
        for (index, (old, new)) in (0..).zip(old.iter().zip(&backing)) {
            assert_eq!(old == new, index / 4 > chunk, "frame {index} with chunk {chunk} torn");
        }
        for extent in backing.chunks(4).take(chunk as usize + 1) {
            assert!((0..).zip(extent).all(|(index, mfn)| *mfn == extent[0].add(index)));
        }
        scene.check_recovered(failure.remaining);
    }
}

#[test]
fn c51_if_each_frame_is_a_chunk_one_frame_is_searched() {
    let scene = TornScene::new();
    let old = scene.backing();
    let parts = [Part::replace(0, 4), Part::replace(8, 8)];
    let failure = scene.fail(ExchangeFault::OutUnwritable(3), &parts);
    assert_eq!(failure.error, torn(3));
    let moved = old.iter().zip(scene.backing()).filter(|(old, new)| **old != *new).count();
    // The second part is not exchanged.
    assert_eq!(moved, 4);
    scene.check_recovered(failure.remaining);
}

#[test]
fn c51_the_new_extents_of_a_swap_are_found() {
    for (entry, fault) in (0..4).map(|entry| (entry, ExchangeFault::OutUnwritable(entry))) {
        let scene = TornScene::new();
        let exchanger = scene.guest.exchanger(&scene.accounts, Order::MAX);
        let lists = Lists { backing: &mut [0; 16], extents: &mut [0; 16] };
        let run = scene.guest.run(FIRST, FRAMES);
        assert!(exchanger.exchange(run, &CHUNKS, OnRefusal::Undo, lists).is_ok());
        let old = scene.backing();
        let swap = [Part::swap(0, 4, order(2), Placement::ANYWHERE)];
        let failure = scene.fail(fault, &swap);
        assert_eq!(failure.error, torn(entry));
        assert!(scene.moved(&old).into_iter().eq(0..4 * entry + 4));
        scene.check_recovered(failure.remaining);
    }
}

#[test]
fn c50_a_chunk_without_m2p_entries_is_lost_and_no_other() {
    for (preempt, torn_chunk) in (0..4).flat_map(|chunk| [(false, chunk), (true, chunk)]) {
        let scene = TornScene::new();
        scene.guest.xen().set_preempt(preempt);
        let old = scene.backing();
        let failure = scene.fail(ExchangeFault::OutUnreadable(torn_chunk), &CHUNKS);
        assert_eq!(failure.error, torn(4 * torn_chunk));
        assert!(scene.moved(&old).into_iter().eq(0..4 * torn_chunk));
        scene.check_lost(chunk(torn_chunk), failure);
    }
}

#[test]
fn c50_if_each_frame_is_a_chunk_one_frame_is_lost() {
    for frame in [0, 3, 7] {
        let scene = TornScene::new();
        let old = scene.backing();
        let parts = [Part::replace(0, 8), Part::replace(8, 8)];
        let failure = scene.fail(ExchangeFault::OutUnreadable(frame), &parts);
        assert_eq!(failure.error, torn(frame));
        assert!(scene.moved(&old).into_iter().eq(0..frame));
        scene.check_lost(frame..frame + 1, failure);
    }
}

#[test]
fn c24_a_chunk_that_xen_rolled_back_is_mapped_again() {
    for frame in [0, 5, 15] {
        let scene = TornScene::new();
        let old = scene.backing();
        let failure = scene.fail(ExchangeFault::InUnreadable(frame), &CHUNKS);
        let exchanged = frame / 4 * 4;
        assert_eq!(failure.error, torn(exchanged));
        assert!(scene.moved(&old).into_iter().eq(0..exchanged));
        scene.check_recovered(failure.remaining);
    }
}

#[test]
fn c52_a_chunk_that_the_iommu_does_not_map_is_lost_and_no_other() {
    for (torn_chunk, errno) in [(0, XenErrno::EINVAL), (2, XenErrno::ENOMEM), (3, XenErrno::EPERM)]
    {
        let scene = TornScene::new();
        let failure = scene.fail(ExchangeFault::IommuMap(torn_chunk, errno), &CHUNKS);
        let exchanged = 4 * torn_chunk;
        assert_eq!(failure.error, ExchangeError::Torn { errno: Some(errno), exchanged });
        scene.check_lost(chunk(torn_chunk), failure);
    }
}

#[test]
fn the_parts_before_and_after_a_torn_part_are_returned() {
    let cut = |first| Part::gather(first, 4, order(1), Placement::ANYWHERE);
    let whole = |first| Part::gather(first, 1, order(3), Placement::ANYWHERE);
    for (parts, first) in [([cut(0), whole(8)], 0), ([whole(0), cut(8)], 8)] {
        // The third chunk, which only one of the two parts has.
        let fault = ExchangeFault::OutUnreadable(2);
        let scene = TornScene::new();
        let old = scene.backing();
        let failure = scene.fail(fault.clone(), &parts);
        assert_eq!(failure.error, torn(4));
        assert!(scene.moved(&old).into_iter().eq(0..first + 4));
        scene.check_lost(first + 4..first + 6, failure);

        // If the kernel does not read the M2P, the whole part is in doubt.
        let scene = TornScene::new();
        let old = scene.backing();
        scene.guest.xen().arm_exchange(fault);
        let kernel = M2pKernel { guest: &scene.guest, m2p: M2pAccess::None };
        let failure = scene.fail_by(&kernel, &parts);
        assert!(scene.moved(&old).into_iter().eq(0..first));
        scene.check_lost(first..first + 8, failure);
    }
}

#[test]
fn a_frame_that_is_not_found_is_lost_and_no_other() {
    for frame in [0, 6, 13, FRAMES - 1] {
        let scene = TornScene::new();
        scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(frame / 4));
        let hidden = M2pAccess::AllExcept(Pfn::new(FIRST + frame));
        let kernel = M2pKernel { guest: &scene.guest, m2p: hidden };
        let failure = scene.fail_by(&kernel, &CHUNKS);
        assert_eq!(failure.error, torn(frame / 4 * 4));
        scene.check_lost(frame..frame + 1, failure);
    }
}

#[test]
fn a_foreign_frame_with_the_same_m2p_entry_is_skipped() {
    // Frames of another guest come before and after the new frame in the M2P.
    for bits in [BITS, 64] {
        let scene = TornScene::new();
        let foreign: Vec<Mfn> = (0..FRAMES).map(|_| scene.guest.foreign_frame()).collect();
        for (mfn, pfn) in foreign.iter().zip(scene.guest.run(FIRST, FRAMES).iter()) {
            scene.guest.record(*mfn, Some(pfn));
        }
        let placement = Placement::below(AddressBits::new(bits).unwrap());
        let parts = [Part::gather(0, 1, order(4), placement)];
        let failure = scene.fail(ExchangeFault::OutUnwritable(0), &parts);
        assert!(scene.backing().iter().all(|mfn| !foreign.contains(mfn)));
        foreign.iter().for_each(|mfn| _ = scene.guest.record(*mfn, None));
        scene.check_recovered(failure.remaining);
    }
}

#[test]
fn if_two_own_frames_match_neither_is_accepted() {
    let whole = [Part::gather(0, 1, order(4), Placement::ANYWHERE)];
    for (index, parts, torn_chunk, lost) in [
        (0, &whole, 0, 0..1),
        (6, &whole, 0, 6..7),
        (FRAMES - 1, &whole, 0, FRAMES - 1..FRAMES),
        (6, &CHUNKS, 1, 6..7),
        // If the torn chunk is another one, the false entry is skipped.
        (6, &CHUNKS, 2, FRAMES..FRAMES),
        (6, &CHUNKS, 0, FRAMES..FRAMES),
    ] {
        let scene = TornScene::new();
        let other = scene.guest.mfn(OTHER).unwrap();
        scene.guest.record(other, Some(Pfn::new(FIRST + index)));
        let failure = scene.fail(ExchangeFault::OutUnwritable(torn_chunk), parts);
        scene.guest.record(other, Some(OTHER));
        assert_eq!(failure.error, torn(4 * torn_chunk));
        match lost.is_empty() {
            true => scene.check_recovered(failure.remaining),
            false => scene.check_lost(lost, failure),
        }
        assert_eq!(scene.guest.uniform(OTHER), Some(FakeGuest::colour(OTHER)));
    }
}

#[test]
fn a_count_or_a_list_that_contradicts_the_m2p_is_not_accepted() {
    let whole = [Part::gather(0, 1, order(4), Placement::ANYWHERE)];
    let singles = [Part::replace(0, FRAMES)];
    let chunks: &[Part] = &CHUNKS;
    let elsewhere = TornScene::new().guest.mfn(OTHER).map(Mfn::number);
    // The count is too low, as if Xen could not write it, or too high, or impossible.
    for (parts, commit, count, out) in [
        (chunks, true, Some(0), None),
        (chunks, true, Some(4), None),
        (chunks, true, Some(8), None),
        (chunks, true, Some(12), None),
        (chunks, true, None, None),
        (chunks, false, Some(4), None),
        (chunks, false, Some(12), None),
        (&whole, true, Some(1), None),
        (&whole, true, Some(17), None),
        (&whole, true, Some(u64::MAX), None),
        (&whole, false, Some(u64::MAX), None),
        // The count is possible, but the list names a frame that backs another guest frame.
        (&singles, true, Some(FRAMES - 1), elsewhere),
    ] {
        for answer in [Err(XenErrno::EFAULT), Err(XenErrno::ENOMEM), Ok(0)] {
            if (answer.is_ok() && count.is_none_or(|count| count == FRAMES))
                || (answer == Err(XenErrno::ENOMEM) && !commit && count != Some(u64::MAX))
            {
                // This combination is a success or a refusal.
                continue;
            }
            let scene = TornScene::new();
            let old = scene.backing();
            let failure = scene.fail(ExchangeFault::Lie(Lie { commit, answer, count, out }), parts);
            let exchanged = count.unwrap_or(FRAMES);
            assert_eq!(failure.error, ExchangeError::Torn { errno: answer.err(), exchanged });
            let moved = if commit { 0..FRAMES } else { 0..0 };
            assert!(scene.moved(&old).into_iter().eq(moved), "{failure}");
            scene.check_recovered(failure.remaining);
        }
    }
}

#[test]
fn a_refused_call_in_a_recovery_quarantines_frames_or_loses_none() {
    let (mut recovered, mut quarantined) = (0, 0);
    for (call, after) in (1..).flat_map(|call| [(call, 0), (call, 5)]) {
        let scene = TornScene::new();
        scene.guest.xen().arm(Fault::refuse(call, XenErrno::EINVAL).after(after));
        scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(1));
        let exchanger = scene.guest.exchanger(&scene.accounts, Order::MAX);
        let (backing, extents) = (&mut [0; FRAMES as usize], &mut [0; FRAMES as usize]);
        let (run, lists) = (scene.guest.run(FIRST, FRAMES), Lists { backing, extents });
        let result = exchanger.exchange(run, &CHUNKS, OnRefusal::Undo, lists);
        scene.guest.xen().disarm();
        // Such an exchange makes fewer calls.
        if call > 12 {
            break;
        }
        let failure = match result {
            Err(failure) => failure,
            Ok(progress) => {
                // Xen refused the exchange itself.
                assert!(progress.error.is_some(), "call {call}: {progress:?}");
                scene.guest.check_whole();
                continue;
            }
        };
        if failure.remaining.lost() == 0 {
            // The call came before the exchange, or the recovery succeeded without it.
            scene.guest.check_whole();
            recovered += 1;
        } else {
            scene.check_accounts(failure);
            quarantined += 1;
        }
    }
    assert!(recovered > 0 && quarantined > 0, "{recovered} recovered, {quarantined} quarantined");
}

/// How a kernel reads the M2P.
enum M2pAccess {
    /// It does not read the M2P.
    None,
    /// The second read, which maps the candidates, returns another frame for the last entry.
    ///
    /// The cell counts the reads.
    Stale(Cell<u32>),
    /// It does not see the entry of this frame.
    AllExcept(Pfn),
    /// It panics.
    Panic,
}

/// A guest whose kernel reads the M2P in another way.
struct M2pKernel<'g> {
    guest: &'g FakeGuest,
    m2p: M2pAccess,
}

// SAFETY: every method calls the same method of the guest.
unsafe impl GuestMemory for M2pKernel<'_> {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: the frames are mapped, and nothing else uses them ([M1](xen_contig::rules#M1)):
        // the function's requirement.
        unsafe { self.guest.zero(first, frames) }
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.guest.pointer(pfn)
    }
}

// SAFETY: every method calls the same method of the guest, except that `on_record` leaves out entries
// or reports a false one. The trait lets it report candidates, which the library verifies.
unsafe impl LinearMapping for M2pKernel<'_> {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        self.guest.entry(pfn)
    }

    fn flags(&self) -> PageTableFlags {
        self.guest.flags()
    }

    fn flushes(&self) -> &FlushClock {
        self.guest.flushes()
    }

    fn on_record(&self, first: Pfn, frames: u64, see: &mut dyn FnMut(Pfn, Mfn)) {
        let reads = match &self.m2p {
            M2pAccess::None => return,
            M2pAccess::Panic => panic!("the kernel panics, as this test expects"),
            M2pAccess::Stale(reads) => reads,
            M2pAccess::AllExcept(hidden) => {
                let mut see = |pfn, mfn| {
                    if pfn != *hidden {
                        see(pfn, mfn)
                    }
                };
                return self.guest.on_record(first, frames, &mut see);
            }
        };
        reads.set(reads.get() + 1);
        let other = self.guest.mfn(OTHER).filter(|_| reads.get() == 2);
        let last = Pfn::new(FIRST + FRAMES - 1);
        self.guest.on_record(first, frames, &mut |pfn, mfn| {
            see(pfn, other.filter(|_| pfn == last).unwrap_or(mfn));
        });
    }
}

#[test]
fn without_the_m2p_the_whole_part_is_lost() {
    let scene = TornScene::new();
    scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(0));
    let kernel = M2pKernel { guest: &scene.guest, m2p: M2pAccess::None };
    let failure = scene.fail_by(&kernel, &CHUNKS);
    assert_eq!(failure.error, torn(0));
    scene.check_lost(0..FRAMES, failure);
}

#[test]
fn a_panic_in_a_transaction_quarantines_the_run() {
    let scene = TornScene::new();
    scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(0));
    let kernel = M2pKernel { guest: &scene.guest, m2p: M2pAccess::Panic };
    let result = catch_unwind(AssertUnwindSafe(|| scene.fail_by(&kernel, &CHUNKS)));
    assert!(result.is_err());
    assert_eq!(scene.accounts.quarantined(), FRAMES);
    let holes: Vec<Pfn> = (FIRST..FIRST + FRAMES).map(Pfn::new).collect();
    assert_eq!(scene.guest.check().holes, holes, "no frame of the run is mapped");
}

#[test]
fn a_frame_whose_m2p_entry_changed_is_not_accepted() {
    let scene = TornScene::new();
    scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(0));
    let kernel = M2pKernel { guest: &scene.guest, m2p: M2pAccess::Stale(Cell::new(0)) };
    let failure = scene.fail_by(&kernel, &[Part::gather(0, 1, order(4), Placement::ANYWHERE)]);
    assert_eq!(failure.error, torn(0));
    scene.check_lost(FRAMES - 1..FRAMES, failure);
    assert_eq!(scene.guest.uniform(OTHER), Some(FakeGuest::colour(OTHER)));
}
