//! The PCI bus, to the extent that a driver needs it.
//!
//! | question | place |
//! |---|---|
//! | how is configuration space read and written? | `config`, by `ports` in dom0 and by `frontend` in a PV domU |
//! | how is a device found? | `bus` |
//! | may a driver use it, and may it do DMA? | `function` |
//! | where is its memory? | `bar` |
//! | which capabilities does it have? | `capability` |
//! | how does its interrupt arrive? | `interrupt` |
//! | how is its memory mapped? | `memory_bar` |
//!
//! Accesses of a PV dom0 to the ports trap, and Xen carries them out. Those of a PVH dom0 go to
//! Xen's vPCI. A PV domU asks a backend in dom0, which shows it the devices of `pci=[…]`. The crate
//! `pci_types` decodes the other fields of configuration space.

mod bar;
mod bus;
pub mod capability;
mod config;
mod frontend;
mod function;
mod interrupt;
mod memory_bar;
mod ports;

pub use bar::MemoryBar;
pub use bus::{find, functions};
pub use config::{ConfigSpace, ConfigSpaceError};
pub use frontend::close;
pub use function::{Function, FunctionError};
pub use interrupt::{Interrupt, InterruptCounts, InterruptError};
pub use memory_bar::BarNotPermitted;
