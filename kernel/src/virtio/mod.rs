//! A virtio block device on the PCI bus, for the driver of the crate `virtio-drivers`.
//!
//! The library's adapter supplies the driver's memory. The driver comes from a third party.
//! Therefore it demonstrates that the adapter serves a driver that does not know this project.
//!
//! | question | place |
//! |---|---|
//! | how is the device found? | `device` |
//! | how does the crate read configuration space? | `access` |
//! | where are the registers mapped, which memory does the driver get? | [`drivers`](crate::drivers) |
//! | what does the transport add to the one of the crate? | `transport` |

mod access;
mod device;
mod transport;

pub use device::VirtioDevice;
pub use transport::BusTransport;
