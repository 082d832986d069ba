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
//! * [`exchange`]: the transaction, for PV by `XENMEM_exchange`, for translated guests by a refill.
//!
//! # Memory rules
//! Cited by number in every SAFETY comment.
//!
//! * **M1** A frame is at any time in exactly one place: free list, mapped user, transaction,
//!   buffer, quarantine, or Xen's.
//! * **M2** While a transaction holds a run, no PTE of this domain maps it.
//! * **M3** The extent lists and the exchange struct lie outside the run, are mapped writable, and
//!   stay untouched by the guest for the whole hypercall: Xen may preempt it and come back.
//! * **M4** Outside a transaction, P2M, page tables and Xen's M2P agree.
//! * **M5** DMA memory is never a Rust reference. Raw pointers and volatile access only.
//! * **M6** After a refusal the failing chunk is untouched, and the old frames are mapped back.
//!   After the commit point frames may be gone: [`Torn`] is reported, the old frames of that chunk are
//!   never mapped again, and whatever can't be found beyond doubt is quarantined.
//!
//! [`Torn`]: exchange::ExchangeError::Torn
#![no_std]

#[cfg(any(feature = "virtio-drivers", feature = "dma-api"))]
pub mod adapters;
pub mod addr;
mod bitmap;
pub mod dma;
pub mod exchange;
pub mod frames;
pub mod p2m;
pub mod paging;
pub mod platform;
pub mod sync;
pub mod vmap;
