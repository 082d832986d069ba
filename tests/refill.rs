//! One machine extent that backs a run of a translated guest.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fake_xen::{Asked, FakeGuest, Fault, GuestBuilder};
use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::exchange::{Accounts, ExchangeError, ExchangeFailure, Node};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{FrameInUse, GuestMemory, Holder};

const ANYWHERE: AddressBits = AddressBits::UNLIMITED;

/// The exchange of one frame, by which the first refill finds whether Xen permits it.
const TRIAL: Asked = Asked::Exchange { input: (1, 0), output: (1, 0), bits: 64 };

fn order(order: u32) -> Order {
    Order::new(order).unwrap()
}

fn translated() -> FakeGuest {
    let guest = GuestBuilder::new(2048).translated().build();
    guest.paint();
    guest
}

fn refill(guest: &FakeGuest, bits: AddressBits) -> (Result<FrameRun, ExchangeFailure<'_>>, u64) {
    let accounts: &Accounts = Box::leak(Box::default());
    let refiller = guest.refiller(accounts, order(9));
    let list = Box::leak(Box::new([0; 64]));
    let result = refiller.refill(guest.run(1024, 64), bits, list);
    (result, accounts.quarantined())
}

/// Checks that the run is populated and zeroed, and that no other frame changed.
fn check_run(guest: &FakeGuest) {
    for pfn in (0..2048).map(Pfn::new) {
        let in_run = (1024..1088).contains(&pfn.number());
        let expected = if in_run { 0 } else { FakeGuest::colour(pfn) };
        assert_eq!(guest.uniform(pfn), Some(expected), "{pfn}");
    }
    guest.check_whole();
}

#[test]
fn one_extent_backs_the_run() {
    let guest = translated();
    let bits = AddressBits::new(24).unwrap();
    let free = guest.free_frames();
    let (result, quarantined) = refill(&guest, bits);
    let run = result.unwrap();
    let first = guest.mfn(run.first()).unwrap();
    assert!(first.is_aligned(order(6)) && first.number() + 64 <= bits.frame_limit());
    for (index, pfn) in run.iter().enumerate() {
        assert_eq!(guest.mfn(pfn), Some(first.add(index as u64)));
    }
    assert_eq!((quarantined, guest.free_frames(), guest.given_up_dirty()), (0, free, 0));
    check_run(&guest);
}

#[test]
fn every_order_can_be_refilled() {
    for order in order(9).up_to() {
        let (guest, accounts) = (translated(), Accounts::new());
        let refiller = guest.refiller(&accounts, Order::MAX);
        let mut list = vec![0; order.frames() as usize];
        let run = refiller.refill(guest.run(512, order.frames()), ANYWHERE, &mut list).unwrap();
        let first = guest.mfn(run.first()).unwrap();
        let in_a_row = |(index, pfn)| guest.mfn(pfn) == Some(first.add(index));
        assert!((0..).zip(run.iter()).all(in_a_row), "order {order}");
        guest.check_whole();
    }
}

#[test]
fn c77_without_an_extent_the_run_is_filled_frame_by_frame() {
    let guest = translated();
    guest.fragment(order(6));
    let (result, quarantined) = refill(&guest, ANYWHERE);
    let failure = result.unwrap_err();
    assert_eq!(
        failure.error,
        ExchangeError::NoMemory { order: order(6), bits: ANYWHERE, node: Node::Any }
    );
    assert_eq!(failure.remaining.whole().unwrap(), guest.run(1024, 64));
    assert_eq!(quarantined, 0);
    check_run(&guest);
}

#[test]
fn c02_an_order_above_the_limit_is_named_although_xen_returns_a_count_of_0() {
    let guest = translated();
    guest.set_max_order(5);
    let (result, _) = refill(&guest, ANYWHERE);
    let failure = result.unwrap_err();
    assert_eq!(failure.error, ExchangeError::OrderNotPermitted { order: order(6) });
    assert_eq!(failure.remaining.whole().unwrap(), guest.run(1024, 64));
    check_run(&guest);
}

#[test]
fn c77_a_frame_in_the_middle_that_is_not_populated_is_lost_alone() {
    let guest = translated();
    // Xen has no extent, and populates 40 single frames. The first call is the trial exchange, and the
    // fourth asks for the order limit.
    guest.fragment(order(6));
    guest.xen().arm(Fault::stop(5).after(40));
    let (result, quarantined) = refill(&guest, ANYWHERE);
    let failure = result.unwrap_err();
    assert_eq!((failure.remaining.lost(), quarantined), (1, 1));
    assert!(failure.remaining.into_iter().eq([guest.run(1024, 40), guest.run(1065, 23)]));
    let census = guest.check();
    assert_eq!((census.holes, census.orphans), (vec![Pfn::new(1064)], vec![]));
    let back = (1024..1088).filter(|pfn| *pfn != 1064);
    assert!(back.map(Pfn::new).all(|pfn| guest.uniform(pfn) == Some(0)));
}

/// A kernel that panics when it zeroes new frames of Xen.
struct PanickingKernel<'g>(&'g FakeGuest);

// SAFETY: every method does what the model does, or panics.
unsafe impl GuestMemory for PanickingKernel<'_> {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        assert_eq!(self.0.xen().take_log(), [], "the kernel panics after the first hypercall");
        // SAFETY: the frames are populated, and nothing else uses them
        // ([M1](xen_contig::rules#M1)): the function's requirement.
        unsafe { self.0.zero(first, frames) };
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.0.pointer(pfn)
    }
}

#[test]
fn a_panic_in_a_refill_quarantines_the_run() {
    for fragmented in [false, true] {
        let (guest, accounts) = (translated(), Accounts::new());
        if fragmented {
            guest.fragment(order(6));
        }
        let kernel = PanickingKernel(&guest);
        let refiller = guest.refiller_via(&kernel, &accounts, order(9));
        let run = guest.run(1024, 64);
        let refill = || refiller.refill(run, ANYWHERE, &mut [0; 64]).is_ok();
        assert!(catch_unwind(AssertUnwindSafe(refill)).is_err());
        assert_eq!(accounts.quarantined(), 64);
    }
}

#[test]
fn c77_above_max_pages_no_frame_is_populated_again() {
    let guest = translated();
    // The toolstack lowers the target while the guest runs.
    guest.set_max_pages(1900);
    let (result, quarantined) = refill(&guest, ANYWHERE);
    let failure = result.unwrap_err();
    assert_eq!((failure.remaining.lost(), quarantined), (64, 64));
    assert!(failure.remaining.into_iter().eq([]));
    assert_eq!(guest.check().holes.len(), 64);
}

#[test]
fn a_decrease_that_stops_half_way_is_undone() {
    let guest = translated();
    guest.xen().arm(Fault::stop(2).after(40));
    let (result, quarantined) = refill(&guest, ANYWHERE);
    let failure = result.unwrap_err();
    let refused = ExchangeError::FrameRefused { first: Pfn::new(1064), frames: 1 };
    assert_eq!(failure.error, refused);
    assert_eq!((failure.remaining.whole().unwrap(), quarantined), (guest.run(1024, 64), 0));
    check_run(&guest);
    let extents = |n| (n, 0);
    let asked: Vec<Asked> = guest.xen().take_log().into_iter().map(|call| call.asked).collect();
    let decrease = Asked::Decrease { extents: extents(64) };
    let populate = Asked::Populate { extents: extents(40), bits: 0 };
    assert_eq!(asked, [TRIAL, decrease, populate]);
}

#[test]
fn impossible_requests_are_refused_before_anything_moves() {
    let (guest, accounts) = (translated(), Accounts::new());
    let before = guest.snapshot();
    let refiller = guest.refiller(&accounts, order(5));
    for (frames, len, error) in [
        (3, 3, ExchangeError::BadSize { frames: 3 }),
        (64, 64, ExchangeError::OrderNotPermitted { order: order(6) }),
        (32, 31, ExchangeError::ListTooShort { needed: 32, len: 31 }),
    ] {
        let mut list = vec![0; len];
        let failure = refiller.refill(guest.run(512, frames), ANYWHERE, &mut list).unwrap_err();
        assert_eq!(failure.error, error);
        assert_eq!(failure.remaining.whole().unwrap(), guest.run(512, frames));
    }
    assert_eq!(guest.xen().take_log(), []);
    assert_eq!(guest.snapshot(), before);
}

/// A kernel that names the holder of one frame.
struct HolderKernel<'g> {
    guest: &'g FakeGuest,
    held: FrameInUse,
}

// SAFETY: every method does what the model does. `purge` also names the holder of one frame.
unsafe impl GuestMemory for HolderKernel<'_> {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: the frames are populated, and nothing else uses them
        // ([M1](xen_contig::rules#M1)): the function's requirement.
        unsafe { self.guest.zero(first, frames) };
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.guest.pointer(pfn)
    }

    fn purge(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        match run.iter().any(|pfn| pfn == self.held.pfn) {
            true => Err(self.held),
            false => Ok(()),
        }
    }
}

#[test]
fn c76_a_frame_that_the_kernel_reports_in_use_is_not_given_up() {
    let (guest, accounts) = (translated(), Accounts::new());
    let (pfn, holder) = (Pfn::new(1030), Holder::Granted { reference: 8 });
    let memory = HolderKernel { guest: &guest, held: FrameInUse { pfn, holder } };
    let refiller = guest.refiller_via(&memory, &accounts, order(9));
    let (before, mut list) = (guest.snapshot(), [0; 64]);
    let failure = refiller.refill(guest.run(1024, 64), ANYWHERE, &mut list).unwrap_err();
    let error = ExchangeError::FrameBusy { pfn, mfn: None, holder };
    assert_eq!(failure.error, error);
    assert_eq!(failure.remaining.whole().unwrap(), guest.run(1024, 64));
    assert_eq!((guest.xen().take_log(), accounts.quarantined()), (vec![], 0));
    assert_eq!(guest.snapshot(), before, "no frame was zeroed");
    let other = refiller.refill(guest.run(1088, 64), ANYWHERE, &mut list);
    assert_eq!(other.unwrap(), guest.run(1088, 64), "the kernel names no holder of this run");
}

#[test]
fn an_order_that_xen_does_not_permit_leaves_the_run_populated() {
    let guest = translated();
    // Xen's limit is below the refiller's. Xen returns a count of 0, as if it had no memory.
    guest.set_max_order(5);
    let (result, quarantined) = refill(&guest, ANYWHERE);
    assert_eq!(result.unwrap_err().remaining.whole().unwrap(), guest.run(1024, 64));
    assert_eq!(quarantined, 0);
    check_run(&guest);
}

#[test]
#[should_panic(expected = "which is a hole")]
fn the_model_catches_an_access_to_a_hole() {
    let guest = translated();
    guest.set_max_pages(1900);
    let (result, _) = refill(&guest, ANYWHERE);
    assert!(result.is_err());
    guest.read(1, Pfn::new(1050), 0);
}

#[test]
fn c77_a_refill_quarantines_the_frames_that_are_not_populated_and_no_others() {
    let guest = translated();
    guest.set_max_pages(2047);
    guest.fragment(order(6));
    let (result, quarantined) = refill(&guest, ANYWHERE);
    let failure = result.unwrap_err();
    assert_eq!((failure.remaining.lost(), quarantined), (1, 1));
    assert!(failure.remaining.into_iter().eq([guest.run(1024, 63)]));
    assert_eq!(guest.check().holes, [Pfn::new(1087)]);
    assert!((1024..1087).all(|pfn| guest.uniform(Pfn::new(pfn)) == Some(0)));

    // The frames after the hole were never given up.
    let guest = translated();
    guest.xen().arm(Fault::stop(2).after(40));
    guest.set_max_pages(2018);
    let (result, quarantined) = refill(&guest, ANYWHERE);
    let failure = result.unwrap_err();
    assert_eq!((failure.remaining.lost(), quarantined), (30, 30));
    assert!(failure.remaining.into_iter().eq([guest.run(1024, 10), guest.run(1064, 24)]));
    assert_eq!(guest.check().holes, (1034..1064).map(Pfn::new).collect::<Vec<_>>());
}
