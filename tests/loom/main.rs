//! Every order in which threads can get on, and every value that they may see, for what the library
//! shares between vCPUs. `make test` runs it with `--cfg loom`; without, there is nothing here.
//!
//! Beneath is the model hypervisor, with another thread let in at every hypercall. The model's own
//! lock is none of loom's, so it hides no missing order of the library's.
#![cfg(loom)]

mod areas;
mod flush;
mod p2m;
mod pool;
mod reserve;
mod scene;
#[cfg(feature = "virtio-drivers")]
mod slots;
mod trace;
