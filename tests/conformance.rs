//! The rows of `docs/CONFORMANCE.md` that no other test is named after.
//!
//! The tests of the other rows are in `raw_exchange.rs`, `exchange.rs`, `hostile_xen.rs` and
//! `refill.rs`.

use fake_xen::{ExchangeFault, Extent, FakeGuest, GUEST, GuestBuilder, Lie, Owner, POISON};
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemoryOp, MmuExtOp, MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};
use xen_contig::addr::{AddressBits, Mfn, Order, Pfn};
use xen_contig::exchange::{Accounts, ExchangeError, ExchangeFailure};
use xen_contig::paging::LinearMapping;

const ANYWHERE: AddressBits = AddressBits::UNLIMITED;

fn extents(list: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}

fn exchange(guest: &FakeGuest, argument: &mut MemoryExchange) -> Result<u64, XenErrno> {
    // SAFETY: each list is as long as the argument says and no other code accesses it. The model's
    // frames contain no Rust object.
    unsafe { guest.xen().memory_op(MemoryOp::Exchange(argument)) }
}

/// Writes the linear entries of frames, and flushes.
fn write_entries(guest: &FakeGuest, entries: impl Iterator<Item = (Pfn, Pte)>) {
    for (pfn, pte) in entries {
        let update = [MmuUpdate::page_table(guest.entry(pfn).get(), pte)];
        // SAFETY: the model's frames contain no Rust object.
        unsafe { guest.xen().mmu_update(&update, &mut 0, DomId::SELF) }.unwrap();
    }
    // SAFETY: a flush changes no mapping.
    unsafe { guest.xen().mmuext_op(&[MmuExtOp::tlb_flush_all()], &mut 0, DomId::SELF) }.unwrap();
}

/// Unmaps frames, and returns the machine frames that back them. Their bytes stay.
fn unmap(guest: &FakeGuest, pfns: std::ops::Range<u64>) -> Vec<u64> {
    write_entries(guest, pfns.clone().map(|pfn| (Pfn::new(pfn), Pte::NOT_PRESENT)));
    pfns.map(|pfn| guest.mfn(Pfn::new(pfn)).unwrap().number()).collect()
}

fn acquire(
    guest: &FakeGuest,
    first: u64,
    frames: u64,
) -> (Result<Extent, ExchangeFailure<'_>>, u64) {
    let accounts: &Accounts = Box::leak(Box::default());
    let result = guest.exchanger(accounts, Order::MAX).acquire(
        guest.run(first, frames),
        ANYWHERE,
        &mut vec![0; frames as usize],
    );
    (result, accounts.quarantined())
}

#[test]
fn c01_an_unreadable_argument_is_not_taken_for_a_refusal() {
    // The argument is a reference, so this cannot happen. Xen would return the same error as for a torn
    // exchange. The M2P shows that no frame is gone.
    let guest = FakeGuest::new(1024);
    let answer = Lie { commit: false, answer: Err(XenErrno::EFAULT), count: None, out: None };
    guest.xen().arm_exchange(ExchangeFault::Lie(answer));
    let (result, quarantined) = acquire(&guest, 512, 16);
    let torn = ExchangeError::Torn { errno: Some(XenErrno::EFAULT), exchanged: 0 };
    assert_eq!((result.unwrap_err().error, quarantined), (torn, 0));
    guest.check_whole();
}

#[test]
fn c17_no_command_has_room_for_a_start_extent() {
    // The lowest six bits of the command are the operation (MEMOP_CMD_MASK). The bits above count
    // extents.
    let mut list = [0];
    let mut reservation = extents(&mut list, 0);
    let mut exchange = MemoryExchange { input: reservation, output: reservation, nr_exchanged: 0 };
    for command in [
        MemoryOp::IncreaseReservation(&mut reservation).number(),
        MemoryOp::DecreaseReservation(&mut reservation).number(),
        MemoryOp::PopulatePhysmap(&mut reservation).number(),
        MemoryOp::Exchange(&mut exchange).number(),
    ] {
        assert!(command < 1 << 6, "{command}");
    }
}

#[test]
fn c18_a_count_within_a_chunk_is_rounded_down() {
    let guest = FakeGuest::new(1024);
    let mut input = unmap(&guest, 512..516);
    let mut out = [512];
    let (in_list, out_list) = (extents(&mut input, 0), extents(&mut out, 2));
    let mut argument = MemoryExchange { input: in_list, output: out_list, nr_exchanged: 3 };
    assert_eq!((exchange(&guest, &mut argument), argument.nr_exchanged), (Ok(0), 4));
    // The count says that three extents were done. All four are gone.
    assert!(input.iter().all(|mfn| guest.owner(Mfn::new(*mfn)) == Some(Owner::Free)));
    assert_eq!(guest.pfn(Mfn::new(out[0])), Some(Pfn::new(512)));
}

#[test]
fn c37_after_a_rollback_the_frames_are_as_before_and_map_writable() {
    let guest = FakeGuest::new(1024);
    guest.paint();
    let before = guest.snapshot();
    let good = unmap(&guest, 600..603);
    let mut input = [good[0], good[1], 1 << 40, good[2]];
    let mut out = [600];
    let (in_list, out_list) = (extents(&mut input, 0), extents(&mut out, 2));
    let mut argument = MemoryExchange { input: in_list, output: out_list, nr_exchanged: 0 };
    assert_eq!(exchange(&guest, &mut argument), Err(XenErrno::EINVAL));
    for (pfn, mfn) in (600..).map(Pfn::new).zip(good.iter().map(|mfn| Mfn::new(*mfn))) {
        assert_eq!(guest.owner(mfn), Some(Owner::Domain(GUEST)));
        assert_eq!(guest.pfn(mfn), Some(pfn));
        write_entries(&guest, std::iter::once((pfn, Pte::new(mfn, guest.flags()))));
        assert!(guest.linear_entry(pfn).is_writable());
    }
    assert_eq!(guest.snapshot(), before, "the bytes are as before too");
    guest.check_whole();
}

#[test]
fn c45_claimed_memory_is_not_available_and_the_message_says_so() {
    // Xen's answer is that of [C40](xen_contig::conformance#C40), although it has free extents.
    let guest = FakeGuest::new(1024);
    let before = guest.snapshot();
    assert!(guest.highest_free_order() >= Some(4));
    let answer = Lie { commit: false, answer: Err(XenErrno::ENOMEM), count: None, out: None };
    guest.xen().arm_exchange(ExchangeFault::Lie(answer));
    let (result, quarantined) = acquire(&guest, 512, 16);
    let failure = result.unwrap_err();
    assert!(matches!(failure.error, ExchangeError::NoMemory { .. }), "{failure}");
    assert!(failure.error.to_string().contains("claim"), "{failure}");
    assert_eq!((failure.remaining.whole().unwrap(), quarantined), (guest.run(512, 16), 0));
    assert_eq!(guest.snapshot().moved(&before), []);
    guest.check_whole();
}

#[test]
fn c53_overlapping_lists_leave_false_entries_in_the_m2p() {
    let guest = FakeGuest::new(1024);
    let mut both = unmap(&guest, 600..601);
    let old = both[0];
    let list = extents(&mut both, 0);
    let mut argument = MemoryExchange { input: list, output: list, nr_exchanged: 0 };
    assert_eq!(exchange(&guest, &mut argument), Ok(0));
    assert_eq!(guest.pfn(Mfn::new(both[0])), Some(Pfn::new(old)), "the entry of the in-list");
    // The library uses two separate lists.
    let guest = FakeGuest::new(1024);
    assert!(acquire(&guest, 512, 16).0.is_ok());
    guest.check_whole();
}

#[test]
fn c54_an_out_frame_in_use_is_overwritten_in_the_m2p() {
    let guest = FakeGuest::new(1024);
    let (mut input, mut out) = (unmap(&guest, 600..602), [601]);
    let (in_list, out_list) = (extents(&mut input, 0), extents(&mut out, 1));
    let mut argument = MemoryExchange { input: in_list, output: out_list, nr_exchanged: 0 };
    assert_eq!(exchange(&guest, &mut argument), Ok(0));
    let recorded = [0, 1].map(|index| guest.pfn(Mfn::new(out[0] + index)));
    assert_eq!(
        recorded,
        [601, 602].map(|pfn| Some(Pfn::new(pfn))),
        "Xen accepts an unaligned number in use"
    );
    // The library names frames of the run alone, and each frame once.
    let guest = FakeGuest::new(1024);
    let (result, _) = acquire(&guest, 701, 8);
    let extent = result.unwrap();
    for (index, pfn) in (0..).zip(extent.run().iter()) {
        assert_eq!(guest.pfn(extent.mfn().add(index)), Some(pfn));
    }
    guest.check_whole();
}

#[test]
fn c56_new_frames_have_old_bytes_until_the_library_zeroes_them() {
    let guest = FakeGuest::new(1024);
    let (mut input, mut out) = (unmap(&guest, 600..601), [600]);
    let (in_list, out_list) = (extents(&mut input, 0), extents(&mut out, 0));
    let mut argument = MemoryExchange { input: in_list, output: out_list, nr_exchanged: 0 };
    assert_eq!(exchange(&guest, &mut argument), Ok(0));
    let (pfn, mfn) = (Pfn::new(600), Mfn::new(out[0]));
    guest.forge(pfn, mfn);
    write_entries(&guest, std::iter::once((pfn, Pte::new(mfn, guest.flags()))));
    assert_eq!(guest.uniform(pfn), Some(POISON));

    let guest = FakeGuest::new(1024);
    let (result, _) = acquire(&guest, 512, 64);
    assert!(result.unwrap().run().iter().all(|pfn| guest.uniform(pfn) == Some(0)));
}

#[test]
fn c57_old_frames_are_zeroed_before_xen_gets_them() {
    let guest = FakeGuest::new(1024);
    guest.paint();
    assert!(acquire(&guest, 512, 64).0.is_ok());
    assert_eq!(guest.given_up_dirty(), 0);
    // The model's count can rise: the raw call gives Xen a frame that is not zeroed.
    let (mut input, mut out) = (unmap(&guest, 700..701), [700]);
    let (in_list, out_list) = (extents(&mut input, 0), extents(&mut out, 0));
    let mut argument = MemoryExchange { input: in_list, output: out_list, nr_exchanged: 0 };
    assert_eq!(exchange(&guest, &mut argument), Ok(0));
    assert_eq!(guest.given_up_dirty(), 1);
}

#[test]
fn c60_an_extent_that_is_contiguous_already_is_exchanged_too() {
    let guest = GuestBuilder::new(1024).build();
    let (result, _) = acquire(&guest, 512, 8);
    let first = result.unwrap().mfn();
    assert_eq!(unmap(&guest, 512..520)[0], first.number());
    let (mut input, mut out) = ([first.number()], [512]);
    let (in_list, out_list) = (extents(&mut input, 3), extents(&mut out, 3));
    let mut argument = MemoryExchange { input: in_list, output: out_list, nr_exchanged: 0 };
    assert_eq!((exchange(&guest, &mut argument), argument.nr_exchanged), (Ok(0), 1));
    assert_ne!(out[0], first.number());
    assert_eq!(guest.owner(first), Some(Owner::Free));
}
