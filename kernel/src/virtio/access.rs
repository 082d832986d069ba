//! Configuration space, as `virtio-drivers` accesses it.

use pci_types::{ConfigRegionAccess, PciAddress};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use crate::pci::ConfigSpace;

/// Configuration space, accessed by the kernel.
pub struct ConfigAccess<'p>(pub &'p ConfigSpace);

/// Returns the address of a function in the type of `virtio-drivers`.
pub fn function(address: PciAddress) -> DeviceFunction {
    let (bus, device, function) = (address.bus(), address.device(), address.function());
    DeviceFunction { bus, device, function }
}

fn address(function: DeviceFunction) -> PciAddress {
    PciAddress::new(0, function.bus, function.device, function.function)
}

impl ConfigurationAccess for ConfigAccess<'_> {
    fn read_word(&self, function: DeviceFunction, register_offset: u8) -> u32 {
        // SAFETY: reads of the header or of a virtio capability have no side effect.
        unsafe { self.0.read(address(function), register_offset.into()) }
    }

    fn write_word(&mut self, function: DeviceFunction, register_offset: u8, data: u32) {
        // SAFETY: the crate writes the command register and the base address registers. It writes
        // the latter to learn their sizes, and restores the old values.
        unsafe { self.0.write(address(function), register_offset.into(), data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0)
    }
}
