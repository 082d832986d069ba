//! An adapter for a driver crate that has an interface of its own: the trait `IxgbeHal` of the crate
//! `ixgbe-driver`, for 10 Gbit/s network cards.
//!
//! Such a trait has functions without `self`, and drivers name their memory by addresses alone. So the
//! device lies in a static, and the adapter uses its raw methods. The drivers of the crate are
//! `IxgbeDevice<NicHal, _>`.
//!
//! `cargo run --example adapter`

use std::hint::spin_loop;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use fake_xen::{FakePlatform, GuestBuilder};
use ixgbe_driver::{IxgbeDevice, IxgbeHal};
use spin::Once;
use xen_contig::addr::DmaAddr;
use xen_contig::dma::{AllocError, Allocator, Constraints, Device, Request, Retain};

/// The kernel that the library runs in: here the model.
type Kernel = &'static FakePlatform;

static NIC: Once<Device<'static, Kernel>> = Once::new();

/// Makes the device, before its driver. The card drives 64 address bits, and its rings are aligned to 128.
fn set_up(allocator: &'static Allocator<Kernel>) -> Result<(), AllocError> {
    let limits = Constraints::builder().align(128).build()?;
    let nic = Device::new(allocator, "ixgbe", &limits)?;
    NIC.call_once(|| nic);
    Ok(())
}

/// The adapter.
enum NicHal {}

// SAFETY: a raw buffer is mapped, zeroed and aligned to a page, and its record owns it until it is freed by
// both of its addresses. So nothing else accesses it.
unsafe impl IxgbeHal for NicHal {
    fn dma_alloc(size: usize) -> (usize, NonNull<u8>) {
        let request = Request::new(size as u64).tag("ixgbe");
        match NIC.get().and_then(|nic| nic.alloc_raw(request).ok()) {
            Some((dma, pointer)) => (dma.get() as usize, pointer),
            // The trait has no error. No memory is at address 0, which `alloc_raw` never returns.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: usize, vaddr: NonNull<u8>, _size: usize) -> i32 {
        let dma = DmaAddr::new(paddr as u64);
        match NIC.get().map(|nic| nic.free_raw(dma, vaddr)) {
            Some(Ok(())) => 0,
            // The driver never allocated it, or has freed it already: nothing is freed.
            _ => -22,
        }
    }

    unsafe fn mmio_phys_to_virt(paddr: usize, _size: usize) -> NonNull<u8> {
        // A kernel returns where it has mapped the card's registers.
        NonNull::new(std::ptr::with_exposed_provenance_mut(paddr)).unwrap_or(NonNull::dangling())
    }

    unsafe fn mmio_virt_to_phys(vaddr: NonNull<u8>, _size: usize) -> usize {
        vaddr.addr().get()
    }

    fn wait_until(duration: Duration) -> Result<(), &'static str> {
        let start = Instant::now();
        while start.elapsed() < duration {
            spin_loop();
        }
        Ok(())
    }
}

/// The driver's type compiles on the adapter. The model has no such card to run it.
type _Driver = IxgbeDevice<NicHal, 512>;

fn main() -> Result<(), AllocError> {
    let platform =
        Box::leak(Box::new(FakePlatform::new(GuestBuilder::new(1024).real_memory().build())));
    let allocator = Box::leak(Box::new(Allocator::new(&*platform, Retain::default())));
    println!("before the set-up: address {:#x}", NicHal::dma_alloc(8192).0);
    set_up(allocator)?;
    let (dma, pointer) = NicHal::dma_alloc(8192);
    println!("a ring of 8192 bytes at {dma:#x} for the card");
    let nic = NIC.get().expect("the device was just made");
    println!("{}", nic.report());
    // SAFETY: the adapter refuses addresses that are not those of one buffer, and a second free.
    let freed = unsafe {
        [
            NicHal::dma_dealloc(dma, NonNull::dangling(), 8192),
            NicHal::dma_dealloc(dma, pointer, 8192),
            NicHal::dma_dealloc(dma, pointer, 8192),
        ]
    };
    println!("freed by one address, by both, and again: {freed:?}");
    assert_eq!(freed, [-22, 0, -22]);
    Ok(())
}
