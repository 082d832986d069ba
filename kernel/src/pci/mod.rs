//! The PCI bus, as far as a driver needs it: configuration space, the search for a device, and its
//! memory. What the fields of configuration space mean is `pci_types`' business.
//!
//! Only dom0 has a bus to look at. Xen lets it: a PV dom0's accesses to the ports trap and Xen
//! carries them out, a PVH dom0's go to Xen's vPCI.

mod bus;
mod function;
mod ports;

pub use bus::find;
pub use function::{Function, MemoryBar};
pub use ports::{NoConfigSpace, Ports};
