//! The search for devices, across all bridges.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use pci_types::{DeviceId, PciAddress, PciHeader, PciPciBridgeHeader, VendorId};

use super::config::ConfigSpace;
use super::frontend::RootBus;

/// The vendor number that a read returns if the function does not exist.
const ABSENT: VendorId = 0xffff;

/// Returns the first function with a vendor and device number.
pub fn find(space: &ConfigSpace, wanted: (VendorId, DeviceId)) -> Option<PciAddress> {
    functions(space).into_iter().find(|(_, id)| *id == wanted).map(|(address, _)| address)
}

/// Returns all functions, bridges included, with their vendor and device numbers.
pub fn functions(space: &ConfigSpace) -> Vec<(PciAddress, (VendorId, DeviceId))> {
    let mut found = Vec::new();
    space.roots().into_iter().for_each(|root| add_below(space, root, &mut found));
    found
}

/// Adds the functions on a root bus and below it.
fn add_below(
    space: &ConfigSpace,
    root: RootBus,
    found: &mut Vec<(PciAddress, (VendorId, DeviceId))>,
) {
    // The list contains the root bus and every bus that a bridge leads to, each once. Therefore a
    // cycle of bridges does no harm.
    let mut buses: ArrayVec<u8, 256> = ArrayVec::new();
    buses.push(root.bus);
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        for device in 0..32 {
            for function in 0..8 {
                let address = PciAddress::new(root.segment, bus, device, function);
                let header = PciHeader::new(address);
                let id = header.id(space);
                let there = id.0 != ABSENT;
                if there {
                    found.push((address, id));
                }
                if let Some(bus) = leads_to(space, address).filter(|_| there)
                    && !buses.contains(&bus)
                {
                    // The list cannot overflow, because there are only 256 bus numbers.
                    buses.push(bus);
                }
                // Function 0 of a device tells whether there are others. Some devices with one
                // function answer to all eight numbers.
                let more = there && header.has_multiple_functions(space);
                if function == 0 && !more {
                    break;
                }
            }
        }
    }
}

/// Returns the bus that a bridge leads to, or `None` if the function is not a bridge.
fn leads_to(space: &ConfigSpace, address: PciAddress) -> Option<u8> {
    let bridge = PciPciBridgeHeader::from_header(PciHeader::new(address), space)?;
    Some(bridge.secondary_bus_number(space))
}
