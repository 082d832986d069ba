//! Machine-contiguous DMA memory for Xen guest kernels.
//!
//! A Xen guest does not own the machine's memory map: guest frames that are neighbours may lie
//! anywhere in the machine. A device that does DMA sees the machine. This crate takes ordinary
//! frames of the guest, makes sure that nothing maps them any more, and has Xen swap the machine
//! memory beneath them for a contiguous extent that the device can reach.
//!
//! * [`addr`]: the words for frames and addresses;
//! * [`p2m`]: from guest frames to machine frames and back;
//! * [`paging`]: page-table edits through Xen, and what the embedding kernel tells about its
//!   linear mapping;
//! * [`frames`]: a frame allocator that hands out contiguous runs;
//! * [`vmap`]: virtual areas over scattered frames, and a purge of exactly the aliases that are in
//!   the way;
//! * [`dma`]: coherent buffers for drivers, under every constraint that a device has;
//! * `adapters`: the same for driver crates with interfaces of their own, each behind a feature;
//! * [`platform`]: what the embedding kernel supplies;
//! * [`sync`]: the atomics and locks of all that;
//! * [`exchange`]: the transaction, for PV by `XENMEM_exchange`, for translated guests by a refill;
//! * [`rules`]: the rules that the code keeps and cites;
//! * [`conformance`]: what Xen answers, row by row, and how this crate takes it.
#![no_std]

#[cfg(any(feature = "virtio-drivers", feature = "dma-api"))]
pub mod adapters;
pub mod addr;
mod bitmap;
pub mod conformance;
pub mod dma;
pub mod exchange;
pub mod frames;
pub mod p2m;
pub mod paging;
pub mod platform;
pub mod rules;
pub mod sync;
pub mod vmap;

/// Everything that crosses into Xen, as a crate of its own.
pub use hypercall;
