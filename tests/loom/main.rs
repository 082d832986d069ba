//! All interleavings of threads on the state that the library shares between vCPUs.
//!
//! Loom explores every order of the threads and every value that they may read. `make test` builds this
//! program with `--cfg loom`; without it the program is empty.
//!
//! The hypervisor is the model, and loom can switch threads at every hypercall. Loom does not know the
//! lock of the model, so this lock cannot hide that the library lacks an ordering.
#![cfg(loom)]

mod areas;
#[cfg(feature = "virtio-drivers")]
mod devices;
mod flush;
mod mappings;
mod p2m;
mod pool;
mod reserve;
mod scene;
mod trace;
