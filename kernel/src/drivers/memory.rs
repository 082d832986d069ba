//! The memory of drivers, with two different masks. Only this file and its users' wrappers of the
//! adapters' interfaces know the adapters.

use alloc::boxed::Box;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use spin::Once;
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::adapters::{DeviceMemory, LiveSlot};
use xen_contig::dma::{Allocator, Constraints, Retain};

use super::{messages, registers};
use crate::machine::Machine;

/// The embedding kernel, as the library uses it.
pub type Kernel = &'static Machine;

/// The masks of the two kinds of devices.
///
/// The first is the mask of `edu`. It makes the adapter exchange memory, because little memory lies
/// within 28 bits. The second is the mask of a device that drives all address bits.
const MASKS: [u64; 2] = [(1 << 28) - 1, u64::MAX];

/// The maximum number of buffers that the drivers of one mask may have at a time.
///
/// A network card has the most: a buffer for each packet in its rings.
const SLOTS: usize = 256;

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
    messages::print();
    let kernel = *machine.dma().platform();
    let allocator = ALLOCATOR.call_once(|| Allocator::new(kernel, Retain::NOTHING));
    for (memory, mask) in MEMORIES.iter().zip(MASKS) {
        memory.call_once(|| {
            // The slots are made on the heap, so that the image stays small enough for small guests.
            let live = Box::leak((0..SLOTS).map(|_| LiveSlot::new()).collect::<Box<[_]>>());
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
        let Some(pointer) = registers::at(address, size) else {
            // The driver's crate has no error for that.
            panic!("{size} bytes at {address:#x} are not within the registers of a device in use")
        };
        pointer
    }
}

/// What drivers got since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// The number of exchanges.
    pub exchanged: u64,
    /// How many times memory of the driver's own was mapped in place.
    pub direct: u64,
    /// How many times memory of the driver's own was mapped by a bounce buffer.
    pub bounced: u64,
}

static DIRECT: AtomicU64 = AtomicU64::new(0);
static BOUNCED: AtomicU64 = AtomicU64::new(0);

/// Returns what drivers got since boot. This is the only place that says where the counts come from.
pub fn counts() -> MemoryCounts {
    MemoryCounts {
        exchanged: allocator().stats().exchanged,
        direct: DIRECT.load(Relaxed),
        bounced: BOUNCED.load(Relaxed),
    }
}

/// Counts a mapping of a driver's own memory. The adapters do not count them.
pub fn count_mapping(bounced: bool) {
    if bounced { &BOUNCED } else { &DIRECT }.fetch_add(1, Relaxed);
}
