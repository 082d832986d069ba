//! The model's own checks. A defect that would let the other tests pass must stop a test here.

mod examples;
mod real_memory;

use fake_xen::{Census, FakeGuest, GuestBuilder, POISON};
use hypercall::abi::memory::MemoryReservation;
use hypercall::ops::{MemoryOp, MmuExtOp, MmuUpdate, Pte, UvmFlags};
use hypercall::{DomId, PageTableFlags, Xen, XenErrno};
use xen_contig::addr::{Mfn, Pfn};
use xen_contig::paging::LinearMapping;

const WRITABLE: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);

fn update(guest: &FakeGuest, entry: u64, pte: Pte) -> Result<u64, XenErrno> {
    // SAFETY: the model's frames hold nothing of Rust's.
    unsafe { guest.xen().mmu_update(&[MmuUpdate::page_table(entry, pte)], &mut 0, DomId::SELF) }
}

fn reservation(list: &mut [u64]) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}

#[test]
#[should_panic(expected = "while its TLB may still translate it")]
fn a_changed_translation_is_stale_until_flushed() {
    let guest = FakeGuest::new(1024);
    let (one, other) = (Pfn::new(600), Pfn::new(601));
    let pte = Pte::new(guest.mfn(other).unwrap(), WRITABLE);
    update(&guest, guest.entry(one).get(), pte).unwrap();
    guest.read(1, one, 0);
}

#[test]
#[should_panic(expected = "vCPU 1 accesses")]
fn a_local_flush_does_nothing_for_another_vcpu() {
    let guest = FakeGuest::new(1024);
    let pte = Pte::new(guest.mfn(Pfn::new(601)).unwrap(), WRITABLE);
    update(&guest, guest.entry(Pfn::new(600)).get(), pte).unwrap();
    // SAFETY: a flush changes no mapping.
    unsafe { guest.xen().mmuext_op(&[MmuExtOp::tlb_flush_local()], &mut 0, DomId::SELF) }.unwrap();
    guest.read(0, Pfn::new(600), 0);
    guest.read(1, Pfn::new(600), 0);
}

#[test]
fn an_invlpg_of_all_vcpus_is_enough_for_one_address() {
    let guest = FakeGuest::new(1024);
    let pte = Pte::new(guest.mfn(Pfn::new(601)).unwrap(), WRITABLE);
    let flush = UvmFlags::INVLPG | UvmFlags::ALL;
    let address = guest.address(Pfn::new(600));
    // SAFETY: the model's frames hold nothing of Rust's.
    unsafe { guest.xen().update_va_mapping(address, pte, flush) }.unwrap();
    guest.write(1, Pfn::new(601), 3, 9);
    assert_eq!([0, 1].map(|vcpu| guest.read(vcpu, Pfn::new(600), 3)), [9, 9]);
}

#[test]
#[should_panic(expected = "whose entry is Pte(0x0)")]
fn an_unmapped_frame_cannot_be_reached() {
    let guest = FakeGuest::new(1024);
    update(&guest, guest.entry(Pfn::new(600)).get(), Pte::NOT_PRESENT).unwrap();
    // SAFETY: a flush changes no mapping.
    unsafe { guest.xen().mmuext_op(&[MmuExtOp::tlb_flush_all()], &mut 0, DomId::SELF) }.unwrap();
    guest.read(0, Pfn::new(600), 0);
}

#[test]
#[should_panic(expected = "writes to")]
fn a_page_table_cannot_be_written() {
    FakeGuest::new(1024).write(0, Pfn::new(0), 0, 0);
}

#[test]
fn a_page_table_cannot_be_mapped_writable() {
    let guest = FakeGuest::new(1024);
    let table = guest.mfn(Pfn::new(0)).unwrap();
    let refused = update(&guest, guest.alias_entry(0), Pte::new(table, WRITABLE));
    assert_eq!(refused, Err(XenErrno::EBUSY));
    let read_only = Pte::new(table, PageTableFlags::PRESENT);
    assert_eq!(update(&guest, guest.alias_entry(0), read_only), Ok(0));
    guest.check_whole();
}

#[test]
fn a_writable_frame_cannot_become_a_page_table() {
    let guest = FakeGuest::new(1024);
    let pfn = Pfn::new(600);
    let mfn = guest.mfn(pfn).unwrap();
    let ext = |op| {
        // SAFETY: the model's frames hold nothing of Rust's.
        unsafe { guest.xen().mmuext_op(&[op], &mut 0, DomId::SELF) }
    };
    assert_eq!(ext(MmuExtOp::pin_l1(mfn)), Err(XenErrno::EINVAL));
    update(&guest, guest.entry(pfn).get(), Pte::new(mfn, PageTableFlags::PRESENT)).unwrap();
    assert_eq!(ext(MmuExtOp::pin_l1(mfn)), Ok(0));
    assert_eq!(ext(MmuExtOp::pin_l1(mfn)), Err(XenErrno::EINVAL));
    assert_eq!(ext(MmuExtOp::clear_page(mfn)), Err(XenErrno::EINVAL));
    guest.check_whole();
    assert_eq!(ext(MmuExtOp::unpin(mfn)), Ok(0));
    assert_eq!(ext(MmuExtOp::unpin(mfn)), Err(XenErrno::EINVAL));
    guest.check_whole();
}

#[test]
#[should_panic(expected = "which is no page table")]
fn a_page_table_write_to_a_data_frame_is_caught() {
    let guest = FakeGuest::new(1024);
    let entry = guest.mfn(Pfn::new(600)).unwrap().number() << 12;
    let _ = update(&guest, entry, Pte::NOT_PRESENT);
}

#[test]
fn frames_of_others_cannot_be_mapped() {
    let guest = FakeGuest::new(1024);
    let foreign = guest.foreign_frame();
    let map = |mfn| update(&guest, guest.alias_entry(1), Pte::new(mfn, WRITABLE));
    assert_eq!(map(foreign), Err(XenErrno::EBUSY));
    assert_eq!(map(Mfn::new(2)), Err(XenErrno::EBUSY), "Xen's");
    assert_eq!(map(Mfn::new(0xa0)), Err(XenErrno::EPERM), "a hole");
    assert_eq!(map(Mfn::new(1 << 30)), Err(XenErrno::EPERM), "beyond the machine");
    guest.check_whole();
}

#[test]
fn updates_stop_at_the_first_that_fails() {
    let guest = FakeGuest::new(1024);
    let zap = |pfn| MmuUpdate::page_table(guest.entry(Pfn::new(pfn)).get(), Pte::NOT_PRESENT);
    let bad = MmuUpdate::machine_to_phys(Mfn::new(0xa0), 1);
    let mut done = 0;
    // SAFETY: the model's frames hold nothing of Rust's.
    let result = unsafe {
        guest.xen().mmu_update(&[zap(600), zap(601), bad, zap(602)], &mut done, DomId::SELF)
    };
    assert_eq!((result, done), (Err(XenErrno::EINVAL), 2));
    let present = |pfn| guest.linear_entry(Pfn::new(pfn)).is_present();
    assert_eq!([600, 601, 602].map(present), [false, false, true]);
}

#[test]
#[should_panic(expected = "the M2P of mfn")]
fn the_check_sees_a_false_m2p() {
    let guest = FakeGuest::new(1024);
    let lie = [MmuUpdate::machine_to_phys(guest.mfn(Pfn::new(600)).unwrap(), 601)];
    // SAFETY: the model's frames hold nothing of Rust's.
    unsafe { guest.xen().mmu_update(&lie, &mut 0, DomId::SELF) }.unwrap();
    guest.check();
}

#[test]
#[should_panic(expected = "what pfn 0x258 is mapped to")]
fn the_check_sees_a_false_mapping() {
    let guest = FakeGuest::new(1024);
    let pte = Pte::new(guest.mfn(Pfn::new(601)).unwrap(), WRITABLE);
    update(&guest, guest.entry(Pfn::new(600)).get(), pte).unwrap();
    guest.check();
}

#[test]
#[should_panic(expected = "beneath pfn 0x258")]
fn the_check_sees_a_false_p2m() {
    let guest = FakeGuest::new(1024);
    guest.forge(Pfn::new(600), Mfn::new(2));
    guest.check();
}

#[test]
fn the_check_names_what_is_unmapped() {
    let guest = FakeGuest::new(1024);
    update(&guest, guest.entry(Pfn::new(600)).get(), Pte::NOT_PRESENT).unwrap();
    let unmapped = vec![Pfn::new(600)];
    assert_eq!(guest.check(), Census { mapped: 1023, unmapped, holes: vec![], orphans: vec![] });
}

#[test]
#[should_panic(expected = "was given up while something maps it")]
fn c76_a_decrease_takes_mapped_frames_without_a_word() {
    let guest = FakeGuest::new(1024);
    let mut list = [guest.mfn(Pfn::new(600)).unwrap().number()];
    let mut arg = reservation(&mut list);
    // SAFETY: the model's frames hold nothing of Rust's.
    let done = unsafe { guest.xen().memory_op(MemoryOp::DecreaseReservation(&mut arg)) };
    assert_eq!(done, Ok(1));
    guest.check();
}

#[test]
fn a_frame_that_was_given_up_is_freed_with_its_last_mapping() {
    let guest = FakeGuest::new(1024);
    let (pfn, free) = (Pfn::new(600), guest.free_frames());
    let mut list = [guest.mfn(pfn).unwrap().number()];
    let mut arg = reservation(&mut list);
    // SAFETY: the model's frames hold nothing of Rust's.
    unsafe { guest.xen().memory_op(MemoryOp::DecreaseReservation(&mut arg)) }.unwrap();
    assert_eq!(guest.free_frames(), free);
    update(&guest, guest.entry(pfn).get(), Pte::NOT_PRESENT).unwrap();
    assert_eq!(guest.free_frames(), free + 1);
}

#[test]
fn new_memory_is_poisoned() {
    let guest = GuestBuilder::new(1024).translated().max_pages(1025).build();
    let mut list = [700];
    // SAFETY: the list has one entry and nothing else uses it; no Rust object lies in the frame.
    let done = unsafe {
        let mut arg = reservation(&mut list);
        guest.xen().memory_op(MemoryOp::DecreaseReservation(&mut arg)).unwrap();
        guest.xen().memory_op(MemoryOp::PopulatePhysmap(&mut arg))
    };
    assert_eq!(done, Ok(1));
    assert_eq!(guest.uniform(Pfn::new(700)), Some(POISON));
    guest.check_whole();
}

#[test]
fn a_guest_is_scattered_over_the_machine() {
    for seed in 1..20 {
        let guest = GuestBuilder::new(600).seed(seed).build();
        for pfn in (0..599).map(Pfn::new) {
            let mfn = guest.mfn(pfn).unwrap();
            assert_ne!(mfn.number(), pfn.number());
            assert_ne!(guest.mfn(pfn.add(1)), Some(mfn.add(1)), "seed {seed}, {pfn}");
        }
        guest.check_whole();
    }
}
