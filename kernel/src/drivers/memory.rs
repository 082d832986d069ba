//! The memory of drivers, with two different masks.

use core::ptr::NonNull;

use spin::Once;
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::dma::{AllocError, Allocator, Constraints, Device, Retain};

use super::{messages, registers};
use crate::console::say;
use crate::machine::Machine;

/// The embedding kernel, as the library uses it.
pub type Kernel = &'static Machine;

/// The masks of the two kinds of devices.
///
/// The first is the mask of `edu`. It makes the adapter exchange memory, because little memory lies
/// within 28 bits. The second is the mask of a device that drives all address bits.
const MASKS: [u64; 2] = [(1 << 28) - 1, u64::MAX];

/// The names of the devices in reports.
const NAMES: [&str; MASKS.len()] = ["narrow", "wide"];

static ALLOCATOR: Once<Allocator<Kernel>> = Once::new();
static DEVICES: [Once<Device<'static, Kernel>>; MASKS.len()] = [const { Once::new() }; MASKS.len()];

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
    for ((device, mask), name) in DEVICES.iter().zip(MASKS).zip(NAMES) {
        device.call_once(|| {
            let limits = Constraints::builder().mask(mask).build();
            let device = limits.map_err(AllocError::from);
            let device = device.and_then(|limits| Device::new(allocator, name, &limits));
            device.expect("a mask alone is no contradiction, and a frame is free at boot")
        });
    }
}

/// Returns the number of frames that hold the records of the devices.
pub fn record_frames() -> u64 {
    DEVICES.iter().filter_map(Once::get).map(Device::record_frames).sum()
}

/// Prints the report of each device: its memory, and why requests failed. Prints nothing before [`set_up`].
pub fn print_reports() {
    for device in DEVICES.iter().filter_map(Once::get) {
        for line in alloc::format!("{}", device.report()).lines() {
            say!("# {line}");
        }
    }
}

// SAFETY: each index has one device, always the same. `registers::at` returns the address at which
// the registers are mapped.
unsafe impl<const WHICH: usize> StaticDevice for Masked<WHICH> {
    type Platform = Kernel;

    fn device() -> &'static Device<'static, Kernel> {
        DEVICES[WHICH].get().expect("set up before any driver")
    }

    unsafe fn mmio_phys_to_virt(address: u64, size: usize) -> NonNull<u8> {
        let Some(pointer) = registers::at(address, size) else {
            // The driver's crate has no error for that.
            panic!("{size} bytes at {address:#x} are not within the registers of a device in use")
        };
        pointer
    }
}

/// The memory that drivers got since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// The buffers that an exchange served.
    pub exchanged: u64,
    /// The number of mappings of the driver's own memory that the device accesses in place.
    pub direct: u64,
    /// The number of mappings of the driver's own memory that are bounced.
    pub bounced: u64,
}

/// Returns the counts of all devices.
pub fn counts() -> MemoryCounts {
    let of = |device: &Device<'static, Kernel>| *device.report().counts();
    let devices = DEVICES.iter().filter_map(Once::get).map(of);
    let start =
        MemoryCounts { exchanged: allocator().stats().exchanged, ..MemoryCounts::default() };
    devices.fold(start, |sum, counts| MemoryCounts {
        direct: sum.direct + counts.direct_mappings,
        bounced: sum.bounced + counts.bounced_mappings,
        ..sum
    })
}
