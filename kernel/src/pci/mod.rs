//! The PCI bus, to the extent that a driver needs it.
//!
//! | question | place |
//! |---|---|
//! | how is configuration space read and written? | `config`, by `ports` |
//! | how is a device found? | `bus` |
//! | where is its memory, and may it do DMA? | `function` |
//!
//! Only dom0 has a bus. Accesses of a PV dom0 to the ports trap, and Xen carries them out. Those of
//! a PVH dom0 go to Xen's vPCI. The crate `pci_types` decodes the fields of configuration space.

mod bus;
mod config;
mod function;
mod ports;

pub use bus::find;
pub use config::{ConfigSpace, ConfigSpaceError};
pub use function::{Function, MemoryBar};
