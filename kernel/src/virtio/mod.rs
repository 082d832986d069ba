//! A virtio block device on the PCI bus, for the driver of the crate `virtio-drivers`, whose memory
//! the library's adapter supplies.
//!
//! The driver is not ours: it shows that the adapter serves a driver that others wrote.

mod access;
mod device;
mod memory;
mod registers;
mod transport;

pub use device::Device;
pub use memory::{Kernel, Narrow, Wide, allocator, set_up};
pub use transport::BusTransport;
