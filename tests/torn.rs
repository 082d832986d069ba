//! C51, where the run comes back: the new frames are found by Xen's M2P, and only where there is no
//! doubt. What can't be recovered is in `hostile_xen.rs`, too.

use std::cell::Cell;

use fake_xen::{ExchangeFault, FakeGuest, FakeXen, Fault, Lie, Owner};
use hypercall::{PageTableFlags, XenErrno};
use xen_contig::addr::{AddressBits, MachineAddr, Mfn, Order, Pfn};
use xen_contig::exchange::{
    Accounts, ExchangeError, ExchangeFailure, Exchanger, Lists, OnRefusal, Part, Placement,
};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{FlushClock, GuestMemory, LinearMapping};

const FIRST: u64 = 512;
const FRAMES: u64 = 16;
const BITS: u32 = 23;

/// An own frame that is no part of the run.
const OTHER: Pfn = Pfn::new(900);

/// Four chunks of four.
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

struct Scene {
    guest: FakeGuest,
    accounts: Accounts,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { guest: FakeGuest::new(1024), accounts: Accounts::new() };
        scene.guest.paint();
        scene
    }

    /// What the run has beneath it.
    fn beneath(&self) -> Vec<Mfn> {
        self.guest.run(FIRST, FRAMES).iter().filter_map(|pfn| self.guest.mfn(pfn)).collect()
    }

    /// An exchange in which `fault` strikes, through `linear`.
    fn fail_by(&self, linear: &impl LinearMapping, parts: &[Part]) -> ExchangeFailure {
        let p2m = self.guest.p2m();
        let xen: &FakeXen = self.guest.xen();
        let exchanger = Exchanger::new(xen, &p2m, linear, &self.accounts, Order::MAX);
        let (beneath, scratch) = (&mut [0; FRAMES as usize], &mut [0; FRAMES as usize]);
        let run = self.guest.run(FIRST, FRAMES);
        exchanger.exchange(run, parts, OnRefusal::Undo, Lists { beneath, scratch }).unwrap_err()
    }

    fn fail(&self, fault: ExchangeFault, parts: &[Part]) -> ExchangeFailure {
        self.guest.xen().arm_exchange(fault);
        let failure = self.fail_by(&self.guest, parts);
        assert_eq!(self.guest.xen().disarm(), 1, "{failure}");
        failure
    }

    /// The run is back as ordinary memory of the guest: every frame in its place, zeroed.
    fn is_recovered(&self, run: Option<FrameRun>) {
        assert_eq!((run, self.accounts.quarantined()), (Some(self.guest.run(FIRST, FRAMES)), 0));
        self.guest.check_whole();
        let in_run = |pfn: Pfn| (FIRST..FIRST + FRAMES).contains(&pfn.number());
        for pfn in self.guest.usable() {
            let expected = if in_run(pfn) { 0 } else { FakeGuest::colour(pfn) };
            assert_eq!(self.guest.uniform(pfn), Some(expected), "{pfn}");
        }
        // And it can be used: the next exchange goes through.
        let (p2m, bits) = (self.guest.p2m(), AddressBits::UNLIMITED);
        let (xen, guest) = (self.guest.xen(), &self.guest);
        let exchanger = Exchanger::new(xen, &p2m, guest, &self.accounts, Order::MAX);
        let run = guest.run(FIRST, FRAMES);
        assert!(exchanger.acquire(run, bits, &mut [0; FRAMES as usize]).is_ok());
    }

    /// The run is nobody's, and nothing of it is mapped.
    fn is_quarantined(&self, failure: &ExchangeFailure) {
        assert_eq!((&failure.run, self.accounts.quarantined()), (&None, FRAMES), "{failure}");
        let census = self.guest.check();
        let run: Vec<Pfn> = self.guest.run(FIRST, FRAMES).iter().collect();
        assert_eq!((census.holes, census.unmapped), (run, vec![]), "{failure}");
    }
}

#[test]
fn c51_the_new_frames_of_an_acquire_are_found() {
    let scene = Scene::new();
    let (p2m, old) = (scene.guest.p2m(), scene.beneath());
    let exchanger =
        Exchanger::new(scene.guest.xen(), &p2m, &scene.guest, &scene.accounts, Order::MAX);
    scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(0));
    let bits = AddressBits::new(BITS).unwrap();
    let run = scene.guest.run(FIRST, FRAMES);
    let failure = exchanger.acquire(run, bits, &mut [0; FRAMES as usize]).unwrap_err();
    assert_eq!((scene.guest.xen().disarm(), failure.error), (1, torn(0)));
    assert!(old.iter().all(|mfn| scene.guest.owner(*mfn) == Some(Owner::Free)));
    assert!(scene.beneath().iter().all(|mfn| !old.contains(mfn)));
    scene.is_recovered(failure.run);
}

#[test]
fn c51_the_new_frames_of_a_release_are_found() {
    for entry in [0, 7, FRAMES - 1] {
        let scene = Scene::new();
        let p2m = scene.guest.p2m();
        let exchanger =
            Exchanger::new(scene.guest.xen(), &p2m, &scene.guest, &scene.accounts, Order::MAX);
        let run = scene.guest.run(FIRST, FRAMES);
        let list = &mut [0; 2 * FRAMES as usize];
        let extent = exchanger.acquire(run, AddressBits::UNLIMITED, list).unwrap();
        scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(entry));
        let failure = exchanger.release(extent, list).unwrap_err();
        assert_eq!((scene.guest.xen().disarm(), failure.error), (1, torn(0)));
        scene.is_recovered(failure.run);
    }
}

#[test]
fn c51_of_several_chunks_those_before_stay_and_those_behind_come_back() {
    for (preempt, chunk) in (0..4).flat_map(|chunk| [(false, chunk), (true, chunk)]) {
        let scene = Scene::new();
        scene.guest.xen().set_preempt(preempt);
        let old = scene.beneath();
        let failure = scene.fail(ExchangeFault::OutUnwritable(chunk), &CHUNKS);
        assert_eq!(failure.error, torn(4 * chunk));
        let beneath = scene.beneath();
        for (index, (old, new)) in (0..).zip(old.iter().zip(&beneath)) {
            assert_eq!(old == new, index / 4 > chunk, "frame {index} with chunk {chunk} torn");
        }
        for extent in beneath.chunks(4).take(chunk as usize + 1) {
            assert!((0..).zip(extent).all(|(index, mfn)| *mfn == extent[0].add(index)));
        }
        scene.is_recovered(failure.run);
    }
}

#[test]
fn c51_where_each_frame_is_a_chunk_one_frame_is_looked_for() {
    let scene = Scene::new();
    let old = scene.beneath();
    let parts = [Part::replace(0, 4), Part::replace(8, 8)];
    let failure = scene.fail(ExchangeFault::OutUnwritable(3), &parts);
    assert_eq!(failure.error, torn(3));
    let moved = old.iter().zip(scene.beneath()).filter(|(old, new)| **old != *new).count();
    // The second part is not asked for any more.
    assert_eq!(moved, 4);
    scene.is_recovered(failure.run);
}

#[test]
fn c50_what_is_on_record_nowhere_is_not_found() {
    for chunk in 0..4 {
        let scene = Scene::new();
        let failure = scene.fail(ExchangeFault::OutUnreadable(chunk), &CHUNKS);
        assert_eq!(failure.error, torn(4 * chunk));
        scene.is_quarantined(&failure);
    }
}

#[test]
fn c24_what_was_rolled_back_is_not_taken_for_new() {
    for frame in [0, 5, 15] {
        let scene = Scene::new();
        let old = scene.beneath();
        let failure = scene.fail(ExchangeFault::InUnreadable(frame), &CHUNKS);
        scene.is_quarantined(&failure);
        let left = frame as usize / 4 * 4;
        assert!(old[left..].iter().all(|mfn| scene.guest.pfn(*mfn).is_some()), "still on record");
    }
}

#[test]
fn a_foreign_frame_of_the_same_number_is_passed_over() {
    // Frames of another guest before and behind the new one in the M2P.
    for bits in [BITS, 64] {
        let scene = Scene::new();
        let foreign: Vec<Mfn> = (0..FRAMES).map(|_| scene.guest.foreign_frame()).collect();
        for (mfn, pfn) in foreign.iter().zip(scene.guest.run(FIRST, FRAMES).iter()) {
            scene.guest.record(*mfn, Some(pfn));
        }
        let placement = Placement::below(AddressBits::new(bits).unwrap());
        let parts = [Part::gather(0, 1, order(4), placement)];
        let failure = scene.fail(ExchangeFault::OutUnwritable(0), &parts);
        assert!(scene.beneath().iter().all(|mfn| !foreign.contains(mfn)));
        foreign.iter().for_each(|mfn| _ = scene.guest.record(*mfn, None));
        scene.is_recovered(failure.run);
    }
}

#[test]
fn of_two_frames_of_ours_neither_is_believed() {
    for index in [0, 6, FRAMES - 1] {
        let scene = Scene::new();
        let other = scene.guest.mfn(OTHER).unwrap();
        scene.guest.record(other, Some(Pfn::new(FIRST + index)));
        let parts = [Part::gather(0, 1, order(4), Placement::ANYWHERE)];
        let failure = scene.fail(ExchangeFault::OutUnwritable(0), &parts);
        scene.guest.record(other, Some(OTHER));
        assert_eq!(failure.error, torn(0));
        scene.is_quarantined(&failure);
        assert_eq!(scene.guest.uniform(OTHER), Some(FakeGuest::colour(OTHER)));
    }
}

#[test]
fn a_count_that_does_not_fit_the_record_is_not_believed() {
    // As if Xen could not write the count: it did all, or two chunks, and says less.
    for (count, known) in [(Some(0), false), (Some(4), false), (Some(12), true), (None, false)] {
        let scene = Scene::new();
        let answer = Err(XenErrno::EFAULT);
        let lie = Lie { commit: true, answer, count, out: None };
        let failure = scene.fail(ExchangeFault::Lie(lie), &CHUNKS);
        match known {
            // All but the last chunk, which is on record: the same as C51 in the last one.
            true => scene.is_recovered(failure.run),
            false => scene.is_quarantined(&failure),
        }
    }
    // A count that can't be says nothing of the first chunk either.
    let whole = [Part::gather(0, 1, order(4), Placement::ANYWHERE)];
    for count in [1, 17, u64::MAX] {
        let scene = Scene::new();
        let lie =
            Lie { commit: true, answer: Err(XenErrno::EFAULT), count: Some(count), out: None };
        let failure = scene.fail(ExchangeFault::Lie(lie), &whole);
        assert_eq!(failure.error, torn(count));
        scene.is_quarantined(&failure);
    }
}

#[test]
fn a_recovery_in_which_xen_refuses_a_call_ends_in_one_of_the_two_ways() {
    let (mut recovered, mut quarantined) = (0, 0);
    for (call, after) in (1..).flat_map(|call| [(call, 0), (call, 5)]) {
        let scene = Scene::new();
        scene.guest.xen().arm(Fault::refuse(call, XenErrno::EINVAL).after(after));
        scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(1));
        let p2m = scene.guest.p2m();
        let exchanger =
            Exchanger::new(scene.guest.xen(), &p2m, &scene.guest, &scene.accounts, Order::MAX);
        let (beneath, scratch) = (&mut [0; FRAMES as usize], &mut [0; FRAMES as usize]);
        let (run, lists) = (scene.guest.run(FIRST, FRAMES), Lists { beneath, scratch });
        let result = exchanger.exchange(run, &CHUNKS, OnRefusal::Undo, lists);
        scene.guest.xen().disarm();
        // More than such an exchange takes.
        if call > 12 {
            break;
        }
        let failure = match result {
            Err(failure) => failure,
            Ok(progress) => {
                // The exchange itself was refused.
                assert!(progress.error.is_some(), "call {call}: {progress:?}");
                scene.guest.check_whole();
                continue;
            }
        };
        match failure.run {
            // Refused before the exchange, or recovered in spite of it.
            Some(_) => {
                scene.guest.check_whole();
                recovered += 1;
            }
            None => {
                scene.is_quarantined(&failure);
                quarantined += 1;
            }
        }
    }
    assert!(recovered > 0 && quarantined > 4, "{recovered} recovered, {quarantined} quarantined");
}

/// A kernel's reading of the M2P.
enum Reading {
    /// It does not read it.
    None,
    /// In the first look the last frame is another than it is later.
    Stale(Cell<bool>),
}

/// A guest whose kernel reads the M2P in another way.
struct Reader<'g> {
    guest: &'g FakeGuest,
    reading: Reading,
}

// SAFETY: passes everything on.
unsafe impl GuestMemory for Reader<'_> {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: the caller's.
        unsafe { self.guest.zero(first, frames) }
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.guest.pointer(pfn)
    }
}

// SAFETY: passes everything on but for the M2P, of which it shows less or something stale.
unsafe impl LinearMapping for Reader<'_> {
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
        let Reading::Stale(first_look) = &self.reading else { return };
        let other = self.guest.mfn(OTHER).filter(|_| first_look.replace(false));
        let last = Pfn::new(FIRST + FRAMES - 1);
        self.guest.on_record(first, frames, &mut |pfn, mfn| {
            see(pfn, other.filter(|_| pfn == last).unwrap_or(mfn));
        });
    }
}

#[test]
fn a_kernel_that_does_not_read_the_m2p_loses_the_recovery_alone() {
    let scene = Scene::new();
    scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(0));
    let reader = Reader { guest: &scene.guest, reading: Reading::None };
    let failure = scene.fail_by(&reader, &CHUNKS);
    assert_eq!(failure.error, torn(0));
    scene.is_quarantined(&failure);
}

#[test]
fn a_frame_that_is_not_on_record_any_more_is_not_believed() {
    let scene = Scene::new();
    scene.guest.xen().arm_exchange(ExchangeFault::OutUnwritable(0));
    let reader = Reader { guest: &scene.guest, reading: Reading::Stale(Cell::new(true)) };
    let failure = scene.fail_by(&reader, &[Part::gather(0, 1, order(4), Placement::ANYWHERE)]);
    assert_eq!(failure.error, torn(0));
    scene.is_quarantined(&failure);
    assert_eq!(scene.guest.uniform(OTHER), Some(FakeGuest::colour(OTHER)));
}
