//! Machine-contiguous DMA memory for Xen guest kernels.
//!
//! A Xen guest does not own the machine's memory map. Guest frames that are neighbours may lie
//! anywhere in the machine, but a device that does DMA sees the machine. This crate takes ordinary
//! frames of the guest, makes sure that nothing maps them any more, and lets Xen exchange the machine
//! frames that back them for a contiguous extent that the device can reach.
//!
//! It is for authors of kernels, unikernels and driver domains. In a PV guest it exchanges memory as
//! above. In a PVH guest devices see the guest's own frame numbers, so contiguous frames of the guest
//! serve as they are.
//!
//! # Where to start
//!
//! | to | read |
//! |---|---|
//! | allocate memory for a driver | [`dma`]: device limits, coherent buffers, pools |
//! | embed the crate in a kernel | [`platform`]: the traits that a kernel implements, step by step |
//! | serve a driver crate with an interface of its own | `adapters`, each with a feature |
//! | follow one request | [`dma::Allocator::alloc_coherent`], then [`exchange`] |
//! | map scattered frames into a virtual area | [`vmap`] |
//! | look up a rule or an answer of Xen | [`rules`], [`conformance`] |
//! | read a whole driver, or a kernel in one file | `examples/driver.rs`, `examples/packet.rs`, `examples/embed.rs` |
//!
//! [`addr`] has the types for frames and addresses, and [`p2m`] the table from guest frames to machine
//! frames. [`paging`] has the traits for the guest's memory, and writes page-table entries through
//! Xen. [`frames`] is a frame allocator for kernels that have none. [`reservation`] reads how many frames
//! the domain may have. [`sync`] has the atomics and locks of all these modules. [`hypercall`] is a crate
//! of its own: everything that enters Xen.
//!
//! # Features
//!
//! | feature | effect |
//! |---|---|
//! | `real` | [`hypercall`] contains `RealXen`; the kernel defines the symbol `HYPERCALL_PAGE` |
//! | `vmap-sync` | virtual areas lose their page-table entries when they are unmapped, unless the kernel chooses lazy unmapping |
//! | `virtio-drivers` | `adapters::virtio_drivers` for drivers of that crate |
//! | `dma-api` | `adapters::dma_api` for drivers of that crate; the final program needs a global allocator |
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
pub mod reservation;
pub mod rules;
pub mod sync;
pub mod vmap;
mod word;

pub use hypercall;
