//! Real memory: pointers of the guest that the host can follow.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use fake_xen::{AreaConfig, FakeGuest, FakePlatform, GuestBuilder, POISON};
use hypercall::Xen;
use hypercall::ops::{MemoryOp, Pte};
use xen_contig::addr::{DmaAddr, PAGE_SIZE, Pfn};
use xen_contig::dma::{Allocator, Constraints, Retain};
use xen_contig::paging::{GuestMemory, LinearMapping};
use xen_contig::vmap::Protection;

use super::{WRITABLE, reservation, update};

/// Linux's number of the signal for an access to memory that is not mapped.
const SIGSEGV: i32 = 11;

fn guest() -> FakeGuest {
    GuestBuilder::new(1024).real_memory().build()
}

/// Reads a word of a frame through its linear pointer.
fn load(guest: &FakeGuest, pfn: Pfn, word: usize) -> u64 {
    // SAFETY: the tests read frames of a guest with real memory, at a word below 512.
    unsafe { guest.pointer(pfn).cast::<u64>().wrapping_add(word).read_volatile() }
}

/// Writes a word of a frame through its linear pointer.
fn store(guest: &FakeGuest, pfn: Pfn, word: usize, value: u64) {
    // SAFETY: the tests write frames of a guest with real memory, at a word below 512. Nothing else
    // uses them.
    unsafe { guest.pointer(pfn).cast::<u64>().wrapping_add(word).write_volatile(value) }
}

/// The device's address of a guest frame.
fn dma(guest: &FakeGuest, pfn: Pfn) -> DmaAddr {
    DmaAddr::of(guest.p2m().gfn(pfn).unwrap())
}

/// Runs a test of this file again in a process of its own, and returns the signal that ended it.
fn signal_of(test: &str, act: impl FnOnce()) -> Option<i32> {
    const CHILD: &str = "FAKE_XEN_CHILD";
    if env::var_os(CHILD).is_some() {
        act();
        std::process::exit(0);
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", &format!("real_memory::{test}")]).env(CHILD, "1");
    child.output().unwrap().status.signal()
}

#[test]
fn a_pointer_and_the_model_reach_the_same_bytes() {
    for builder in [GuestBuilder::new(1024), GuestBuilder::new(1024).translated()] {
        let guest = builder.real_memory().build();
        let frames = [600, 1023].map(Pfn::new);
        for (value, pfn) in (1..).zip(frames) {
            store(&guest, pfn, 511, value);
            assert_eq!(guest.read(1, pfn, 511), value);
            guest.write(0, pfn, 0, value << 32);
            assert_eq!(load(&guest, pfn, 0), value << 32);
        }
        guest.paint();
        assert!(frames.iter().all(|pfn| load(&guest, *pfn, 77) == FakeGuest::colour(*pfn)));
        guest.check_whole();
    }
}

/// A driver and a device that share a ring of 64 descriptors: address and length of a message.
/// The driver knows the ring by its pointer. The device knows it by the address in its register.
#[test]
fn a_device_follows_the_ring_that_a_driver_wrote() {
    const ENTRIES: usize = 64;
    for builder in [GuestBuilder::new(1024), GuestBuilder::new(1024).translated()] {
        let platform = &FakePlatform::new(builder.real_memory().build());
        let guest = platform.guest();
        let allocator = Allocator::new(platform, Retain::NOTHING);
        let any = Constraints::default();
        let ring = allocator.alloc_coherent(16 * ENTRIES as u64, &any).unwrap();
        let text = allocator.alloc_coherent(3 * PAGE_SIZE as u64, &any).unwrap();
        let (ring_at, text_at) = (ring.as_ptr().cast::<u64>(), text.as_ptr());

        for entry in 0..ENTRIES {
            let (offset, len) = (entry * 100, entry as u64 + 1);
            let address = text.dma_addr_at(offset as u64).unwrap().get();
            // SAFETY: an entry is two words of the ring; its message lies in the text. Both buffers
            // live, and the accesses are volatile.
            unsafe {
                (0..len as usize)
                    .for_each(|byte| text_at.add(offset + byte).write_volatile(entry as u8));
                ring_at.add(2 * entry).write_volatile(address);
                ring_at.add(2 * entry + 1).write_volatile(len);
            }
        }

        // The device reverses the order of the entries: it fills each with its distance from the end.
        let register = ring.dma_addr();
        for entry in 0..ENTRIES {
            let mut words = [[0; 8]; 2];
            for (index, word) in words.iter_mut().enumerate() {
                let at = register.checked_add(16 * entry as u64 + 8 * index as u64).unwrap();
                guest.dma_read(at, word);
            }
            let [address, len] = words.map(u64::from_le_bytes);
            let mut message = vec![0xff; len as usize];
            guest.dma_read(DmaAddr::new(address), &mut message);
            assert!(message.iter().all(|byte| *byte == entry as u8), "{entry}: {message:?}");
            message.fill((ENTRIES - entry) as u8);
            guest.dma_write(DmaAddr::new(address), &message);
        }

        for entry in 0..ENTRIES {
            // SAFETY: the bytes lie in the text, which lives, and the access is volatile.
            let byte = |offset: usize| unsafe { text_at.add(100 * entry + offset).read_volatile() };
            assert_eq!([byte(0), byte(entry)], [(ENTRIES - entry) as u8; 2]);
            assert_eq!(byte(entry + 1), 0, "the byte after the message");
        }
        drop((ring, text));
        guest.check_whole();
    }
}

#[test]
fn after_an_exchange_a_pointer_shows_the_new_frame() {
    let platform = &FakePlatform::new(guest());
    let guest = platform.guest();
    guest.paint();
    let old: Vec<_> = guest.usable().map(|pfn| (pfn, guest.mfn(pfn))).collect();

    let allocator = Allocator::new(platform, Retain::NOTHING);
    let limits = Constraints::builder().mask((1 << 23) - 1).build().unwrap();
    let buffer = allocator.alloc_coherent(2 << 20, &limits).unwrap();
    for (pfn, mfn) in
        old.into_iter().filter(|(pfn, _)| buffer.frames().iter().any(|own| own == *pfn))
    {
        assert_ne!(guest.mfn(pfn), mfn, "{pfn}");
        // The model poisons new frames, and a buffer is zeroed.
        assert_eq!([0, 511].map(|word| load(guest, pfn, word)), [0; 2], "{pfn}");
    }
    store(guest, buffer.frames().first(), 3, 9);
    let mut seen = [0; 8];
    guest.dma_read(buffer.dma_addr_at(24).unwrap(), &mut seen);
    assert_eq!(u64::from_le_bytes(seen), 9);
}

#[test]
fn after_a_refill_a_pointer_shows_the_new_frame() {
    let guest = GuestBuilder::new(1024).translated().real_memory().build();
    let pfn = Pfn::new(700);
    store(&guest, pfn, 1, 5);
    let mut list = [pfn.number()];
    let mut arg = reservation(&mut list);
    // SAFETY: the list has one entry and nothing else uses it; no Rust object lies in the frame.
    unsafe {
        guest.xen().memory_op(MemoryOp::DecreaseReservation(&mut arg)).unwrap();
        guest.xen().memory_op(MemoryOp::PopulatePhysmap(&mut arg)).unwrap();
    }
    assert_eq!(load(&guest, pfn, 1), POISON);
}

#[test]
fn an_access_to_an_unmapped_frame_faults() {
    let signal = signal_of("an_access_to_an_unmapped_frame_faults", || {
        let guest = guest();
        let pfn = Pfn::new(600);
        assert_eq!(load(&guest, pfn, 0), 0);
        update(&guest, guest.entry(pfn).get(), Pte::NOT_PRESENT).unwrap();
        load(&guest, pfn, 0);
    });
    assert_eq!(signal, Some(SIGSEGV));
}

#[test]
fn a_write_through_a_read_only_entry_faults() {
    let signal = signal_of("a_write_through_a_read_only_entry_faults", || {
        let guest = guest();
        let table = Pfn::new(0);
        assert_ne!(load(&guest, table, 0), 0, "the first entry of the linear mapping");
        store(&guest, table, 0, 0);
    });
    assert_eq!(signal, Some(SIGSEGV));
}

#[test]
fn an_access_to_a_hole_of_a_translated_guest_faults() {
    let signal = signal_of("an_access_to_a_hole_of_a_translated_guest_faults", || {
        let guest = GuestBuilder::new(1024).translated().real_memory().build();
        let mut list = [700];
        assert_eq!(load(&guest, Pfn::new(700), 0), 0);
        let mut arg = reservation(&mut list);
        // SAFETY: the list has one entry and nothing else uses it; no Rust object lies in the frame.
        unsafe { guest.xen().memory_op(MemoryOp::DecreaseReservation(&mut arg)) }.unwrap();
        load(&guest, Pfn::new(700), 0);
    });
    assert_eq!(signal, Some(SIGSEGV));
}

#[test]
fn an_area_shows_its_frames() {
    let guest = GuestBuilder::new(1024).areas(AreaConfig::lazy(512)).real_memory().build();
    let frames = [700, 300].map(Pfn::new);
    let area = guest.vmap(frames, Protection::ReadWrite, "an area").unwrap();
    for (page, pfn) in frames.into_iter().enumerate() {
        let pointer = area.pointer().wrapping_add(page * PAGE_SIZE).cast::<u64>();
        // SAFETY: the area maps the page, and the access is volatile.
        unsafe { pointer.write_volatile(pfn.number()) };
        assert_eq!(load(&guest, pfn, 0), pfn.number());
    }
    let alias = guest.alias(3, frames[1]).as_ptr::<u64>();
    // SAFETY: the alias maps the frame, and the access is volatile.
    assert_eq!(unsafe { alias.read_volatile() }, 300);
    guest.areas().vunmap(area).unwrap();
}

#[test]
fn m3_xen_does_not_reach_a_list_in_a_frame_that_is_not_mapped() {
    let guest = GuestBuilder::new(1024).max_pages(1025).real_memory().build();
    let pfn = Pfn::new(600);
    let list = guest.pointer(pfn).cast::<u64>();
    let populate = || {
        let mut arg = reservation(&mut [700]);
        arg.extent_start = list;
        // SAFETY: the list lies in a frame of the guest, whose memory is real, and nothing else
        // uses it.
        unsafe { guest.xen().memory_op(MemoryOp::IncreaseReservation(&mut arg)) }
    };
    update(&guest, guest.entry(pfn).get(), Pte::NOT_PRESENT).unwrap();
    assert_eq!(populate(), Ok(0), "no extent is done: the list could not be written");
    let mapped = Pte::new(guest.mfn(pfn).unwrap(), WRITABLE);
    update(&guest, guest.entry(pfn).get(), mapped).unwrap();
    guest.set_max_pages(1026);
    assert_eq!(populate(), Ok(1));
    assert_ne!(load(&guest, pfn, 0), 0, "the machine frame that Xen reports");
}

#[test]
fn a_device_reads_and_writes_any_piece_of_memory() {
    for builder in [GuestBuilder::new(1024), GuestBuilder::new(1024).real_memory()] {
        let guest = builder.build();
        let pfn = Pfn::new(600);
        guest.fill(pfn, u64::from_le_bytes(*b"12345678"));
        let at = |offset| dma(&guest, pfn).checked_add(offset).unwrap();
        for (offset, len) in [(0, 8), (1, 7), (3, 1), (5, 30), (4090, 6), (2, 4094)] {
            let mut bytes = vec![0; len];
            guest.dma_read(at(offset), &mut bytes);
            let expected = b"12345678".iter().cycle().skip(offset as usize % 8).take(len);
            assert!(bytes.iter().eq(expected), "{len} bytes at {offset}");
        }
        guest.dma_write(at(13), b"abcdefghijklmnopqrst");
        let words = [1, 2, 3, 4].map(|word| guest.read(0, pfn, word).to_le_bytes());
        assert_eq!(words.as_flattened(), b"12345abcdefghijklmnopqrst2345678".get(..).unwrap());
    }
}

#[test]
#[should_panic(expected = "which belongs to Domain")]
fn a_device_cannot_reach_another_domain() {
    let guest = guest();
    let foreign = guest.foreign_frame().number() << 12;
    guest.dma_read(DmaAddr::new(foreign), &mut [0; 4]);
}

#[test]
#[should_panic(expected = "which is not memory")]
fn a_device_cannot_reach_beyond_the_machine() {
    guest().dma_write(DmaAddr::new(1 << 40), &[0; 4]);
}

#[test]
#[should_panic(expected = "which is a page table")]
fn a_device_cannot_write_a_page_table() {
    let guest = guest();
    guest.dma_write(dma(&guest, Pfn::new(0)), &[0; 4]);
}
