//! Drivers that others wrote, unmodified, and what the kernel supplies to them.
//!
//! Each driver takes a [`DeviceFunction`], and memory that [`memory`] makes by the library's adapters. Drivers
//! work alike in dom0 and in a domU, however configuration space is read.
//!
//! | question | place |
//! |---|---|
//! | how is a device found and prepared? | `function` |
//! | where are its registers mapped? | `registers` |
//! | how does a driver wait for its device? | `waiting` |
//! | which memory do drivers get, and what is counted of it? | [`memory`] |
//! | where do the crates' own messages go? | `messages` |
//! | how is the crate `nvme-driver` operated? | [`nvme`] |
//! | why does an NVMe disk not work? | `nvme_error` |
//! | how is the crate `eth-intel` operated? | [`e1000`] |
//! | which sizes of a disk's blocks are supported? | `block_size` |
//! | how many bytes of registers does an NVMe controller have? | `doorbells` |
//! | which locks does the crate `dma-api` take? | `locks` |
//!
//! The driver for virtio disks, which has a bus interface of its own, is in [`virtio`](crate::virtio).

mod block_size;
mod doorbells;
pub mod e1000;
mod function;
mod locks;
pub mod memory;
mod messages;
pub mod nvme;
mod nvme_error;
mod registers;
mod waiting;

pub use function::{DeviceFunction, DeviceKind};
pub use nvme_error::NvmeError;
pub use registers::{MappedRegisters, NotMapped};
