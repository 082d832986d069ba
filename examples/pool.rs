//! A pool of DMA objects, on a model of Xen: `cargo run --example pool`.
//!
//! A network driver has a descriptor of 16 bytes for each packet. A thread sets the pool up, the
//! interrupt handler allocates without sleeping, and the thread refills. `examples/embed.rs` shows
//! the kernel around it; here the model brings one.

use std::error::Error;

use fake_xen::{FakePlatform, GuestBuilder};
use xen_contig::dma::{
    Allocator, Constraints, Device, Pool, PoolConfig, PoolErrorKind, PoolObject, Retain,
};

type Kernel<'k> = &'k FakePlatform;

/// Allocates a descriptor for a packet. Does not sleep and makes no hypercall.
fn interrupt_handler<'p, 'k>(
    descriptors: &'p Pool<'_, Kernel<'k>>,
    packet: u64,
) -> Option<PoolObject<'p, Kernel<'k>>> {
    let mut descriptor = descriptors.alloc_atomic().ok()?;
    descriptor.store(0, packet).expect("a descriptor has 16 bytes");
    Some(descriptor)
}

/// Runs the driver of a device with 24 address bits that takes no descriptor across a page.
pub fn main() -> Result<(), Box<dyn Error>> {
    let kernel: Kernel<'_> = &FakePlatform::new(GuestBuilder::new(1024).real_memory().build());
    let machine = kernel.guest();
    let allocator = Allocator::new(kernel, Retain::default());

    let limits = Constraints::builder().mask((1 << 24) - 1).boundary(4096).build()?;
    let nic = Device::new(&allocator, "nic", &limits)?;
    let config = PoolConfig::builder("tx descriptors", 16).reserve(200).limit(512).build()?;
    let mut descriptors = Pool::new(&nic, config)?;
    println!("{descriptors}");
    println!("{}", nic.report());

    // Packets arrive faster than the device sends them.
    let mut in_flight: Vec<_> =
        (0..).map_while(|packet| interrupt_handler(&descriptors, packet)).collect();
    println!("the handler allocated {} descriptors", in_flight.len());
    let error = descriptors.alloc_atomic().expect_err("every descriptor is in use");
    println!("then: {error}");
    assert!(matches!(error.kind(), PoolErrorKind::Exhausted { in_use: 256, .. }));

    // The thread adds memory, and the handler continues.
    println!("the thread added {} descriptors", descriptors.refill()?);
    in_flight.extend(interrupt_handler(&descriptors, 256));

    // The device reads the last descriptor at its own address.
    let last = in_flight.last().expect("257 descriptors");
    let mut seen = [0; 8];
    machine.dma_read(last.dma_addr(), &mut seen);
    println!("the device reads packet {} at {}", u64::from_le_bytes(seen), last.dma_addr());
    assert_eq!(u64::from_le_bytes(seen), 256);

    // The device is done: the drop of a descriptor makes it available, and `trim` releases memory.
    drop(in_flight);
    println!("{descriptors}");
    println!("trimmed {} descriptors", descriptors.trim());
    Ok(())
}
