//! Virtual areas and an exchange of the frames that they map: `cargo run --example vmap`.
//!
//! After a lazy unmap the page-table entries remain. Xen refuses to exchange a frame
//! while an entry maps it. The library removes these entries first, without a flush of its own.

use std::error::Error;

use fake_xen::{AreaConfig, FakePlatform, GuestBuilder};
use xen_contig::addr::Pfn;
use xen_contig::dma::{Allocator, Constraints, Retain};
use xen_contig::platform::Platform;
use xen_contig::vmap::Protection;

/// Maps frames in an area, unmaps them, and allocates a buffer from them.
pub fn main() -> Result<(), Box<dyn Error>> {
    let guest = GuestBuilder::new(2048).areas(AreaConfig::lazy(512)).real_memory().build();
    let platform = &FakePlatform::new(guest);
    let (guest, areas) = (platform.guest(), platform.guest().areas());
    let allocator = Allocator::new(platform, Retain::default());
    let limits = Constraints::builder().mask((1 << 24) - 1).build()?;

    // The kernel maps two of its frames side by side, in the other order.
    let run = platform.take(16, 16).ok_or("no free frames")?;
    let (first, second) = (run.first(), run.first().add(1));
    // SAFETY: `run` owns both frames, and outlives the area.
    let area = unsafe { areas.vmap([second, first], Protection::ReadWrite, "firmware")? };
    println!("pfn {second} and pfn {first} are mapped at {:#x}", area.address());
    let (in_area, linear) = (area.pointer(), guest.address(second).as_mut_ptr::<u8>());
    // SAFETY: both addresses map the first byte of the same frame, which the kernel owns. The
    // accesses are volatile.
    let seen = unsafe {
        in_area.write_volatile(42);
        linear.read_volatile()
    };
    println!("written through the area: 42; read through the linear mapping: {seen}");
    assert_eq!(seen, 42);

    // A bug: the frames are freed while the area still maps them. The allocation sets a mapped frame
    // aside, and takes others.
    let frames: Vec<Pfn> = run.iter().collect();
    platform.give(run);
    let buffer = allocator.alloc_coherent(64 << 10, &limits)?;
    println!("allocated other frames, set aside: {}", allocator.stats().set_aside);
    assert!(!frames.contains(&buffer.frames().first()) && allocator.stats().set_aside == 1);

    // The area is unmapped lazily: its two entries stay.
    areas.vunmap(area).map_err(|error| error.to_string())?;
    println!("after vunmap, pages that are still mapped: {}", areas.stats().leftover.pages);
    assert_eq!(areas.stats().leftover.pages, 2);

    // A trim offers the frame to Xen again. The library removes its entry first.
    drop(buffer);
    let report = allocator.trim(u64::MAX);
    assert_eq!((report.error, allocator.stats().set_aside), (None, 0));

    // Now an allocation purges the other entry, flushes once, and exchanges the frames.
    guest.xen().take_log();
    let buffer = allocator.alloc_coherent(64 << 10, &limits)?;
    let calls = guest.xen().take_log();
    let flushes = calls.iter().filter(|call| call.asked.flushes()).count();
    println!("allocated {} bytes at device address {}", buffer.len(), buffer.dma_addr());
    println!("hypercalls: {}, with a flush: {flushes}", calls.len());
    println!("pages that are still mapped: {}", areas.stats().leftover.pages);
    assert!(frames.contains(&buffer.frames().first()), "the buffer has the frames of the area");
    assert_eq!((areas.stats().leftover.pages, flushes), (0, 1));
    Ok(())
}
