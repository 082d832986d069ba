//! Errors after the commit point, and impossible answers.
//!
//! The library recovers the frames that Xen's M2P confirms, and quarantines the others. `torn.rs` has
//! more tests of the recovery.

#![forbid(unsafe_code)]

use fake_xen::{ExchangeFault, Extent, ExtentExchanger, FakeGuest, FakeXen, Lie, Owner};
use hypercall::XenErrno;
use xen_contig::addr::{AddressBits, Mfn, Order, Pfn};
use xen_contig::exchange::{Accounts, ExchangeError, ExchangeFailure};

const FIRST: u64 = 512;
const FRAMES: u64 = 16;
const BITS: u32 = 23;

struct HostileScene {
    guest: FakeGuest,
    accounts: Accounts,
}

impl HostileScene {
    fn new() -> Self {
        let scene = Self { guest: FakeGuest::new(1024), accounts: Accounts::new() };
        scene.guest.paint();
        scene
    }

    fn exchanger(&self) -> ExtentExchanger<'_, FakeXen, FakeGuest> {
        self.guest.exchanger(&self.accounts, Order::MAX)
    }

    fn acquire(&self, bits: u32) -> Result<Extent, ExchangeFailure<'_>> {
        let run = self.guest.run(FIRST, FRAMES);
        let bits = AddressBits::new(bits).unwrap();
        self.exchanger().acquire(run, bits, &mut [0; FRAMES as usize])
    }

    fn old_frames(&self) -> Vec<Mfn> {
        self.guest.run(FIRST, FRAMES).iter().map(|pfn| self.guest.mfn(pfn).unwrap()).collect()
    }

    /// Checks that the whole run is quarantined and unmapped.
    ///
    /// No other frame may have changed.
    fn check_quarantined(&self, failure: &ExchangeFailure<'_>, old: &[Mfn], committed: bool) {
        let guest = &self.guest;
        assert_eq!(
            (failure.remaining.frames(), self.accounts.quarantined()),
            (0, FRAMES),
            "{failure}"
        );
        let run = guest.run(FIRST, FRAMES);
        for pfn in run.iter() {
            assert!(!guest.linear_entry(pfn).is_present(), "{failure}: {pfn} is mapped");
        }
        for mfn in old {
            let gone = guest.owner(*mfn) == Some(Owner::Free);
            assert_eq!(gone, committed, "{failure}: {mfn:?}");
        }
        let census = guest.check();
        let lost: Vec<Pfn> = run.iter().collect();
        assert_eq!(census.holes, lost, "{failure}");
        assert_eq!(census.unmapped, [], "{failure}");
        for pfn in guest.usable().filter(|pfn| !lost.contains(pfn)) {
            assert_eq!(guest.uniform(pfn), Some(FakeGuest::colour(pfn)), "{failure}: {pfn}");
        }
        // Another exchange of these frames gets an error.
        let again = self.acquire(BITS).unwrap_err();
        assert_eq!(again.error, ExchangeError::NotPopulated { pfn: Pfn::new(FIRST) });
    }
}

/// Acquires with a fault, and checks that the run is quarantined.
fn quarantined(fault: ExchangeFault, committed: bool, bits: u32) -> ExchangeError {
    let scene = HostileScene::new();
    let old = scene.old_frames();
    scene.guest.xen().arm_exchange(fault);
    let failure = scene.acquire(bits).unwrap_err();
    assert_eq!(scene.guest.xen().disarm(), 1);
    scene.check_quarantined(&failure, &old, committed);
    failure.error
}

/// Acquires with a fault, and checks that the whole run is recovered.
///
/// New machine frames back it if Xen committed.
fn recovered(fault: ExchangeFault, committed: bool) -> ExchangeError {
    let scene = HostileScene::new();
    let old = scene.old_frames();
    scene.guest.xen().arm_exchange(fault);
    let ExchangeFailure { error, remaining } = scene.acquire(BITS).unwrap_err();
    assert_eq!(scene.guest.xen().disarm(), 1);
    let run = remaining.whole().expect("nothing is lost");
    assert_eq!((&run, scene.accounts.quarantined()), (&scene.guest.run(FIRST, FRAMES), 0));
    scene.guest.check_whole();
    assert!(old.iter().zip(scene.old_frames()).all(|(old, new)| (*old != new) == committed));
    assert!(run.iter().all(|pfn| scene.guest.uniform(pfn) == Some(0)), "{error}");
    error
}

fn torn(errno: XenErrno, exchanged: u64) -> ExchangeError {
    ExchangeError::Torn { errno: Some(errno), exchanged }
}

#[test]
fn c50_an_unreadable_out_list_tears_the_exchange() {
    let error = quarantined(ExchangeFault::OutUnreadable(0), true, BITS);
    assert_eq!(error, torn(XenErrno::EFAULT, 0));
}

#[test]
fn c52_einval_after_the_commit_point_is_not_a_refusal() {
    for errno in [XenErrno::EINVAL, XenErrno::ENOMEM, XenErrno::EPERM] {
        let error = quarantined(ExchangeFault::IommuMap(0, errno), true, BITS);
        assert_eq!(error, torn(errno, 0));
    }
}

#[test]
fn c58_a_dying_domain_gets_a_short_count() {
    let error = quarantined(ExchangeFault::Dying, true, BITS);
    assert_eq!(error, ExchangeError::Torn { errno: None, exchanged: 0 });
}

#[test]
fn impossible_counts_tear_the_exchange() {
    for (commit, answer, count) in [
        (true, Ok(0), FRAMES - 1),
        (true, Ok(0), FRAMES + 1),
        (false, Ok(0), 0),
        (false, Ok(0), u64::MAX),
        (false, Err(XenErrno::ENOMEM), 1),
        (false, Err(XenErrno::EINVAL), FRAMES),
        (true, Err(XenErrno::EINVAL), FRAMES),
        (true, Err(XenErrno::EPERM), 0),
    ] {
        let lie = Lie { commit, answer, count: Some(count), out: None };
        let error = recovered(ExchangeFault::Lie(lie), commit);
        assert_eq!(error, ExchangeError::Torn { errno: answer.err(), exchanged: count });
    }
}

#[test]
fn c55_an_impossible_extent_is_not_accepted() {
    let limit = AddressBits::new(BITS).unwrap();
    let beyond = limit.frame_limit();
    for mfn in [0x211, beyond - 1, beyond, beyond + 1, u64::MAX, u64::MAX - 15] {
        let lie = Lie { commit: true, answer: Ok(0), count: None, out: Some(mfn) };
        let error = recovered(ExchangeFault::Lie(lie), true);
        let order = Order::new(4).unwrap();
        assert_eq!(error, ExchangeError::BadExtent { mfn: Mfn::new(mfn), order, bits: limit });
    }
}

#[test]
fn an_extent_beyond_the_machine_is_never_mapped() {
    // The extent is aligned, and the request has no address limit.
    let lie = Lie { commit: true, answer: Ok(0), count: None, out: Some(1 << 30) };
    let error = quarantined(ExchangeFault::Lie(lie), true, 64);
    assert!(matches!(error, ExchangeError::PageTable { .. }), "{error}");
}

#[test]
fn a_false_success_maps_no_foreign_frame() {
    let scene = HostileScene::new();
    let foreign = scene.guest.foreign_frame();
    let aligned = foreign.number() & !15;
    let lie = Lie { commit: true, answer: Ok(0), count: Some(FRAMES), out: Some(aligned) };
    let old = scene.old_frames();
    scene.guest.xen().arm_exchange(ExchangeFault::Lie(lie));
    let failure = scene.acquire(64).unwrap_err();
    scene.check_quarantined(&failure, &old, true);
}

#[test]
fn an_extent_too_high_for_a_page_table_maps_no_other_frame() {
    let scene = HostileScene::new();
    let guest = &scene.guest;
    let victim = Pfn::new(900);
    // In a page-table entry this frame number would read as the victim's.
    let mfn = guest.mfn(victim).unwrap().number() | 1 << 40;
    let lie = Lie { commit: true, answer: Ok(0), count: None, out: Some(mfn) };
    guest.xen().arm_exchange(ExchangeFault::Lie(lie));
    let run = guest.run(FIRST, 1);
    let result = scene.exchanger().acquire(run, AddressBits::UNLIMITED, &mut [0]);
    assert_eq!(guest.uniform(victim), Some(FakeGuest::colour(victim)), "{result:?}");
    assert!(result.is_err(), "{result:?}");
}

#[test]
fn c52_is_reported_even_if_the_new_frame_has_the_number_of_the_old_pfn() {
    // The out-list then has the same bytes as before the call.
    let lie = Lie { commit: true, answer: Err(XenErrno::EINVAL), count: Some(0), out: Some(FIRST) };
    quarantined(ExchangeFault::Lie(lie), true, BITS);
}

/// The faults that tear a release, at the first extent and in the middle.
///
/// The M2P lacks the frame at that index alone.
#[test]
fn c50_c52_release_tears_as_acquire_does() {
    for (fault, errno, lost) in [
        (ExchangeFault::OutUnreadable(0), XenErrno::EFAULT, 0),
        (ExchangeFault::OutUnreadable(7), XenErrno::EFAULT, 7),
        (ExchangeFault::IommuMap(0, XenErrno::EINVAL), XenErrno::EINVAL, 0),
        (ExchangeFault::IommuMap(7, XenErrno::EINVAL), XenErrno::EINVAL, 7),
    ] {
        let scene = HostileScene::new();
        let extent = scene.acquire(BITS).unwrap();
        let old = scene.old_frames();
        scene.guest.xen().arm_exchange(fault);
        let failure = scene.exchanger().release(extent, &mut [0; 2 * FRAMES as usize]).unwrap_err();
        assert_eq!(failure.error, torn(errno, 0));
        assert!(old.iter().all(|mfn| scene.guest.owner(*mfn) == Some(Owner::Free)));
        assert_eq!((failure.remaining.lost(), scene.accounts.quarantined()), (1, 1));
        let lost = Pfn::new(FIRST + lost);
        let remaining: Vec<Pfn> =
            failure.remaining.into_iter().flat_map(|run| run.iter()).collect();
        let run = scene.guest.run(FIRST, FRAMES);
        assert!(run.iter().filter(|pfn| *pfn != lost).eq(remaining.iter().copied()));
        assert!(remaining.iter().all(|pfn| scene.guest.uniform(*pfn) == Some(0)));
        assert_eq!(scene.guest.check().holes, [lost]);
    }
}

#[test]
fn c24_c35_a_rollback_is_not_a_tear() {
    for (fault, errno) in [
        (ExchangeFault::IommuUnmap(0, XenErrno::EIO), XenErrno::EIO),
        (ExchangeFault::IommuUnmap(15, XenErrno::EIO), XenErrno::EIO),
    ] {
        let scene = HostileScene::new();
        let before = scene.guest.snapshot();
        scene.guest.xen().arm_exchange(fault);
        let failure = scene.acquire(BITS).unwrap_err();
        assert_eq!(failure.error, ExchangeError::Refused { errno });
        assert_eq!(failure.remaining.whole().unwrap(), scene.guest.run(FIRST, FRAMES));
        assert_eq!((scene.accounts.quarantined(), scene.guest.given_up_dirty()), (0, 0));
        assert_eq!(scene.guest.snapshot().moved(&before), []);
        scene.guest.check_whole();
    }
    // This error comes before the commit point, but the same error can come after it. The M2P shows
    // that no frame is gone.
    let error = recovered(ExchangeFault::InUnreadable(3), false);
    assert_eq!(error, torn(XenErrno::EFAULT, 0));
}
