//! The memory of virtio devices with two different masks.

use core::ptr::NonNull;

use spin::Once;
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::adapters::{DeviceMemory, LiveSlot};
use xen_contig::dma::{Allocator, Constraints, Retain};

use super::registers;
use crate::machine::Machine;

/// The embedding kernel, as the library uses it.
pub type Kernel = &'static Machine;

/// The masks of the two kinds of devices.
///
/// The first is the mask of `edu`. It makes the adapter exchange memory, because little memory lies
/// within 28 bits. The second is the mask of the real device.
const MASKS: [u64; 2] = [(1 << 28) - 1, u64::MAX];

/// The maximum number of buffers that a driver may have at a time.
const SLOTS: usize = 32;

static LIVE: [[LiveSlot<Kernel>; SLOTS]; MASKS.len()] =
    [const { [const { LiveSlot::new() }; SLOTS] }; MASKS.len()];
static ALLOCATOR: Once<Allocator<Kernel>> = Once::new();
static MEMORIES: [Once<DeviceMemory<Kernel>>; MASKS.len()] = [const { Once::new() }; MASKS.len()];

/// Devices with the mask at an index of the table.
pub enum Masked<const WHICH: usize> {}

/// Devices that drive 28 address bits.
pub type Narrow = Masked<0>;

/// Devices that drive all address bits.
pub type Wide = Masked<1>;

/// Returns the allocator of all this memory. It returns freed memory to Xen at once.
///
/// # Panics
/// If [`set_up`] was not called before.
pub fn allocator() -> &'static Allocator<Kernel> {
    ALLOCATOR.get().expect("set up before any driver")
}

/// Sets up the memory. Callers call it before they create a driver; later calls have no effect.
pub fn set_up(machine: &Machine) {
    let kernel = *machine.dma().platform();
    let allocator = ALLOCATOR.call_once(|| Allocator::new(kernel, Retain::NOTHING));
    for ((memory, mask), live) in MEMORIES.iter().zip(MASKS).zip(&LIVE) {
        memory.call_once(|| {
            let constraints = Constraints::builder().mask(mask).build();
            let memory = constraints.and_then(|it| DeviceMemory::new(allocator, &it, live));
            memory.expect("a mask alone is no contradiction")
        });
    }
}

// SAFETY: each index has one memory, always the same. `registers::at` returns the address at which
// the registers are mapped.
unsafe impl<const WHICH: usize> StaticDevice for Masked<WHICH> {
    type Platform = Kernel;

    fn memory() -> &'static DeviceMemory<Kernel> {
        MEMORIES[WHICH].get().expect("set up before any driver")
    }

    unsafe fn mmio_phys_to_virt(address: u64, size: usize) -> NonNull<u8> {
        registers::at(address, size)
    }
}
