//! A driver that sends packets, on a model of Xen: `cargo run --example packet`.
//!
//! The kernel allocated the packet, and the driver maps it for its card. The card drives 24 address bits and the
//! packet lies above them, so it is bounced: the card reads a copy. `examples/driver.rs` is a driver on memory
//! that it allocated itself.

use std::error::Error;
use std::ptr::NonNull;

use bytemuck::{Pod, Zeroable};
use fake_xen::{FakeGuest, FakePlatform, GuestBuilder};
use xen_contig::addr::DmaAddr;
use xen_contig::dma::{Allocator, Constraints, Device, Direction, Le, Retain};
use xen_contig::field;
use xen_contig::platform::Platform;

/// A descriptor of the ring, as the card reads it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Descriptor {
    /// The address of the data.
    data: Le<u64>,
    /// The bytes of the data.
    len: Le<u32>,
    status: Le<u32>,
}

const OWNED_BY_DEVICE: u32 = 1;

/// The card and its registers. It knows the machine's memory by address alone.
struct Card {
    machine: &'static FakeGuest,
    ring: u64,
}

impl Card {
    fn write_ring(&mut self, address: u64) {
        self.ring = address;
    }

    /// Starts the card and waits until it stops. Returns the packet on the wire.
    fn start_and_wait(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        for at in (self.ring..).step_by(size_of::<Descriptor>()) {
            let mut descriptor = Descriptor::zeroed();
            self.machine.dma_read(DmaAddr::new(at), bytemuck::bytes_of_mut(&mut descriptor));
            if descriptor.status.get() != OWNED_BY_DEVICE {
                break;
            }
            let mut data = vec![0; descriptor.len.get() as usize];
            self.machine.dma_read(DmaAddr::new(descriptor.data.get()), &mut data);
            packet.append(&mut data);
        }
        packet
    }
}

/// Sends a packet of two pages that the kernel has allocated.
pub fn main() -> Result<(), Box<dyn Error>> {
    let guest = GuestBuilder::new(2048).real_memory().build();
    let kernel: &'static FakePlatform = Box::leak(Box::new(FakePlatform::new(guest)));
    let allocator = Allocator::new(kernel, Retain::default());
    let mut card = Card { machine: kernel.guest(), ring: 0 };

    let limits = Constraints::builder().mask((1 << 24) - 1).max_segments(16).build()?;
    let nic = Device::new(&allocator, "nic", &limits)?;
    let ring = nic.alloc_coherent_slice::<Descriptor>(256, "ring")?.share();
    card.write_ring(ring.dma_addr().get());

    let pages = kernel.take(2, 1).ok_or("no free frames")?;
    let first = kernel.guest().address(pages.first()).as_mut_ptr::<u8>();
    let first = NonNull::new(first).ok_or("no memory")?;
    let packet = NonNull::slice_from_raw_parts(first, 6000);
    // SAFETY: the pages belong to this function, and the model maps them.
    unsafe { first.write_bytes(0xa5, 6000) };

    // SAFETY: nothing else accesses the packet until the mapping is dropped, and the device has stopped then.
    let mapping = unsafe { nic.map(packet, Direction::ToDevice)? };
    for (segment, descriptor) in mapping.segments().zip(ring.cells()) {
        field!(descriptor, Descriptor, data).store(Le::new(segment.dma.get()));
        field!(descriptor, Descriptor, len).store(Le::new(segment.len as u32));
        field!(descriptor, Descriptor, status).store(Le::new(OWNED_BY_DEVICE));
    }
    let sent = card.start_and_wait();
    println!("sent {} bytes, {} of them bounced", sent.len(), mapping.bounced_bytes());
    drop(mapping);

    assert_eq!(sent, [0xa5; 6000]);
    kernel.give(pages);
    Ok(())
}
