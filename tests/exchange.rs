//! Acquire and release in a PV guest on the model hypervisor.
//!
//! The tests check what both promise, and every refusal that leaves the frames as they were. They show
//! [S1](xen_contig::rules#S1).

use fake_xen::{
    Asked, ExchangeFault, Extent, FakeGuest, FakeXen, Fault, GuestBuilder, Logged, Mark, Owner,
};
use hypercall::ops::{MemoryOp, MmuUpdateKind};
use hypercall::trace::{Phase, Span};
use hypercall::{Call, Xen, XenErrno};
use xen_contig::addr::{AddressBits, Mfn, Order, Pfn};
use xen_contig::exchange::{
    Accounts, Capability, ExchangeError, ExchangeFailure, ExchangeOptions, Fuse, Lists, Node,
    OnRefusal, Part, Placement, Progress, Scrub,
};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::M2p;
use xen_contig::paging::{Holder, LinearMapping};

fn order(order: u32) -> Order {
    Order::new(order).unwrap()
}

fn bits(bits: u32) -> AddressBits {
    AddressBits::new(bits).unwrap()
}

const ANYWHERE: AddressBits = AddressBits::UNLIMITED;

/// Acquires with an exchanger that has no order limit. Also returns how many frames are quarantined.
fn acquire(
    guest: &FakeGuest,
    run: FrameRun,
    bits: AddressBits,
) -> (Result<Extent, ExchangeFailure<'_>>, u64) {
    let accounts: &Accounts = Box::leak(Box::default());
    let exchanger = guest.exchanger(accounts, Order::MAX);
    let mut list = vec![0; run.frames() as usize];
    let result = exchanger.acquire(run, bits, &mut list);
    (result, accounts.quarantined())
}

fn release(guest: &FakeGuest, extent: Extent) -> Result<FrameRun, ExchangeFailure<'_>> {
    let accounts: &Accounts = Box::leak(Box::default());
    let exchanger = guest.exchanger(accounts, Order::MAX);
    let mut list = vec![0; 2 * extent.run().frames() as usize];
    let result = exchanger.release(extent, &mut list);
    assert_eq!(accounts.quarantined(), 0, "a release that succeeds or is refused loses nothing");
    result
}

/// Acquires and releases a run, and checks after each what the library promises.
fn acquire_and_release(guest: &FakeGuest, first: u64, order: Order, bits: AddressBits) {
    guest.paint();
    let (before, free) = (guest.snapshot(), guest.free_frames());
    let run = guest.run(first, order.frames());
    let pfns: Vec<Pfn> = run.iter().collect();
    let the_run = vec![(pfns[0], order.frames())];

    let (extent, quarantined) = acquire(guest, run, bits);
    let extent = extent.unwrap();
    assert_eq!((extent.order(), quarantined), (order, 0));
    assert!(extent.mfn().is_aligned(order), "{:?} is aligned", extent.mfn());
    assert!(extent.mfn().number() + order.frames() <= bits.frame_limit(), "{:?}", extent.mfn());
    for (index, pfn) in pfns.iter().enumerate() {
        let mfn = extent.mfn().add(index as u64);
        assert_eq!(guest.pfn(mfn), Some(*pfn), "the M2P names frame {index} of the extent");
        assert_eq!(guest.mfn(*pfn), Some(mfn));
        assert_eq!(guest.uniform(*pfn), Some(0), "{pfn} is zeroed");
    }
    let after = guest.snapshot();
    assert_eq!(after.moved(&before), the_run, "only the run has new machine frames");
    assert_eq!(after.rewritten(&before), the_run, "only the run has new bytes");
    guest.check_whole();

    pfns.iter().for_each(|pfn| guest.write(1, *pfn, 511, 0xd1a));
    assert_eq!(release(guest, extent).unwrap(), guest.run(first, order.frames()));
    let last = guest.snapshot();
    assert_eq!(
        last.rewritten(&after),
        Vec::new(),
        "the run is zeroed again, and no other frame changed"
    );
    assert_eq!(last.moved(&after), the_run);
    assert_eq!(guest.free_frames(), free, "Xen has as much memory as before");
    assert_eq!(guest.given_up_dirty(), 0, "Xen got zeroed frames alone (C57)");
    guest.check_whole();
}

#[test]
fn every_order_up_to_nine_is_acquired_and_released() {
    let guest = FakeGuest::new(2048);
    for order in order(9).up_to() {
        acquire_and_release(&guest, 1024, order, ANYWHERE);
        // The run need not be aligned. The extent is aligned in any case
        // ([C55](xen_contig::conformance#C55)).
        acquire_and_release(&guest, 701, order, bits(24));
    }
}

#[test]
fn order_twelve_is_acquired_and_released() {
    let guest = GuestBuilder::new(3 << 12).max_order(12).build();
    acquire_and_release(&guest, 1 << 12, order(12), bits(26));
    // The run starts in the middle of a page table, so no batch of updates ends with a table.
    acquire_and_release(&guest, (1 << 12) + 3, order(12), bits(26));
}

#[test]
fn order_eighteen_is_acquired_and_released() {
    let guest =
        GuestBuilder::new((1 << 18) + 2048).machine_frames(1 << 20).vcpus(1).max_order(18).build();
    let run = guest.run(1024, 1 << 18);
    let (extent, _) = acquire(&guest, run, ANYWHERE);
    let extent = extent.unwrap();
    assert!(extent.mfn().is_aligned(Order::MAX));
    assert_eq!(guest.pfn(extent.mfn().add((1 << 18) - 1)), Some(Pfn::new(1023 + (1 << 18))));
    assert!(extent.run().iter().all(|pfn| guest.uniform(pfn) == Some(0)));
    assert_eq!(release(&guest, extent).unwrap().frames(), 1 << 18);
    guest.check_whole();
}

#[test]
fn the_guest_reads_the_new_frames_in_the_real_m2p() {
    let guest = FakeGuest::new(1024);
    let mut mapping = Default::default();
    // SAFETY: the call writes to the struct alone, which it borrows.
    unsafe { guest.xen().memory_op(MemoryOp::MachphysMapping(&mut mapping)) }.unwrap();
    // SAFETY: the hypercall returned this address and this highest frame.
    let m2p = unsafe { M2p::new(mapping.v_start as *const u64, mapping.max_mfn) };
    let (extent, _) = acquire(&guest, guest.run(512, 16), ANYWHERE);
    let extent = extent.unwrap();
    // SAFETY: the model's table has no holes.
    let pfn = unsafe { m2p.pfn(extent.mfn().add(3)) };
    assert_eq!(pfn, Some(Pfn::new(515)));
    // SAFETY: `M2p::pfn` does not read an entry above the highest frame.
    assert_eq!(unsafe { m2p.pfn(Mfn::new(mapping.max_mfn + 1)) }, None);
}

/// Checks that an acquire fails with `error`, and that nothing changed.
///
/// Then `remove_cause` removes the cause, and the acquire succeeds.
fn check_refused(
    guest: &FakeGuest,
    bits: AddressBits,
    error: ExchangeError,
    remove_cause: impl FnOnce(&FakeGuest),
) {
    let before = guest.snapshot();
    let (result, quarantined) = acquire(guest, guest.run(1024, 64), bits);
    let failure = result.unwrap_err();
    assert_eq!((failure.error, quarantined), (error, 0));
    let run = failure.remaining.whole().expect("the run is returned");
    assert_eq!(run, guest.run(1024, 64));
    assert_eq!(guest.snapshot().moved(&before), Vec::new(), "the machine frames are as before");
    assert!(run.iter().all(|pfn| guest.linear_entry(pfn).is_writable()), "writable again (C37)");
    assert_eq!(guest.given_up_dirty(), 0);
    guest.check_whole();
    remove_cause(guest);
    assert_eq!(acquire(guest, run, ANYWHERE).0.unwrap().order(), order(6));
    guest.check_whole();
}

/// Returns the error for a frame that Xen refuses and whose holder is unknown.
fn busy(guest: &FakeGuest, pfn: u64) -> ExchangeError {
    let pfn = Pfn::new(pfn);
    ExchangeError::FrameBusy { pfn, mfn: guest.mfn(pfn), holder: Holder::Unknown }
}

/// This shows [S4](xen_contig::rules#S4).
#[test]
fn c30_a_frame_with_an_alias_is_refused_until_the_alias_is_removed() {
    for offset in [0, 31, 63] {
        let guest = FakeGuest::new(2048);
        guest.alias(7, Pfn::new(1024 + offset));
        let error = busy(&guest, 1024 + offset);
        check_refused(&guest, ANYWHERE, error, |guest| guest.unalias(7));
    }
}

#[test]
fn c29_a_frame_that_xen_shares_is_refused() {
    let guest = FakeGuest::new(2048);
    guest.set_special(Pfn::new(1060), true);
    let error = busy(&guest, 1060);
    check_refused(&guest, ANYWHERE, error, |guest| guest.set_special(Pfn::new(1060), false));
}

#[test]
fn c32_a_frame_that_a_peer_maps_is_refused() {
    let guest = FakeGuest::new(2048);
    guest.hold(Pfn::new(1087));
    let error = busy(&guest, 1087);
    check_refused(&guest, ANYWHERE, error, |guest| guest.unhold(Pfn::new(1087)));
}

#[test]
fn c28_a_frame_of_another_domain_is_never_mapped() {
    let guest = FakeGuest::new(2048);
    let foreign = guest.foreign_frame();
    let own = guest.forge(Pfn::new(1030), foreign);
    let (result, quarantined) = acquire(&guest, guest.run(1024, 64), ANYWHERE);
    // Xen refuses the exchange. Then it refuses to map the frame that the P2M falsely names.
    let failure = result.unwrap_err();
    let refused = ExchangeError::PageTable { pfn: Pfn::new(1030), errno: XenErrno::EBUSY };
    assert_eq!((failure.error, quarantined), (refused, 1));
    // The other frames still belong to the domain, are mapped as before, and are zeroed.
    let remaining: Vec<FrameRun> = failure.remaining.into_iter().collect();
    assert_eq!(remaining, [guest.run(1024, 6), guest.run(1031, 57)]);
    assert_eq!(guest.check().holes, [Pfn::new(1030)]);
    assert!(remaining.iter().flat_map(FrameRun::iter).all(|pfn| guest.uniform(pfn) == Some(0)));
    assert!(!guest.linear_entry(Pfn::new(1030)).is_present());
    assert!(matches!(guest.owner(foreign), Some(Owner::Domain(fake_xen::NEIGHBOUR))));
    assert!(matches!(guest.owner(own), Some(Owner::Domain(fake_xen::GUEST))));
}

#[test]
fn frames_that_xen_refuses_to_map_again_are_lost_one_by_one() {
    let guest = FakeGuest::new(2048);
    for pfn in [1024, 1030, 1031, 1087] {
        let foreign = guest.foreign_frame();
        guest.forge(Pfn::new(pfn), foreign);
    }
    let (result, quarantined) = acquire(&guest, guest.run(1024, 64), ANYWHERE);
    let failure = result.unwrap_err();
    let first = ExchangeError::PageTable { pfn: Pfn::new(1024), errno: XenErrno::EBUSY };
    assert_eq!((failure.error, quarantined, failure.remaining.lost()), (first, 4, 4));
    assert!(failure.to_string().ends_with("4 of 64 frames are quarantined"), "{failure}");
    let remaining: Vec<FrameRun> = failure.remaining.into_iter().collect();
    assert_eq!(remaining, [guest.run(1025, 5), guest.run(1032, 55)]);
    assert_eq!(guest.check().holes, [1024, 1030, 1031, 1087].map(Pfn::new));
}

/// Exchanges parts of a run of 64 frames, with lists that are long enough.
fn exchange_parts<'g>(
    guest: &'g FakeGuest,
    parts: &[Part],
    on_refusal: OnRefusal,
) -> Result<Progress, ExchangeFailure<'g>> {
    let accounts: &Accounts = Box::leak(Box::default());
    let lists = Lists { backing: &mut [0; 64], extents: &mut [0; 64] };
    guest.exchanger(accounts, order(9)).exchange(guest.run(1024, 64), parts, on_refusal, lists)
}

/// Returns true if consecutive machine frames back the frames.
fn is_extent(guest: &FakeGuest, first: u64, frames: u64) -> bool {
    let mfn = |index| guest.mfn(Pfn::new(first + index));
    (1..frames).all(|index| mfn(index) == mfn(0).map(|first| first.add(index)))
}

/// Returns how many frames lie below `2^bits`.
fn frames_below(guest: &FakeGuest, first: u64, frames: u64, bits: AddressBits) -> usize {
    let mfns = (first..first + frames).filter_map(|pfn| guest.mfn(Pfn::new(pfn)));
    mfns.filter(|mfn| mfn.number() < bits.frame_limit()).count()
}

/// After a refusal, `Undo` returns scarce extents to Xen, and `Return` keeps all.
#[test]
fn c73_parts_before_a_refusal_are_undone_or_kept() {
    let low = Placement::below(bits(22));
    for (on_refusal, placement, done, low_frames) in [
        (OnRefusal::Undo, low, 0, 0),
        // The new extents are not scarce.
        (OnRefusal::Undo, Placement::ANYWHERE, 0, 0),
        (OnRefusal::Return, low, 32, 32),
    ] {
        let guest = FakeGuest::new(2048);
        let before = frames_below(&guest, 1056, 32, bits(22));
        guest.hold(Pfn::new(1024 + 40));
        let parts = [0, 16, 32, 48].map(|at| Part::gather(at, 1, order(4), placement));
        let progress = exchange_parts(&guest, &parts, on_refusal).unwrap();
        assert_eq!((progress.done, progress.error), (done, Some(busy(&guest, 1064))));
        assert_eq!(frames_below(&guest, 1024, 32, bits(22)), low_frames);
        assert_eq!(frames_below(&guest, 1056, 32, bits(22)), before);
        // The undo exchanged extents for extents, so Xen has as many of them as before.
        assert!(is_extent(&guest, 1024, 16) && is_extent(&guest, 1040, 16));
        assert_eq!(progress.run, guest.run(1024, 64));
        guest.check_whole();
    }
}

/// If Xen has no extents of that order, the undo asks for smaller ones.
#[test]
fn an_undo_takes_smaller_extents_if_xen_has_no_others() {
    let calls = |fault: Option<Fault>| {
        let guest = FakeGuest::new(2048);
        guest.hold(Pfn::new(1024 + 40));
        if let Some(fault) = fault {
            guest.xen().arm(fault);
        }
        guest.xen().take_log();
        let low = Placement::below(bits(22));
        let parts = [Part::gather(0, 2, order(4), low), Part::gather(32, 1, order(4), low)];
        let progress = exchange_parts(&guest, &parts, OnRefusal::Undo).unwrap();
        assert_eq!(progress.error, Some(busy(&guest, 1064)));
        assert_eq!(frames_below(&guest, 1024, 32, bits(22)), 0);
        guest.check_whole();
        guest.xen().take_log()
    };
    let undone = |log: &[Logged], extents| {
        let swap = |call: &&Logged| {
            matches!(call.asked, Asked::Exchange { input, output, bits: 64 }
                if input == extents && output == extents)
        };
        log.iter().filter(swap).count()
    };
    let log = calls(None);
    assert_eq!(undone(&log, (2, 4)), 1);
    let refused =
        1 + log.iter().position(|call| undone(core::slice::from_ref(call), (2, 4)) == 1).unwrap();
    let log = calls(Some(Fault::refuse(refused as u64, XenErrno::ENOMEM)));
    assert_eq!((undone(&log, (2, 4)), undone(&log, (4, 3))), (1, 1));
}

/// The undo of 30 MiB takes one hypercall.
#[test]
fn an_undo_takes_one_hypercall_for_each_part() {
    let guest = GuestBuilder::new(3 << 12).max_order(9).build();
    guest.hold(Pfn::new(2048 + 8000));
    let low = Placement::below(bits(27));
    let parts = [Part::gather(0, 15, order(9), low), Part::gather(15 << 9, 1, order(9), low)];
    let (mut backing, accounts) = (vec![0; 8192], Accounts::new());
    let lists = Lists { backing: &mut backing, extents: &mut [0; 16] };
    let exchanger = guest.exchanger(&accounts, order(9));
    guest.xen().take_log();
    let progress =
        exchanger.exchange(guest.run(2048, 8192), &parts, OnRefusal::Undo, lists).unwrap();
    assert_eq!((progress.done, progress.error), (0, Some(busy(&guest, 10048))));
    let log = guest.xen().take_log();
    let swaps = log
        .iter()
        .filter(|call| matches!(call.asked, Asked::Exchange { input: (_, 9), output: (_, 9), .. }));
    assert_eq!(swaps.count(), 1);
    guest.check_whole();
}

/// Neither Xen nor the guest has fewer extents afterwards.
#[test]
fn extents_are_swapped_for_extents() {
    let guest = FakeGuest::new(2048);
    let low = Placement::below(bits(22));
    exchange_parts(&guest, &[Part::gather(8, 3, order(4), low)], OnRefusal::Undo).unwrap();
    assert_eq!(frames_below(&guest, 1032, 48, bits(22)), 48);
    let (before, free) = (guest.snapshot(), guest.free_frames());
    guest.xen().take_log();

    // The first two are swapped, and the third remains.
    let swap = Part::swap(8, 2, order(4), Placement::ANYWHERE);
    let Progress { run, done, error } = exchange_parts(&guest, &[swap], OnRefusal::Undo).unwrap();
    assert_eq!((done, error, &run), (32, None, &guest.run(1024, 64)));
    assert!(is_extent(&guest, 1032, 16) && is_extent(&guest, 1048, 16));
    assert_eq!(frames_below(&guest, 1032, 48, bits(22)), 16);
    assert_eq!(guest.snapshot().moved(&before), [(Pfn::new(1032), 32)]);
    assert_eq!(guest.free_frames(), free);
    let asked = Asked::Exchange { input: (2, 4), output: (2, 4), bits: 64 };
    assert_eq!(guest.xen().take_log().iter().filter(|call| call.asked == asked).count(), 1);

    // Extents anywhere are swapped for extents in low memory.
    let swap = Part::swap(8, 4, order(3), low);
    exchange_parts(&guest, &[swap], OnRefusal::Undo).unwrap();
    assert_eq!(frames_below(&guest, 1032, 48, bits(22)), 48);
    guest.check_whole();
}

#[test]
fn a_swap_that_xen_refuses_leaves_its_extents_whole() {
    let guest = FakeGuest::new(2048);
    let low = Placement::below(bits(22));
    exchange_parts(&guest, &[Part::gather(0, 4, order(4), low)], OnRefusal::Undo).unwrap();
    let swap = |placement| [Part::swap(0, 4, order(4), placement)];
    guest.hold(Pfn::new(1024 + 37));
    let refused = exchange_parts(&guest, &swap(Placement::ANYWHERE), OnRefusal::Return).unwrap();
    assert_eq!((refused.done, refused.error), (32, Some(busy(&guest, 1061))));
    guest.unhold(Pfn::new(1024 + 37));
    // If memory below a limit is short, the diagnosis must not break up an extent.
    guest.exhaust_below(bits(22));
    let refused = exchange_parts(&guest, &swap(low), OnRefusal::Undo).unwrap();
    let none = ExchangeError::NoMemory { order: order(4), bits: bits(22), node: Node::Any };
    assert_eq!((refused.done, refused.error), (0, Some(none)));
    assert!((1024..1088).step_by(16).all(|first| is_extent(&guest, first, 16)));
    guest.check_whole();
    // The frames of the part are not extents of this order.
    let swap = [Part::swap(0, 2, order(5), Placement::ANYWHERE)];
    let failure = exchange_parts(&guest, &swap, OnRefusal::Undo).unwrap_err();
    assert!(
        matches!(failure.error, ExchangeError::NotContiguous { order, .. } if order.get() == 5)
    );
}

/// After a refusal the library asks Xen for the cause. The fault hits one of these questions.
#[test]
fn an_unexpected_answer_to_the_diagnosis_names_no_cause() {
    let refused = |errno| ExchangeError::Refused { errno };
    let guest = FakeGuest::new(2048);
    let fail = |call, part: Part| {
        guest.xen().arm(Fault::refuse(call, XenErrno::EBUSY));
        let accounts: &Accounts = Box::leak(Box::default());
        let (backing, extents) = (&mut [0; 64], &mut [0; 64]);
        let lists = Lists { backing, extents };
        let exchanger = guest.exchanger(accounts, Order::MAX);
        let result = exchanger.exchange(guest.run(1024, 64), &[part], OnRefusal::Undo, lists);
        assert_eq!(guest.xen().disarm(), 1);
        guest.check_whole();
        result.unwrap().error.unwrap()
    };
    // The first four calls are the multicall and its entries. The questions follow.
    let whole = |placement| Part::gather(0, 1, order(6), placement);
    // The question is whether the order is above the limit.
    guest.deny_exchange(Some(XenErrno::EPERM));
    assert_eq!(fail(5, whole(Placement::ANYWHERE)), refused(XenErrno::EPERM));
    guest.deny_exchange(None);
    // The question is whether Xen refuses the node.
    let exactly = Placement { bits: ANYWHERE, node: Node::Exactly(3) };
    assert_eq!(fail(5, whole(exactly)), refused(XenErrno::EINVAL));
    // The question is which frame Xen refuses.
    guest.alias(7, Pfn::new(1050));
    for call in [5, 7, 11] {
        let unnamed = refused(XenErrno::EINVAL);
        assert_eq!(fail(call, whole(Placement::ANYWHERE)), unnamed, "call {call}");
    }
    guest.unalias(7);
    // Xen refused a frame that it accepts at the next question.
    guest.xen().arm(Fault::refuse(4, XenErrno::EINVAL));
    let failure = acquire(&guest, guest.run(1024, 64), ANYWHERE).0.unwrap_err();
    let no_longer = ExchangeError::FrameRefused { first: Pfn::new(1024), frames: 64 };
    assert_eq!((failure.error, failure.is_transient()), (no_longer, true));
    // The question is whether Xen has a single frame below the limit.
    guest.exhaust_below(bits(23));
    let no_extent = ExchangeError::NoMemory { order: order(6), bits: bits(23), node: Node::Any };
    assert_eq!(fail(5, whole(Placement::below(bits(23)))), no_extent);
}

#[test]
fn the_phases_of_an_exchange_are_reported() {
    use Phase::{Attach, Detach, DetachExchange, Exchange, Plan, Purge, Zero};
    let guest = FakeGuest::new(2048);
    let phases = |fuse, run: FrameRun, extents| {
        guest.xen().take_marks();
        let accounts: &Accounts = Box::leak(Box::default());
        let lists = Lists { backing: &mut [0; 16], extents: &mut [0; 16] };
        let part = |index: u64| Part::gather(8 * index, 1, order(3), Placement::below(bits(24)));
        let parts = [part(0), part(1)];
        let options = ExchangeOptions { fuse, ..ExchangeOptions::default() };
        let exchanger = guest.exchanger(accounts, order(9)).with_options(options);
        let _result = exchanger.exchange(run, &parts[..extents], OnRefusal::Undo, lists);
        let (mut open, mut phases) = (None, vec![]);
        for mark in guest.xen().take_marks() {
            match mark {
                Mark::Enter(Span::Phase(phase)) => {
                    assert_eq!(open.replace(phase), None, "phases do not nest");
                    phases.push(phase);
                }
                Mark::Leave(Span::Phase(phase)) => assert_eq!(open.take(), Some(phase)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(open, None);
        phases
    };
    let run = || guest.run(1024, 16);
    assert_eq!(phases(Fuse::Off, run(), 2), [Plan, Purge, Zero, Detach, Exchange, Attach]);
    assert_eq!(phases(Fuse::On, run(), 1), [Plan, Purge, Zero, DetachExchange, Attach]);
    // The second part has a hypercall of its own.
    assert_eq!(phases(Fuse::On, run(), 2), [Plan, Purge, Zero, DetachExchange, Exchange, Attach]);
    assert_eq!(phases(Fuse::On, guest.run(1024, 8), 2), [Plan]);
    // The undone parts are zeroed.
    guest.hold(Pfn::new(1034));
    let undone = phases(Fuse::On, run(), 2);
    assert_eq!(undone, [Plan, Purge, Zero, DetachExchange, Exchange, Exchange, Attach, Zero]);
}

/// Returns the number of hypercalls. The entries of a multicall do not count.
fn hypercalls(log: &[Logged]) -> usize {
    let entries = log.iter().map(|call| match call.asked {
        Asked::Multicall { entries } => entries,
        _ => 0,
    });
    log.len() - entries.sum::<usize>()
}

#[test]
fn an_exchange_takes_at_most_three_hypercalls_for_orders_0_to_9() {
    for order in order(9).up_to() {
        let guest = FakeGuest::new(2048);
        let accounts = Accounts::new();
        let frames = order.frames() as usize;
        for (first, fuse, calls) in [(1024, Fuse::On, 2), (701, Fuse::On, 2), (1024, Fuse::Off, 4)]
        {
            let options = ExchangeOptions { fuse, scrub: Scrub::ByXen };
            let exchanger = guest.exchanger(&accounts, Order::MAX).with_options(options);
            for part in [
                Part::gather(0, 1, order, Placement::below(bits(24))),
                Part::swap(0, 1, order, Placement::ANYWHERE),
                Part::scatter(0, order),
                Part::replace(0, order.frames()),
            ] {
                let lists = Lists { backing: &mut vec![0; frames], extents: &mut vec![0; frames] };
                let run = guest.run(first, order.frames());
                guest.xen().take_log();
                let progress = exchanger.exchange(run, &[part], OnRefusal::Undo, lists).unwrap();
                assert_eq!((progress.done, progress.error), (order.frames(), None));
                assert_eq!(hypercalls(&guest.xen().take_log()), calls, "{part:?} {fuse:?}");
            }
        }
        guest.check_whole();
    }
}

/// A table whose frames are all in the run is unhooked by two updates in place of 512.
///
/// Two updates hook it in again.
#[test]
fn whole_tables_are_unhooked() {
    let guest = GuestBuilder::new(3 << 12).max_order(12).build();
    let asked = |first: u64, order: Order| {
        guest.xen().take_log();
        let (extent, _) = acquire(&guest, guest.run(first, order.frames()), ANYWHERE);
        assert_eq!(extent.unwrap().order(), order);
        guest.check_whole();
        let log = guest.xen().take_log();
        let updates = log.iter().filter_map(|call| match call.asked {
            Asked::MmuUpdate { updates } => Some(updates),
            _ => None,
        });
        (hypercalls(&log), updates.collect::<Vec<_>>())
    };
    assert_eq!(asked(1024, order(9)), (2, vec![2, 2]));
    assert_eq!(asked(1 << 12, order(12)), (1 + 8, [vec![16], vec![2; 8]].concat()));
    // The run lacks three frames of the first table, and has only three of the last one.
    let updates = [vec![509 + 3, 14], vec![509], vec![2; 7], vec![3]].concat();
    assert_eq!(asked((1 << 12) + 3, order(12)), (1 + 1 + 9, updates));
    // The run covers no table.
    assert_eq!(asked(1025, order(9)), (2, vec![512, 512]));
}

#[test]
fn a_foreign_frame_loses_one_frame_of_a_whole_table() {
    let guest = FakeGuest::new(2048);
    let foreign = guest.foreign_frame();
    guest.forge(Pfn::new(1300), foreign);
    let (result, quarantined) = acquire(&guest, guest.run(1024, 512), ANYWHERE);
    let failure = result.unwrap_err();
    let refused = ExchangeError::PageTable { pfn: Pfn::new(1300), errno: XenErrno::EBUSY };
    assert_eq!((failure.error, quarantined, failure.remaining.lost()), (refused, 1, 1));
    let remaining: Vec<FrameRun> = failure.remaining.into_iter().collect();
    assert_eq!(remaining, [guest.run(1024, 276), guest.run(1301, 235)]);
    assert_eq!(guest.check().holes, [Pfn::new(1300)]);
}

#[test]
fn a_torn_exchange_of_whole_tables_is_recovered() {
    for fault in [
        ExchangeFault::OutUnwritable(0),
        ExchangeFault::InUnreadable(100),
        ExchangeFault::OutUnreadable(1),
    ] {
        let guest = FakeGuest::new(2048);
        let accounts = Accounts::new();
        let exchanger = guest.exchanger(&accounts, order(9));
        let part = Part::gather(0, 2, order(8), Placement::below(bits(24)));
        let lists = Lists { backing: &mut [0; 512], extents: &mut [0; 2] };
        let lost = if fault == ExchangeFault::OutUnreadable(1) { 256 } else { 0 };
        guest.xen().arm_exchange(fault);
        let run = guest.run(1024, 512);
        let failure = exchanger.exchange(run, &[part], OnRefusal::Undo, lists).unwrap_err();
        assert!(matches!(failure.error, ExchangeError::Torn { .. }), "{failure}");
        assert_eq!((failure.remaining.lost(), accounts.quarantined()), (lost, lost), "{failure}");
        assert_eq!(guest.check().holes.len() as u64, lost);
    }
}

/// A hypervisor that refuses to hook in the table of one entry.
struct RefusingXen<'g> {
    xen: &'g FakeXen,
    upper: u64,
}

// SAFETY: it passes a call on to the model, or refuses it without any effect.
unsafe impl Xen for RefusingXen<'_> {
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        if let Call::MmuUpdate { updates, .. } = call
            && updates.iter().any(|update| {
                matches!(update.kind(), MmuUpdateKind::PageTable { entry, pte }
                    if entry == self.upper && pte.is_present())
            })
        {
            return Err(XenErrno::EINVAL);
        }
        // SAFETY: `Xen::call` requires of the caller what the same method of the model requires.
        unsafe { self.xen.call(call) }
    }
}

#[test]
fn a_table_that_xen_refuses_to_hook_in_loses_its_frames_and_no_others() {
    let guest = FakeGuest::new(4096);
    let upper = guest.whole_table(Pfn::new(1536)).unwrap().upper.get();
    let xen = RefusingXen { xen: guest.xen(), upper };
    let accounts = Accounts::new();
    let exchanger = guest.exchanger_via(&xen, &guest, &accounts, order(10));
    guest.set_max_order(10);
    let failure = exchanger.acquire(guest.run(1024, 1024), ANYWHERE, &mut [0; 1024]).unwrap_err();
    let error = ExchangeError::PageTable { pfn: Pfn::new(1536), errno: XenErrno::EINVAL };
    assert_eq!((failure.error, failure.remaining.lost()), (error, 512));
    assert_eq!(accounts.quarantined(), 512);
    assert!(failure.remaining.into_iter().eq([guest.run(1024, 512)]));
    let lost: Vec<Pfn> = (1536..2048).map(Pfn::new).collect();
    assert_eq!(guest.check().holes, lost);
}

#[test]
fn without_a_multicall_the_calls_are_made_one_by_one() {
    let guest = FakeGuest::new(2048);
    guest.xen().arm(Fault::refuse(1, XenErrno::ENOSYS));
    guest.xen().take_log();
    acquire_and_release(&guest, 1024, order(6), bits(24));
    assert_eq!(guest.xen().disarm(), 1);
}

/// If Xen scrubs, the guest does not zero the frames that it gives up.
///
/// After a refusal, frames that came from Xen are zeroed, and frames that stayed keep their bytes.
#[test]
fn frames_that_xen_scrubs_are_not_zeroed_before() {
    let guest = FakeGuest::new(2048);
    guest.paint();
    let accounts = Accounts::new();
    let options = ExchangeOptions { scrub: Scrub::ByXen, ..ExchangeOptions::default() };
    let exchanger = guest.exchanger(&accounts, order(9)).with_options(options);
    let exchange = |parts: &[Part], on_refusal| {
        let lists = Lists { backing: &mut [0; 64], extents: &mut [0; 64] };
        guest.xen().take_marks();
        exchanger.exchange(guest.run(1024, 64), parts, on_refusal, lists)
    };
    let zeroed = || guest.xen().take_marks().contains(&Mark::Enter(Span::Phase(Phase::Zero)));
    let low = |first, extents| Part::gather(first, extents, order(4), Placement::below(bits(24)));
    let coloured = |pfn| guest.uniform(Pfn::new(pfn)) == Some(FakeGuest::colour(Pfn::new(pfn)));

    // Xen refuses before anything moved.
    guest.hold(Pfn::new(1024));
    assert!(exchange(&[low(0, 4)], OnRefusal::Undo).unwrap().error.is_some());
    assert!(!zeroed() && (1024..1088).all(coloured));
    guest.unhold(Pfn::new(1024));
    // Xen refuses the third part. The undone parts are zeroed. The caller must zero the kept parts.
    guest.hold(Pfn::new(1060));
    assert_eq!(exchange(&[low(0, 1)], OnRefusal::Undo).unwrap().done, 16);
    assert!(!zeroed() && !(1024..1040).any(|pfn| guest.uniform(Pfn::new(pfn)) == Some(0)));
    let parts = [low(0, 1), low(16, 1), low(32, 1)];
    assert_eq!(exchange(&parts, OnRefusal::Undo).unwrap().done, 0);
    assert!(zeroed() && (1024..1056).all(|pfn| guest.uniform(Pfn::new(pfn)) == Some(0)));
    assert!((1056..1088).all(coloured));
    guest.paint();
    assert_eq!(exchange(&parts, OnRefusal::Return).unwrap().done, 32);
    assert!(!(1024..1056).any(|pfn| guest.uniform(Pfn::new(pfn)) == Some(0)));
    assert!((1056..1088).all(coloured));
    // Xen got frames that were not zeroed.
    assert!(guest.given_up_dirty() > 0);
    guest.check_whole();
}

/// If Xen refuses the flush, an exchanged frame is quarantined, because a TLB may still map the old
/// one. The other frames remain.
#[test]
fn frames_exchanged_without_a_flush_are_quarantined() {
    let guest = FakeGuest::new(2048);
    guest.hold(Pfn::new(1024 + 40));
    guest.xen().refuse_flushes(Some(XenErrno::EBUSY));
    let parts = [Part::gather(8, 3, order(4), Placement::ANYWHERE)];
    let failure = exchange_parts(&guest, &parts, OnRefusal::Undo).unwrap_err();
    assert_eq!(failure.error, ExchangeError::Flush { errno: XenErrno::EBUSY });
    assert_eq!(failure.remaining.lost(), 32);
    let remaining: Vec<FrameRun> = failure.remaining.into_iter().collect();
    assert_eq!(remaining, [guest.run(1024, 8), guest.run(1064, 24)]);
    assert_eq!(guest.check().holes, (1032..1064).map(Pfn::new).collect::<Vec<_>>());
    guest.xen().refuse_flushes(None);
    assert!(exchange_parts(&guest, &[], OnRefusal::Undo).is_err());
}

#[test]
fn errors_say_whether_the_same_call_can_succeed_later() {
    let (pfn, mfn, bits) = (Pfn::new(1), None, bits(23));
    let errno = |errno| ExchangeError::Refused { errno };
    let busy = |holder| ExchangeError::FrameBusy { pfn, mfn, holder };
    for (error, transient) in [
        (ExchangeError::NoMemory { order: order(6), bits, node: Node::Any }, true),
        (ExchangeError::NoMemoryBelow { bits, node: Node::Any }, true),
        (ExchangeError::FrameRefused { first: pfn, frames: 4 }, true),
        (busy(Holder::Granted { reference: 8 }), true),
        (busy(Holder::Shared { name: "grant table" }), false),
        (errno(XenErrno::EBUSY), true),
        (errno(XenErrno::ENOSYS), false),
        (ExchangeError::NotPermitted, false),
        (ExchangeError::BadPart { first: 0, frames: 0, run: 1 }, false),
        (ExchangeError::Torn { errno: None, exchanged: 0 }, false),
    ] {
        assert_eq!(error.is_transient(), transient, "{error}");
    }
}

#[test]
fn c02_c03_the_order_limit_is_found_by_exchanges_that_move_nothing() {
    for limit in [0, 5, 9, 10, 12, 18] {
        for guest in [
            GuestBuilder::new(512).max_order(limit).build(),
            GuestBuilder::new(512).max_order(limit).translated().build(),
        ] {
            let before = guest.snapshot();
            let found = order(limit);
            let capability = Capability::ask(guest.xen(), &guest.p2m());
            let translated = guest.p2m().is_translated();
            let exchange = Capability::Exchange { limit: found };
            let refill = Capability::Refill { limit: found };
            assert_eq!(capability, if translated { refill } else { exchange });
            assert_eq!(guest.snapshot(), before);
            assert!(guest.xen().take_log().iter().all(|call| !call.asked.is_exchange()));
            guest.check_whole();
        }
    }
}

/// An unexpected error neither lowers the order limit nor denies every exchange.
#[test]
fn an_unexpected_answer_about_an_order_is_not_a_denial() {
    let ask = |errno, call| {
        let guest = GuestBuilder::new(512).max_order(9).build();
        guest.xen().arm(Fault::refuse(call, errno));
        let capability = Capability::ask(guest.xen(), &guest.p2m());
        assert_eq!(guest.xen().disarm(), 1);
        capability
    };
    for errno in [XenErrno::EBUSY, XenErrno::EFAULT, XenErrno::EOPNOTSUPP] {
        // The first two calls ask about order 0, the last one about order 9.
        for call in 1..=11 {
            let limit = order(9);
            assert_eq!(ask(errno, call), Capability::Exchange { limit }, "{errno} {call}");
        }
    }
    let why = ExchangeError::Refused { errno: XenErrno::ENOSYS };
    assert_eq!(ask(XenErrno::ENOSYS, 1), Capability::None { why });
    let why = ExchangeError::OrderNotPermitted { order: Order::ZERO };
    assert_eq!(ask(XenErrno::EPERM, 1), Capability::None { why });
}

#[test]
fn c02_an_order_above_the_limit_is_named() {
    let guest = GuestBuilder::new(2048).max_order(5).build();
    let error = ExchangeError::OrderNotPermitted { order: order(6) };
    check_refused(&guest, ANYWHERE, error, |guest| guest.set_max_order(9));
}

#[test]
fn c04_an_extent_above_a_lowered_order_limit_is_released() {
    let guest = FakeGuest::new(2048);
    let (extent, _) = acquire(&guest, guest.run(1024, 512), ANYWHERE);
    let extent = extent.unwrap();
    guest.set_max_order(7);
    let run = release(&guest, extent).unwrap();
    assert_eq!(run, guest.run(1024, 512));
    let mfns: Vec<u64> = run.iter().map(|pfn| guest.mfn(pfn).unwrap().number()).collect();
    assert!(mfns.windows(2).any(|pair| pair[1] != pair[0] + 1), "the frames are still one extent");
    guest.check_whole();
}

#[test]
fn c16_a_policy_is_not_reported_as_the_order_limit() {
    let guest = FakeGuest::new(2048);
    guest.deny_exchange(Some(XenErrno::EPERM));
    check_refused(&guest, ANYWHERE, ExchangeError::NotPermitted, |guest| guest.deny_exchange(None));
}

#[test]
fn an_unknown_errno_is_returned_as_it_is() {
    let guest = FakeGuest::new(2048);
    let errno = XenErrno::from_raw(133).unwrap();
    guest.deny_exchange(Some(errno));
    check_refused(&guest, ANYWHERE, ExchangeError::Refused { errno }, |guest| {
        guest.deny_exchange(None)
    });
}

/// Xen can have memory for its own tables later.
#[test]
fn a_page_table_update_that_failed_for_lack_of_memory_is_transient() {
    let guest = FakeGuest::new(2048);
    guest.xen().arm(Fault::refuse(1, XenErrno::ENOMEM));
    let failure = acquire(&guest, guest.run(1024, 64), ANYWHERE).0.unwrap_err();
    let error = ExchangeError::PageTable { pfn: Pfn::new(1024), errno: XenErrno::ENOMEM };
    assert_eq!((failure.error, failure.is_transient()), (error, true));
    let pfn = Pfn::new(1024);
    for (errno, transient) in [(XenErrno::EAGAIN, true), (XenErrno::EINVAL, false)] {
        assert_eq!(ExchangeError::PageTable { pfn, errno }.is_transient(), transient, "{errno}");
    }
    guest.check_whole();
}

#[test]
fn c40_a_fragmented_heap_has_no_extent() {
    let guest = FakeGuest::new(2048);
    guest.fragment(order(6));
    assert_eq!(guest.highest_free_order(), Some(5));
    let error = ExchangeError::NoMemory { order: order(6), bits: ANYWHERE, node: Node::Any };
    check_refused(&guest, ANYWHERE, error, |guest| guest.relieve());
}

/// The order in the error is that of the new extents. A release asks for single frames.
#[test]
fn a_release_without_memory_names_order_0() {
    let guest = FakeGuest::new(2048);
    let (extent, _) = acquire(&guest, guest.run(1024, 64), ANYWHERE);
    guest.exhaust_but(0);
    let failure = release(&guest, extent.unwrap()).unwrap_err();
    assert_eq!(
        failure.error,
        ExchangeError::NoMemory { order: Order::ZERO, bits: ANYWHERE, node: Node::Any }
    );
    assert!(failure.is_transient());
    guest.check_whole();
}

#[test]
fn c41_memory_above_the_limit_does_not_count() {
    let guest = FakeGuest::new(2048);
    guest.exhaust_below(bits(23));
    let error = ExchangeError::NoMemoryBelow { bits: bits(23), node: Node::Any };
    check_refused(&guest, bits(23), error, |guest| guest.relieve());
}

#[test]
fn c41_fragmented_memory_below_the_limit_is_not_reported_as_none() {
    let guest = FakeGuest::new(2048);
    guest.fragment(order(6));
    let before = guest.snapshot();
    let (result, quarantined) = acquire(&guest, guest.run(1024, 64), bits(23));
    let failure = result.unwrap_err();
    assert_eq!(
        failure.error,
        ExchangeError::NoMemory { order: order(6), bits: bits(23), node: Node::Any }
    );
    assert_eq!((failure.remaining.whole().unwrap(), quarantined), (guest.run(1024, 64), 0));
    // The diagnosis exchanged one frame for low memory, and returned the low memory to Xen.
    let moved = guest.snapshot().moved(&before);
    assert!(moved.iter().all(|run| *run == (Pfn::new(1024), 1)), "{moved:?}");
    assert_eq!(guest.mfn(Pfn::new(1024)).map(|mfn| mfn.number() < 1 << 11), Some(false));
    // The new frame from Xen is zeroed too.
    assert!((1024..1088).all(|pfn| guest.uniform(Pfn::new(pfn)) == Some(0)));
    guest.check_whole();
}

#[test]
fn c48_a_domain_at_its_maximum_may_exchange() {
    let guest = GuestBuilder::new(2048).max_pages(2048).build();
    acquire_and_release(&guest, 1024, order(9), ANYWHERE);
    // SAFETY: `XENMEM_current_reservation` accesses no memory of the guest.
    let pages =
        unsafe { guest.xen().memory_op(MemoryOp::CurrentReservation(hypercall::DomId::SELF)) };
    assert_eq!(pages, Ok(2048));
}

#[test]
fn c26_an_exchange_in_a_translated_guest_is_refused() {
    let guest = GuestBuilder::new(1024).translated().build();
    // The exchanger has a PV guest's tables, and calls the Xen of a translated guest.
    let (pv, accounts) = (FakeGuest::new(1024), Accounts::new());
    let exchanger = pv.exchanger_via(guest.xen(), &pv, &accounts, order(9));
    let failure = exchanger.acquire(pv.run(512, 8), ANYWHERE, &mut [0; 8]).unwrap_err();
    // Xen refuses the page-table updates, which come before the exchange.
    let refused = |error| matches!(error, ExchangeError::PageTable { errno: XenErrno::ENOSYS, .. });
    assert!(refused(failure.error), "{failure}");
    guest.check_whole();
}

#[test]
fn impossible_requests_are_refused_before_anything_moves() {
    let guest = FakeGuest::new(2048);
    let accounts = Accounts::new();
    let exchanger = guest.exchanger(&accounts, order(8));
    let before = guest.snapshot();
    guest.xen().take_log();
    for (frames, len, error) in [
        (512, 512, ExchangeError::OrderNotPermitted { order: order(9) }),
        (8, 7, ExchangeError::ListTooShort { needed: 8, len: 7 }),
    ] {
        let failure =
            exchanger.acquire(guest.run(1024, frames), ANYWHERE, &mut vec![0; len]).unwrap_err();
        assert_eq!(failure.error, error);
        assert_eq!(failure.remaining.whole().unwrap(), guest.run(1024, frames));
    }
    // SAFETY: nothing uses frames beyond the guest's memory. The exchanger must refuse them.
    let beyond = unsafe { FrameRun::new(Pfn::new(2047), 2) };
    let failure = exchanger.acquire(beyond, ANYWHERE, &mut [0; 2]).unwrap_err();
    assert_eq!(failure.error, ExchangeError::NotPopulated { pfn: Pfn::new(2048) });
    assert_eq!(guest.xen().take_log(), Vec::new(), "no hypercall was made");
    assert_eq!(guest.snapshot(), before);

    let extent = exchanger.acquire(guest.run(1024, 8), ANYWHERE, &mut [0; 8]).unwrap();
    guest.xen().take_log();
    let failure = exchanger.release(extent, &mut [0; 15]).unwrap_err();
    assert_eq!(failure.error, ExchangeError::ListTooShort { needed: 8, len: 7 });
    assert_eq!(failure.remaining.whole().unwrap(), guest.run(1024, 8));
    assert_eq!(guest.xen().take_log(), Vec::new());
    guest.check_whole();
}

/// The parts have sums that overflow, or lie outside the run.
#[test]
fn an_impossible_part_is_refused_before_anything_moves() {
    let guest = FakeGuest::new(512);
    let accounts = Accounts::new();
    let exchanger = guest.exchanger(&accounts, order(9));
    let (before, max) = (guest.snapshot(), u64::MAX);
    guest.xen().take_log();
    let gather = |first, extents, o| Part::gather(first, extents, order(o), Placement::ANYWHERE);
    for part in [
        gather(max, 1, 0),
        gather(1, max, 0),
        gather(0, 1 << 61, 3),
        gather(0, (1 << 61) + 1, 3),
        gather(1, 1, 3),
        gather(8, 1, 0),
        gather(0, 0, 0),
        Part::replace(max, max),
        Part::scatter(max - 1, order(1)),
    ] {
        let lists = Lists { backing: &mut [0; 8], extents: &mut [0; 8] };
        let failure =
            exchanger.exchange(guest.run(64, 8), &[part], OnRefusal::Undo, lists).unwrap_err();
        let (first, frames) = (part.first(), part.frames());
        assert_eq!(failure.error, ExchangeError::BadPart { first, frames, run: 8 });
        assert_eq!(failure.remaining.whole().unwrap(), guest.run(64, 8));
    }
    assert_eq!(guest.xen().take_log(), Vec::new(), "no hypercall was made");
    assert_eq!(guest.snapshot(), before);
}

/// Xen takes the machine frames after the first of an extent, whatever the P2M says.
#[test]
fn an_extent_that_does_not_back_its_part_is_not_given_up() {
    let guest = FakeGuest::new(1024);
    let accounts = Accounts::new();
    let exchanger = guest.exchanger(&accounts, order(9));
    let run = guest.run(600, 64);
    // The machine frame after that of this frame backs a later frame of the run, not the next one.
    let mfns: Vec<u64> = run.iter().map(|pfn| guest.mfn(pfn).unwrap().number()).collect();
    let follows = |index: &usize| mfns[index + 2..].contains(&(mfns[*index] + 1));
    let first = (0..mfns.len() - 2).find(follows).unwrap();
    let before = guest.snapshot();
    guest.xen().take_log();

    let parts = [Part::scatter(first as u64, order(1))];
    let lists = Lists { backing: &mut [0; 64], extents: &mut [0; 64] };
    let failure = exchanger.exchange(run, &parts, OnRefusal::Undo, lists).unwrap_err();
    let pfn = Pfn::new(601 + first as u64);
    assert_eq!(failure.error, ExchangeError::NotContiguous { pfn, order: order(1) });
    assert!(failure.to_string().contains("no extent of order 1"), "{failure}");
    assert!(!failure.is_transient());
    assert_eq!(failure.remaining.whole().unwrap(), guest.run(600, 64));
    assert_eq!(guest.xen().take_log(), Vec::new(), "no hypercall was made");
    assert_eq!((guest.snapshot(), accounts.quarantined()), (before, 0));
}
