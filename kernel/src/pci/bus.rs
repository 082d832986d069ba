//! The search for a device, across all bridges.

use arrayvec::ArrayVec;
use pci_types::{DeviceId, PciAddress, PciHeader, PciPciBridgeHeader, VendorId};

use super::config::ConfigSpace;

/// The vendor number that a read returns if the function does not exist.
const ABSENT: VendorId = 0xffff;

/// Returns the first function with a vendor and device number.
pub fn find(space: &ConfigSpace, wanted: (VendorId, DeviceId)) -> Option<PciAddress> {
    // The list contains bus 0 and every bus that a bridge leads to, each once. Therefore a cycle of
    // bridges does no harm.
    let mut buses: ArrayVec<u8, 256> = ArrayVec::new();
    buses.push(0);
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        for device in 0..32 {
            for function in 0..8 {
                let address = PciAddress::new(0, bus, device, function);
                let id = PciHeader::new(address).id(space);
                if id == wanted {
                    return Some(address);
                }
                let there = id.0 != ABSENT;
                if let Some(bus) = leads_to(space, address).filter(|_| there)
                    && !buses.contains(&bus)
                {
                    // The list cannot overflow, because there are only 256 bus numbers.
                    buses.push(bus);
                }
                // Function 0 of a device tells whether there are others. Some devices with one
                // function answer to all eight numbers.
                let more = there && PciHeader::new(address).has_multiple_functions(space);
                if function == 0 && !more {
                    break;
                }
            }
        }
    }
    None
}

/// Returns the bus that a bridge leads to, or `None` if the function is not a bridge.
fn leads_to(space: &ConfigSpace, address: PciAddress) -> Option<u8> {
    let bridge = PciPciBridgeHeader::from_header(PciHeader::new(address), space)?;
    Some(bridge.secondary_bus_number(space))
}
