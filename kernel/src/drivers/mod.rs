//! What the kernel supplies to drivers that others wrote.
//!
//! | question | place |
//! |---|---|
//! | where are its registers mapped? | `registers` |
//! | which memory do drivers get, and what is counted of it? | [`memory`] |
//!
//! The driver for virtio disks, which has a bus interface of its own, is in [`virtio`](crate::virtio).

pub mod memory;
mod registers;

pub use registers::{MappedRegisters, NotMapped};
