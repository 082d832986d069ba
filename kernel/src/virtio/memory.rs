//! The memory of virtio devices: two of them, of different reach.

use core::ptr::{self, NonNull};

use spin::Once;
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::adapters::{DeviceMemory, LiveSlot};
use xen_contig::dma::{Allocator, Constraints, GiveBack};

use super::registers;
use crate::machine::Machine;

/// The embedding kernel, in the words of the library.
pub type Kernel = &'static Machine;

/// What the devices can drive: 28 bits, as if it were `edu`, so that a guest's memory is seldom
/// within reach as it is; and everything, as it is in truth.
const MASKS: [u64; 2] = [(1 << 28) - 1, u64::MAX];

/// Buffers that a driver may have at a time.
const SLOTS: usize = 32;

static LIVE: [[LiveSlot<Kernel>; SLOTS]; MASKS.len()] =
    [const { [const { LiveSlot::new() }; SLOTS] }; MASKS.len()];
static ALLOCATOR: Once<Allocator<Kernel>> = Once::new();
static MEMORIES: [Once<DeviceMemory<Kernel>>; MASKS.len()] = [const { Once::new() }; MASKS.len()];

/// Devices with the mask of that number.
pub enum Masked<const WHICH: usize> {}

/// Devices that drive 28 address bits.
pub type Narrow = Masked<0>;

/// Devices that drive all address bits.
pub type Wide = Masked<1>;

/// Where all the memory comes from. What drivers give back goes back to Xen at once.
///
/// # Panics
/// Before [`set_up`].
pub fn allocator() -> &'static Allocator<Kernel> {
    ALLOCATOR.get().expect("set up before any driver")
}

/// Sets the memory up, once. To be called before any driver is made.
pub fn set_up(machine: &Machine) {
    // SAFETY: `main` has the one machine there is, never returns and never moves it.
    let machine: Kernel = unsafe { &*ptr::from_ref(machine) };
    let allocator = ALLOCATOR.call_once(|| Allocator::new(machine, GiveBack::AtOnce));
    for ((memory, mask), live) in MEMORIES.iter().zip(MASKS).zip(&LIVE) {
        memory.call_once(|| {
            let constraints = Constraints::builder().mask(mask).build();
            let memory = constraints.and_then(|it| DeviceMemory::new(allocator, &it, live));
            memory.expect("a mask alone is no contradiction")
        });
    }
}

// SAFETY: for each number there is one memory; registers are mapped where `registers` says.
unsafe impl<const WHICH: usize> StaticDevice for Masked<WHICH> {
    type Platform = Kernel;

    fn memory() -> &'static DeviceMemory<Kernel> {
        MEMORIES[WHICH].get().expect("set up before any driver")
    }

    unsafe fn mmio_phys_to_virt(address: u64, size: usize) -> NonNull<u8> {
        registers::at(address, size)
    }
}
