//! Streaming mappings on the model: a device reads and writes through the segments, and every byte is
//! compared.

#[path = "../faults/arm.rs"]
mod arm;
#[path = "../faults/mod.rs"]
mod faults;
#[path = "../random/mod.rs"]
mod random;

mod edges;
mod fault_sweep;
mod live;
mod memory;
mod pool;
mod property;
mod raw;
mod reference;
mod scene;
