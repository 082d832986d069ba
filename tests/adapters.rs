//! The adapters for driver crates, on the model and on memory of the host.
#![cfg(all(feature = "virtio-drivers", feature = "dma-api"))]

#[path = "faults/arm.rs"]
mod arm;
#[path = "adapters/dma_api.rs"]
mod dma_api;
#[path = "adapters/fault_sweep.rs"]
mod fault_sweep;
#[path = "faults/mod.rs"]
mod faults;
#[path = "adapters/host.rs"]
mod host;
#[path = "adapters/identity.rs"]
mod identity;
#[path = "adapters/virtio.rs"]
mod virtio;
