//! The flush rules, on the model hypervisor.
//!
//! * Xen flushes every vCPU once, right before the exchange, in the same multicall or by a hypercall of
//!   its own ([F2](xen_contig::rules#F2), [S5](xen_contig::rules#S5)).
//! * Nothing else flushes ([F1](xen_contig::rules#F1), [F3](xen_contig::rules#F3)), and no vCPU
//!   interrupts another ([F4](xen_contig::rules#F4)).
//! * A purge relies on that one flush ([F5](xen_contig::rules#F5), [S3](xen_contig::rules#S3)).

use fake_xen::{Asked, ExtentExchanger, FakeGuest, FakeXen, Fault, Logged};
use hypercall::ops::{MmuExtKind, MmuUpdate, Pte};
use hypercall::{Xen, XenErrno};
use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::exchange::{Accounts, ExchangeError, ExchangeOptions, Fuse};
use xen_contig::paging::LinearMapping;

/// Runs `script` with an exchanger, and returns the hypercalls that it made.
fn log_of<'g, R>(
    guest: &'g FakeGuest,
    script: impl FnOnce(ExtentExchanger<'g, FakeXen, FakeGuest>) -> R,
) -> (R, Vec<Logged>) {
    let accounts: &Accounts = Box::leak(Box::default());
    guest.xen().take_log();
    let result = script(guest.exchanger(accounts, Order::new(9).unwrap()));
    (result, guest.xen().take_log())
}

/// Does the same with separate hypercalls in place of a multicall.
fn unfused_log_of<'g, R>(
    guest: &'g FakeGuest,
    script: impl FnOnce(ExtentExchanger<'g, FakeXen, FakeGuest>) -> R,
) -> (R, Vec<Logged>) {
    let options = ExchangeOptions { fuse: Fuse::Off, ..ExchangeOptions::default() };
    log_of(guest, |exchanger| script(exchanger.with_options(options)))
}

/// Checks that there is one exchange and that the flush rules hold.
fn check_flush_rules(log: &[Logged]) {
    check_one_flush_before(log, 1);
}

/// Checks that there are `count` exchanges and one flush, right before the first.
///
/// The flush covers all vCPUs, and no vCPU interrupts another.
fn check_one_flush_before(log: &[Logged], count: usize) {
    let exchanges: Vec<usize> =
        (0..log.len()).filter(|index| log[*index].asked.is_exchange()).collect();
    let flushes: Vec<usize> = (0..log.len()).filter(|index| log[*index].asked.flushes()).collect();
    assert_eq!(exchanges.len(), count, "{log:#?}");
    assert_eq!(flushes, [exchanges[0] - 1], "{log:#?}");
    assert_eq!(log[flushes[0]].asked, Asked::MmuExt(vec![MmuExtKind::TlbFlushAll]));
    assert!(log.iter().all(|call| call.asked != Asked::Send), "{log:#?}");
    let made = log[exchanges[0] + count..].iter();
    assert!(made.clone().all(|call| matches!(call.asked, Asked::MmuUpdate { .. })), "{log:#?}");
}

#[test]
fn the_only_flush_is_the_last_call_before_the_exchange() {
    for order in Order::new(9).unwrap().up_to() {
        let guest = FakeGuest::new(2048);
        let frames = order.frames();
        let mut list = vec![0; 2 * frames as usize];
        let (extent, log) = log_of(&guest, |exchanger| {
            exchanger.acquire(guest.run(1024, frames), AddressBits::UNLIMITED, &mut list)
        });
        check_flush_rules(&log);
        // The entries clear the linear mapping, flush and exchange, in this order.
        assert_eq!(log[0].asked, Asked::Multicall { entries: 3 });
        assert!(log[3].asked.is_exchange());
        let (run, log) = log_of(&guest, |exchanger| exchanger.release(extent.unwrap(), &mut list));
        assert_eq!(run.unwrap().frames(), frames);
        check_flush_rules(&log);

        let (extent, log) = unfused_log_of(&guest, |exchanger| {
            exchanger.acquire(guest.run(1024, frames), AddressBits::UNLIMITED, &mut list)
        });
        assert!(extent.is_ok());
        check_flush_rules(&log);
        assert!(!log.iter().any(|call| matches!(call.asked, Asked::Multicall { .. })));
    }
}

/// The clock counts a flush only if Xen made it, whichever entry Xen refuses.
#[test]
fn a_flush_that_xen_refused_is_made_again_and_counted_once() {
    for (call, refused) in [(1, false), (2, false), (3, true), (4, false)] {
        let guest = FakeGuest::new(2048);
        let before = guest.flushes().now();
        guest.xen().arm(Fault::refuse(call, XenErrno::EBUSY));
        let (_, log) = log_of(&guest, |exchanger| {
            exchanger.acquire(guest.run(1024, 16), AddressBits::UNLIMITED, &mut [0; 16]).is_ok()
        });
        assert_eq!(guest.xen().disarm(), 1);
        let made = log.iter().filter(|call| call.asked.flushes() && call.answer.is_ok()).count();
        assert_eq!(guest.flushes().covers(before), made > 0, "call {call}");
        assert_eq!(made, if call == 1 { 0 } else { 1 }, "call {call}: {log:#?}");
        assert_eq!(log.iter().any(|call| call.asked.flushes() && call.answer.is_err()), refused);
        // The model fails the test if a vCPU reaches an old frame.
        (0..2).for_each(|vcpu| {
            guest.run(1024, 16).iter().for_each(|pfn| _ = guest.read(vcpu, pfn, 0))
        });
        guest.check_whole();
    }
}

#[test]
fn a_refused_exchange_flushes_once_like_a_successful_one() {
    let guest = FakeGuest::new(2048);
    guest.alias(0, Pfn::new(1100));
    let (result, log) = log_of(&guest, |exchanger| {
        exchanger.acquire(guest.run(1024, 128), AddressBits::UNLIMITED, &mut [0; 128])
    });
    assert!(matches!(result.unwrap_err().error, ExchangeError::FrameBusy { .. }));
    // The refused exchange, one question for each halving of 128 frames, and one for the last frame.
    check_one_flush_before(&log, 1 + 8);
    guest.check_whole();
}

#[test]
fn no_vcpu_reaches_the_old_frames() {
    let guest = FakeGuest::new(2048);
    guest.paint();
    let run = guest.run(1024, 512);
    for pfn in run.iter() {
        assert_eq!(guest.read(1, pfn, 17), FakeGuest::colour(pfn));
    }
    let (extent, _) =
        log_of(&guest, |exchanger| exchanger.acquire(run, AddressBits::UNLIMITED, &mut [0; 512]));
    // The model fails the test at an access for which a TLB holds a stale translation.
    for vcpu in [0, 1] {
        for pfn in extent.as_ref().unwrap().run().iter() {
            assert_eq!(guest.read(vcpu, pfn, 17), u64::from(vcpu));
            guest.write(vcpu, pfn, 17, u64::from(vcpu) + 1);
        }
    }
    guest.check_whole();
}

#[test]
fn the_flush_covers_aliases_that_were_purged_without_one() {
    let guest = FakeGuest::new(2048);
    guest.alias(5, Pfn::new(1030));
    assert_eq!(guest.read_alias(1, 5, 0), 0);
    guest.unalias(5);
    let (extent, log) = log_of(&guest, |exchanger| {
        exchanger.acquire(guest.run(1024, 16), AddressBits::UNLIMITED, &mut [0; 16])
    });
    check_flush_rules(&log);
    assert_eq!(extent.unwrap().order().get(), 4);
    guest.alias(5, Pfn::new(1700));
    assert_eq!(guest.read_alias(1, 5, 0), 0, "the address is reused without another flush");
    guest.unalias(5);
    guest.check_whole();
}

/// Shows that the tests above can fail: the model detects an exchange without a flush.
#[test]
#[should_panic(expected = "no flush came before the exchange")]
fn the_model_catches_an_exchange_without_a_flush() {
    let guest = FakeGuest::new(1024);
    let pfn = Pfn::new(600);
    let mut input = [guest.mfn(pfn).unwrap().number()];
    let zap = [MmuUpdate::page_table(guest.entry(pfn).get(), Pte::NOT_PRESENT)];
    // SAFETY: the model's frames contain no Rust object.
    unsafe { guest.xen().mmu_update(&zap, &mut 0, hypercall::DomId::SELF) }.unwrap();
    let list = |start: &mut u64| hypercall::abi::memory::MemoryReservation {
        extent_start: start,
        nr_extents: 1,
        extent_order: 0,
        mem_flags: 0,
        domid: hypercall::DomId::SELF,
    };
    let mut output = [pfn.number()];
    let mut exchange = hypercall::abi::memory::MemoryExchange {
        input: list(&mut input[0]),
        output: list(&mut output[0]),
        nr_exchanged: 0,
    };
    // SAFETY: each list has one entry, and no other code accesses it.
    let _ = unsafe { guest.xen().memory_op(hypercall::ops::MemoryOp::Exchange(&mut exchange)) };
}
