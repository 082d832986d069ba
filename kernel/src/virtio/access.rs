//! Configuration space, as `virtio-drivers` accesses it. The host tests compile this file too.

use pci_types::{ConfigRegionAccess, PciAddress};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use crate::pci::ConfigSpace;

/// Configuration space of one segment, accessed by the kernel.
pub struct ConfigAccess<'p> {
    space: &'p ConfigSpace,
    /// The part of an address that the type of `virtio-drivers` lacks.
    segment: u16,
}

impl<'p> ConfigAccess<'p> {
    /// Returns the configuration space of the segment that contains `function`.
    pub fn around(space: &'p ConfigSpace, function: PciAddress) -> Self {
        Self { space, segment: function.segment() }
    }

    fn address(&self, function: DeviceFunction) -> PciAddress {
        PciAddress::new(self.segment, function.bus, function.device, function.function)
    }
}

/// Returns the address of a function in the type of `virtio-drivers`, which has no segment.
pub fn function(address: PciAddress) -> DeviceFunction {
    let (bus, device, function) = (address.bus(), address.device(), address.function());
    DeviceFunction { bus, device, function }
}

impl ConfigurationAccess for ConfigAccess<'_> {
    fn read_word(&self, function: DeviceFunction, register_offset: u8) -> u32 {
        // SAFETY: reads of the header or of a virtio capability have no side effect.
        unsafe { self.space.read(self.address(function), register_offset.into()) }
    }

    fn write_word(&mut self, function: DeviceFunction, register_offset: u8, data: u32) {
        // SAFETY: the crate writes the command register and the base address registers. It writes
        // the latter to learn their sizes, and restores the old values.
        unsafe { self.space.write(self.address(function), register_offset.into(), data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self { ..*self }
    }
}
