//! Refills on a Xen that exchanges memory of translated guests.
//!
//! No released Xen does that. The library finds it out by a trial exchange.

use fake_xen::{Asked, ExchangeFault, FakeGuest, Fault, GuestBuilder, Lie};
use hypercall::abi::hvm::{HVMMEM_MMIO_DM, HVMMEM_RAM_RW};
use hypercall::ops::HvmOp;
use hypercall::{Xen, XenErrno};
use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::exchange::{Accounts, ExchangeError, ExchangeFailure, Node, Permission};
use xen_contig::frames::FrameRun;

const ANYWHERE: AddressBits = AddressBits::UNLIMITED;

/// The first frame of the run under test.
const FIRST: u64 = 1024;
/// The number of frames of the run.
const FRAMES: u64 = 64;

/// The exchange of one frame, by which the first refill finds whether Xen permits it.
const TRIAL: Asked = Asked::Exchange { input: (1, 0), output: (1, 0), bits: 64 };

fn order(order: u32) -> Order {
    Order::new(order).unwrap()
}

/// Returns a translated guest whose frames are painted.
fn translated() -> FakeGuest {
    let guest = GuestBuilder::new(2048).translated().build();
    guest.paint();
    guest
}

/// Refills the run.
fn refill<'l>(
    guest: &FakeGuest,
    accounts: &Accounts,
    bits: AddressBits,
    list: &'l mut [u64],
) -> Result<FrameRun, ExchangeFailure<'l>> {
    guest.refiller(accounts, order(9)).refill(guest.run(FIRST, FRAMES), bits, list)
}

/// Returns the guest's accounts after a trial that succeeded.
fn tried(guest: &FakeGuest) -> Accounts {
    let accounts = Accounts::new();
    assert!(refill(guest, &accounts, ANYWHERE, &mut [0; 64]).is_ok());
    assert_eq!(accounts.translated_exchange(), Some(Permission::Granted));
    accounts
}

/// Checks that the run is populated and zeroed, and that no other frame changed.
fn check_run(guest: &FakeGuest) {
    for pfn in guest.usable() {
        let in_run = (FIRST..FIRST + FRAMES).contains(&pfn.number());
        let expected = if in_run { 0 } else { FakeGuest::colour(pfn) };
        assert_eq!(guest.uniform(pfn), Some(expected), "{pfn}");
    }
    guest.check_whole();
}

/// Returns a guest of a Xen that exchanges memory of translated guests.
fn permitted() -> FakeGuest {
    let guest = translated();
    guest.permit_translated_exchange(true);
    guest
}

/// Returns the hypercalls since the last call of this function, without their results.
fn take_asked(guest: &FakeGuest) -> Vec<Asked> {
    guest.xen().take_log().into_iter().map(|call| call.asked).collect()
}

/// Returns how many exchanges were requested since the last call of this function.
fn take_exchanges(guest: &FakeGuest) -> usize {
    take_asked(guest).iter().filter(|asked| asked.is_exchange()).count()
}

/// Returns true if one extent backs the run.
fn is_contiguous(guest: &FakeGuest) -> bool {
    let first = guest.mfn(Pfn::new(FIRST)).unwrap();
    (0..FRAMES).all(|index| guest.mfn(Pfn::new(FIRST + index)) == Some(first.add(index)))
}

#[test]
fn c79_a_refill_exchanges_if_xen_permits_it() {
    let (guest, accounts) = (permitted(), Accounts::new());
    let free = guest.free_frames();
    assert_eq!(accounts.translated_exchange(), None);
    let bits = AddressBits::new(24).unwrap();
    let exchange = Asked::Exchange { input: (1, 6), output: (1, 6), bits: 24 };
    for calls in [vec![TRIAL, exchange.clone()], vec![exchange]] {
        let run = refill(&guest, &accounts, bits, &mut [0; 64]).unwrap();
        assert_eq!(take_asked(&guest), calls, "only the first refiller makes a trial");
        assert_eq!(accounts.translated_exchange(), Some(Permission::Granted));
        let first = guest.mfn(run.first()).unwrap();
        assert!(is_contiguous(&guest) && first.is_aligned(order(6)));
        assert!(first.number() + FRAMES <= bits.frame_limit());
        assert_eq!((guest.free_frames(), guest.given_up_dirty()), (free, 0));
        assert_eq!(accounts.quarantined(), 0);
        check_run(&guest);
    }
}

/// Xen may write the machine frame into the out-list.
#[test]
fn c79_a_changed_out_list_is_a_success_too() {
    let guest = permitted();
    let accounts = tried(&guest);
    let reported = Lie { commit: true, answer: Ok(0), count: None, out: Some(0x1234) };
    guest.xen().arm_exchange(ExchangeFault::Lie(reported));
    assert!(refill(&guest, &accounts, ANYWHERE, &mut [0; 64]).is_ok());
    assert!(guest.xen().disarm() > 0 && is_contiguous(&guest));
    check_run(&guest);
}

#[test]
fn c26_a_xen_that_refuses_is_asked_once() {
    let (guest, accounts) = (translated(), Accounts::new());
    for trials in [1, 0, 0] {
        assert!(refill(&guest, &accounts, ANYWHERE, &mut [0; 64]).is_ok());
        assert_eq!(take_exchanges(&guest), trials);
        assert_eq!(accounts.translated_exchange(), Some(Permission::Denied));
    }
    assert!(is_contiguous(&guest));
    check_run(&guest);
}

/// Returns a fault: a false answer to the next exchange.
fn lie(commit: bool, answer: Result<u64, XenErrno>) -> ExchangeFault {
    ExchangeFault::Lie(Lie { commit, answer, count: Some(0), out: None })
}

#[test]
fn c26_after_an_unexpected_answer_to_the_trial_the_run_is_still_refilled() {
    use XenErrno as E;
    let errnos = [E::EPERM, E::EINVAL, E::ENOSYS, E::ENOMEM, E::EFAULT];
    let answers = errnos.map(Err).into_iter().chain([Ok(0)]);
    for (answer, commit) in answers.flat_map(|answer| [(answer, false), (answer, true)]) {
        let (guest, accounts) = (permitted(), Accounts::new());
        guest.xen().arm_exchange(lie(commit, answer));
        for trials in [1, 0] {
            let what = format!("{answer:?}, done: {commit}");
            assert!(refill(&guest, &accounts, ANYWHERE, &mut [0; 64]).is_ok(), "{what}");
            assert_eq!(take_exchanges(&guest), trials, "{what}");
            let unknown = Some(Permission::Unknown(answer.err()));
            assert_eq!(accounts.translated_exchange(), unknown, "{what}");
        }
        assert!(is_contiguous(&guest));
        assert_eq!((accounts.quarantined(), guest.given_up_dirty()), (0, 0));
        check_run(&guest);
    }
}

/// The error of a trial that leaves a hole.
const ENOMEM: Option<XenErrno> = Some(XenErrno::ENOMEM);

#[test]
fn c79_a_hole_that_the_trial_leaves_is_filled() {
    let (guest, accounts) = (permitted(), Accounts::new());
    // Xen still counts the machine frame without a place in the guest as the domain's.
    guest.set_max_pages(2049);
    guest.xen().arm_exchange(ExchangeFault::Hole(0));
    assert!(refill(&guest, &accounts, ANYWHERE, &mut [0; 64]).is_ok());
    assert_eq!(accounts.translated_exchange(), Some(Permission::Unknown(ENOMEM)));
    assert!(is_contiguous(&guest));
    assert_eq!((accounts.quarantined(), guest.check().holes), (0, vec![]));
}

#[test]
fn c79_a_trial_loses_at_most_its_frame() {
    // In the first case Xen has no memory for the hole. In the second it does not report whether
    // there is a hole.
    for fault in [None, Some(Fault::refuse(2, XenErrno::ENOSYS))] {
        let (guest, accounts, mut list) = (permitted(), Accounts::new(), [0; 64]);
        guest.xen().arm_exchange(ExchangeFault::Hole(0));
        fault.into_iter().for_each(|fault| guest.xen().arm(fault));
        let failure = refill(&guest, &accounts, ANYWHERE, &mut list).unwrap_err();
        assert_eq!(failure.error, ExchangeError::Torn { errno: ENOMEM, exchanged: 0 });
        assert_eq!((failure.remaining.lost(), accounts.quarantined()), (1, 1));
        assert!(failure.remaining.into_iter().eq([guest.run(FIRST + 1, FRAMES - 1)]));
        assert_eq!(guest.check().holes, [Pfn::new(FIRST)]);
        assert!((1..FRAMES).all(|index| guest.uniform(Pfn::new(FIRST + index)) == Some(0)));
        assert_eq!(accounts.translated_exchange(), Some(Permission::Unknown(ENOMEM)));
    }
}

#[test]
fn c79_after_a_torn_exchange_the_frames_that_xen_confirms_remain() {
    // In the first case Xen has memory to fill the hole, in the second it has none.
    for (max_pages, lost) in [(2049, vec![]), (2048, vec![Pfn::new(FIRST + 40)])] {
        let (guest, mut list) = (permitted(), [0; 64]);
        let accounts = tried(&guest);
        guest.set_max_pages(max_pages);
        guest.xen().arm_exchange(ExchangeFault::Hole(40));
        let failure = refill(&guest, &accounts, ANYWHERE, &mut list).unwrap_err();
        assert_eq!(failure.error, ExchangeError::Torn { errno: ENOMEM, exchanged: 0 });
        let census = guest.check();
        assert_eq!(census.orphans.len(), 1, "the machine frame without a place in the guest");
        assert_eq!((accounts.quarantined(), &census.holes), (lost.len() as u64, &lost));
        let remaining: Vec<Pfn> =
            failure.remaining.into_iter().flat_map(|run| run.iter()).collect();
        assert_eq!(remaining.len() + lost.len(), FRAMES as usize);
        assert!(remaining.iter().all(|pfn| guest.uniform(*pfn) == Some(0)), "zeroed");
    }
}

#[test]
fn c79_an_exchange_that_xen_refuses_leaves_the_run() {
    let guest = permitted();
    let accounts = tried(&guest);
    let refused = |error| {
        let (before, mut list) = (guest.snapshot(), [0; 64]);
        let failure = refill(&guest, &accounts, ANYWHERE, &mut list).unwrap_err();
        assert_eq!(failure.error, error);
        assert_eq!(failure.remaining.whole().unwrap(), guest.run(FIRST, FRAMES));
        assert_eq!(guest.snapshot().moved(&before), []);
        check_run(&guest);
    };
    guest.fragment(order(6));
    refused(ExchangeError::NoMemory { order: order(6), bits: ANYWHERE, node: Node::Any });
    guest.relieve();
    // A peer maps a grant of the frame. A decrease of the reservation would give it up nevertheless.
    guest.hold(Pfn::new(1030));
    refused(ExchangeError::FrameRefused { first: Pfn::new(FIRST), frames: FRAMES });
    guest.unhold(Pfn::new(1030));
    guest.set_max_order(5);
    refused(ExchangeError::OrderNotPermitted { order: order(6) });
    guest.set_max_order(9);
    guest.deny_exchange(Some(XenErrno::EPERM));
    refused(ExchangeError::NotPermitted);
    guest.deny_exchange(Some(XenErrno::EBUSY));
    refused(ExchangeError::Refused { errno: XenErrno::EBUSY });
    guest.deny_exchange(None);
    assert!(refill(&guest, &accounts, ANYWHERE, &mut [0; 64]).is_ok());
    assert_eq!((accounts.quarantined(), guest.given_up_dirty()), (0, 0));
}

#[test]
fn c26_after_a_migration_to_a_xen_that_refuses_the_run_is_populated() {
    let guest = permitted();
    let accounts = tried(&guest);
    guest.permit_translated_exchange(false);
    for exchanged in [1, 0] {
        take_asked(&guest);
        assert!(refill(&guest, &accounts, ANYWHERE, &mut [0; 64]).is_ok());
        assert_eq!(take_exchanges(&guest), exchanged);
        assert_eq!(accounts.translated_exchange(), Some(Permission::Denied));
        assert!(is_contiguous(&guest));
        check_run(&guest);
    }
}

#[test]
fn c78_xen_reports_whether_memory_backs_a_frame() {
    let guest = translated();
    // Xen takes the run and cannot populate its frames again.
    guest.set_max_pages(2048 - FRAMES);
    assert!(refill(&guest, &Accounts::new(), ANYWHERE, &mut [0; 64]).is_err());
    let kind = |pfn| guest.xen().hvm_op(HvmOp::GetMemType(Pfn::new(pfn)));
    assert_eq!(kind(FIRST - 1), Ok(HVMMEM_RAM_RW));
    assert_eq!(kind(FIRST), Ok(HVMMEM_MMIO_DM));
    assert_eq!(kind(1 << 40), Ok(HVMMEM_MMIO_DM), "beyond the guest's memory");
}
