//! A virtio block device on the PCI bus, for the driver of the crate `virtio-drivers`, whose memory
//! the library's adapter supplies.
//!
//! Built with the feature `kernel-virtio` alone, which the shipped image is without: the driver is
//! somebody else's, and here to show that the adapter works.

mod access;
mod device;
mod memory;
mod registers;
mod transport;

pub use device::Device;
pub use memory::{Kernel, Narrow, Wide, allocator, set_up};
pub use transport::BusTransport;
