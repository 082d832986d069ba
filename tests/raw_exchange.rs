//! The raw hypercall on the model, with arguments that the library never makes.
//!
//! The image makes the same calls on a real Xen.

use fake_xen::{FakeGuest, GUEST, GuestBuilder, NEIGHBOUR, Owner};
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemoryOp, MmuExtOp, MmuUpdate, Pte};
use hypercall::{DomId, Xen, XenErrno};
use xen_contig::addr::{Mfn, Order, Pfn};
use xen_contig::paging::LinearMapping;

fn extents(list: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}

fn call(guest: &FakeGuest, exchange: &mut MemoryExchange) -> Result<u64, XenErrno> {
    // SAFETY: each list is as long as the argument says, or the model refuses it before it reads it.
    // The model's frames contain no Rust object.
    unsafe { guest.xen().memory_op(MemoryOp::Exchange(exchange)) }
}

/// Zeroes and unmaps frames as the library does. Returns the machine frames that back them.
fn detach(guest: &FakeGuest, pfns: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut mfns = Vec::new();
    for pfn in pfns.map(Pfn::new) {
        mfns.push(guest.mfn(pfn).unwrap().number());
        guest.fill(pfn, 0);
        let zap = [MmuUpdate::page_table(guest.entry(pfn).get(), Pte::NOT_PRESENT)];
        // SAFETY: the model's frames contain no Rust object.
        unsafe { guest.xen().mmu_update(&zap, &mut 0, DomId::SELF) }.unwrap();
    }
    // SAFETY: a flush changes no mapping.
    unsafe { guest.xen().mmuext_op(&[MmuExtOp::tlb_flush_all()], &mut 0, DomId::SELF) }.unwrap();
    mfns
}

/// Exchanges `input` for frames at `pfns`, after `change` changed the argument.
///
/// Returns the result and the count.
fn exchange_with(
    guest: &FakeGuest,
    input: &mut [u64],
    pfns: &mut [u64],
    change: impl FnOnce(&mut MemoryExchange),
) -> (Result<u64, XenErrno>, u64) {
    let (input, output) = (extents(input, 0), extents(pfns, 0));
    let mut exchange = MemoryExchange { input, output, nr_exchanged: 0 };
    change(&mut exchange);
    (call(guest, &mut exchange), exchange.nr_exchanged)
}

/// Exchanges one frame with a changed argument, and checks that the frame is untouched.
fn untouched(change: impl FnOnce(&mut MemoryExchange)) -> (Result<u64, XenErrno>, u64) {
    let guest = FakeGuest::new(1024);
    let mut input = detach(&guest, 600..601);
    let before = guest.snapshot();
    let result = exchange_with(&guest, &mut input, &mut [600], change);
    assert_eq!(guest.snapshot(), before);
    assert_eq!(guest.check().orphans, []);
    result
}

#[test]
fn c05_a_count_above_the_extents_is_einval() {
    assert_eq!(untouched(|x| x.nr_exchanged = 2), (Err(XenErrno::EINVAL), 2));
}

#[test]
fn c06_different_domids_are_einval_even_for_oneself() {
    assert_eq!(untouched(|x| x.output.domid = GUEST).0, Err(XenErrno::EINVAL));
}

#[test]
fn c07_an_overflow_is_einval() {
    let result = untouched(|x| {
        x.input.nr_extents = 1 << 60;
        x.input.extent_order = 9;
    });
    assert_eq!(result.0, Err(XenErrno::EINVAL));
}

#[test]
fn c08_different_sizes_are_einval() {
    assert_eq!(untouched(|x| x.output.extent_order = 1).0, Err(XenErrno::EINVAL));
}

#[test]
fn c02_the_order_is_checked_before_anything_else() {
    let result = untouched(|x| {
        x.output.extent_order = 10;
        x.nr_exchanged = 7;
        x.output.domid = NEIGHBOUR;
    });
    assert_eq!(result, (Err(XenErrno::EPERM), 7));
}

#[test]
fn c09_nothing_to_do_succeeds_on_every_guest() {
    for guest in [FakeGuest::new(1024), GuestBuilder::new(1024).translated().build()] {
        assert_eq!(exchange_with(&guest, &mut [], &mut [], |_| ()), (Ok(0), 0));
        assert_eq!(exchange_with(&guest, &mut [5], &mut [5], |x| x.nr_exchanged = 1), (Ok(0), 1));
        guest.check_whole();
    }
}

#[test]
fn c10_a_list_in_xens_addresses_is_efault() {
    let barred = 1 << 47..0xffff_8800_0000_0000_u64;
    for start in [1 << 47, 0xffff_8000_0000_0000, 0xffff_87ff_ffff_fff8, u64::MAX - 3, 0] {
        let result = untouched(|x| x.input.extent_start = start as *mut u64);
        assert_eq!(result, (Err(XenErrno::EFAULT), 0), "{start:#x}");
        // Xen checks the range of the out-list here. It accesses the list only after the commit point
        // ([C50](xen_contig::conformance#C50)).
        if barred.contains(&start) {
            let result = untouched(|x| x.output.extent_start = start as *mut u64);
            assert_eq!(result, (Err(XenErrno::EFAULT), 0), "{start:#x}");
        }
    }
}

#[test]
fn c12_a_domu_may_not_request_an_exact_node() {
    assert_eq!(untouched(|x| x.output.mem_flags = 1 << 17 | 1 << 8).0, Err(XenErrno::EINVAL));
    let guest = GuestBuilder::new(1024).privileged().build();
    let mut input = detach(&guest, 600..601);
    let result = exchange_with(&guest, &mut input, &mut [600], |x| x.output.mem_flags = 200 << 8);
    assert_eq!(result.0, Err(XenErrno::EINVAL));
}

#[test]
fn c13_a_node_without_exactness_is_ignored() {
    let guest = FakeGuest::new(1024);
    let mut input = detach(&guest, 600..601);
    let result = exchange_with(&guest, &mut input, &mut [600], |x| x.output.mem_flags = 200 << 8);
    assert_eq!(result, (Ok(0), 1));
}

#[test]
fn c15_c16_an_exchange_for_another_domain_is_refused() {
    let both = |x: &mut MemoryExchange, id| (x.input.domid, x.output.domid) = (id, id);
    assert_eq!(untouched(|x| both(x, DomId(77))).0, Err(XenErrno::ESRCH));
    assert_eq!(untouched(|x| both(x, NEIGHBOUR)).0, Err(XenErrno::EPERM));
}

#[test]
fn c24_a_list_among_the_detached_frames_is_efault() {
    let guest = FakeGuest::new(1024);
    let mut input = detach(&guest, 600..616);
    guest.place(&input, Pfn::new(603));
    let before = guest.snapshot();
    let mut pfns: Vec<u64> = (600..616).collect();
    let result = exchange_with(&guest, &mut input, &mut pfns, |_| ());
    assert_eq!(result, (Err(XenErrno::EFAULT), 0));
    assert_eq!(guest.snapshot(), before);
}

#[test]
fn c51_an_out_list_among_the_detached_frames_loses_them() {
    let guest = FakeGuest::new(1024);
    let mut input = detach(&guest, 600..601);
    let mut pfns = [600];
    guest.place(&pfns, Pfn::new(600));
    assert_eq!(exchange_with(&guest, &mut input, &mut pfns, |_| ()), (Err(XenErrno::EFAULT), 0));
    assert_eq!(guest.owner(Mfn::new(input[0])), Some(Owner::Free));
}

#[test]
fn c25_c28_c33_a_frame_that_the_caller_may_not_give_rolls_the_chunk_back() {
    let guest = FakeGuest::new(1024);
    let good = detach(&guest, 600..604);
    let before = guest.snapshot();
    let foreign = guest.foreign_frame().number();
    // A frame beyond the machine, in its hole, of Xen, free, of another domain, and the same one twice.
    for bad in [1 << 40, 0xa5, 3, 0x200, foreign, good[0]] {
        let mut input = [good[0], good[1], bad, good[3]];
        let mut pfns = [600];
        let result = exchange_with(&guest, &mut input, &mut pfns, |x| x.output.extent_order = 2);
        assert_eq!((result, pfns), ((Err(XenErrno::EINVAL), 0), [600]), "{bad:#x}");
        assert_eq!(guest.snapshot(), before, "{bad:#x}");
    }
}

#[test]
fn c31_a_page_table_cannot_be_given_up() {
    let guest = FakeGuest::new(1024);
    let mut input = [guest.mfn(Pfn::new(0)).unwrap().number()];
    assert_eq!(exchange_with(&guest, &mut input, &mut [600], |_| ()), (Err(XenErrno::EINVAL), 0));
    guest.check_whole();
}

#[test]
fn c26_a_translated_caller_gets_eopnotsupp_for_a_frame_of_its_own() {
    let guest = GuestBuilder::new(1024).translated().build();
    let result = exchange_with(&guest, &mut [600], &mut [600], |_| ());
    assert_eq!(result, (Err(XenErrno::EOPNOTSUPP), 0));
    let result = exchange_with(&guest, &mut [5000], &mut [600], |_| ());
    assert_eq!(result, (Err(XenErrno::EINVAL), 0));
    guest.check_whole();
}

/// No released Xen exchanges memory of translated guests.
#[test]
fn c79_if_xen_permits_it_the_extent_backs_the_frames_of_the_out_list() {
    let guest = GuestBuilder::new(1024).translated().build();
    guest.permit_translated_exchange(true);
    let backing = |pfn: u64| guest.mfn(Pfn::new(pfn)).unwrap().number();
    let mut single: Vec<u64> = (600..616).collect();
    let mut extents = [600, 608];
    // The guest exchanges single frames for two extents, and the extents for single frames.
    let result = exchange_with(&guest, &mut single, &mut extents, |x| x.output.extent_order = 3);
    assert_eq!((result, extents), ((Ok(0), 16), [600, 608]));
    for first in extents {
        assert!(Mfn::new(backing(first)).is_aligned(Order::new(3).unwrap()));
        assert!((0..8).all(|index| backing(first + index) == backing(first) + index));
    }
    let before: Vec<u64> = (600..616).map(backing).collect();
    let result = exchange_with(&guest, &mut extents, &mut single, |x| x.input.extent_order = 3);
    assert_eq!((result, single), ((Ok(0), 2), (600..616).collect()));
    assert!((600..616).map(backing).zip(before).all(|(now, before)| now != before));
    guest.check_whole();
    // The in-list has a hole, the same frame twice, or a frame that a peer maps.
    guest.hold(Pfn::new(700));
    let before = guest.snapshot();
    for bad in [[620, 5000], [620, 620], [620, 700]] {
        let (mut input, mut out) = (bad, [620]);
        let result = exchange_with(&guest, &mut input, &mut out, |x| x.output.extent_order = 1);
        assert_eq!((result, out), ((Err(XenErrno::EINVAL), 0), [620]));
        assert_eq!(guest.snapshot(), before);
    }
}

#[test]
fn c34_one_bad_frame_in_a_larger_extent_rolls_all_back() {
    let guest = FakeGuest::new(1024);
    let mut input = detach(&guest, 512..528);
    let mut out = [512];
    let result = exchange_with(&guest, &mut input, &mut out, |x| x.output.extent_order = 4);
    assert_eq!(result, (Ok(0), 16));
    let [first] = out;
    guest.forge_all(512, first, 16);
    guest.hold(Pfn::new(520));
    let before = guest.snapshot();
    let (mut input, mut pfns) = ([first], (512..528).collect::<Vec<u64>>());
    let result = exchange_with(&guest, &mut input, &mut pfns, |x| x.input.extent_order = 4);
    assert_eq!(result, (Err(XenErrno::EINVAL), 0));
    assert_eq!(guest.snapshot(), before);
}

#[test]
fn c41_c42_bits_at_the_edges() {
    for (bits, expected) in [(0, Ok(0)), (65, Ok(0)), (255, Ok(0)), (64, Ok(0))] {
        let guest = FakeGuest::new(1024);
        let mut input = detach(&guest, 600..601);
        let result = exchange_with(&guest, &mut input, &mut [600], |x| x.output.mem_flags = bits);
        assert_eq!(result.0, expected, "{bits}");
    }
    for bits in [1, 12, 13, 16] {
        assert_eq!(untouched(|x| x.output.mem_flags = bits).0, Err(XenErrno::ENOMEM), "{bits}");
    }
}

/// Exchanges single frames for `count` extents of order 2, so for this number of chunks.
fn chunks(guest: &FakeGuest, count: u64) -> (Result<u64, XenErrno>, u64, Vec<u64>) {
    let mut input = detach(guest, 512..512 + 4 * count);
    let mut pfns: Vec<u64> = (0..count).map(|chunk| 512 + 4 * chunk).collect();
    let (result, done) = exchange_with(guest, &mut input, &mut pfns, |x| x.output.extent_order = 2);
    (result, done, pfns)
}

#[test]
fn c70_c71_a_preempted_exchange_resumes_by_itself_and_counts_in_extents() {
    let guest = FakeGuest::new(1024);
    guest.xen().set_preempt(true);
    let (result, done, out) = chunks(&guest, 8);
    assert_eq!((result, done, guest.xen().preemptions()), (Ok(0), 32, 7));
    for (chunk, first) in (0..).zip(out) {
        assert!(Mfn::new(first).is_aligned(Order::new(2).unwrap()));
        assert_eq!(guest.pfn(Mfn::new(first + 3)), Some(Pfn::new(512 + 4 * chunk + 3)));
    }
}

#[test]
fn c73_chunks_before_the_memory_ends_stay_exchanged() {
    let guest = FakeGuest::new(1024);
    let mut input = detach(&guest, 512..520);
    let mut pfns = [512, 514, 516, 518];
    // Two of the last four free frames form an extent. The frames that a chunk frees are single.
    guest.fragment(Order::new(2).unwrap());
    guest.exhaust_but(4);
    assert_eq!(guest.highest_free_order(), Some(1));
    let result = exchange_with(&guest, &mut input, &mut pfns, |x| x.output.extent_order = 1);
    assert_eq!(result, (Err(XenErrno::ENOMEM), 2), "one chunk, counted in in-extents");
    assert_eq!(pfns[1..], [514, 516, 518]);
    for index in 0..2 {
        assert_eq!(guest.pfn(Mfn::new(pfns[0] + index)), Some(Pfn::new(512 + index)));
    }
    let owned = |mfn: &u64| guest.owner(Mfn::new(*mfn)) == Some(Owner::Domain(GUEST));
    assert_eq!(
        input.iter().map(owned).collect::<Vec<_>>(),
        [[false; 2].as_slice(), &[true; 6]].concat()
    );
}
