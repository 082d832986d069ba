//! The PCI bus, as far as a driver needs it.
//!
//! | question | place |
//! |---|---|
//! | how is configuration space read and written? | `ports` |
//! | how is a device found? | `bus` |
//! | where is its memory, and may it use the bus? | `function` |
//!
//! Only dom0 has a bus. Xen carries out a PV dom0's accesses to the ports, which trap. Those of a
//! PVH dom0 go to Xen's vPCI. The crate `pci_types` knows the fields of configuration space.

mod bus;
mod function;
mod ports;

pub use bus::find;
pub use function::{Function, MemoryBar};
pub use ports::{NoConfigSpace, Ports};
