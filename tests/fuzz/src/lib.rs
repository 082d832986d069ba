//! Random and hostile input, for what parses and for what listens to Xen.
//!
//! * [`targets`]: each takes bytes and panics if what it feeds them to does wrong;
//! * [`engine`]: makes the bytes, guided by coverage where the build has it, blind where not;
//! * [`scene`]: a guest on the model machine with its kernel and its buffers, driven step by step
//!   and judged after each. The property tests and the fault sweep of the allocator use it, too.
//!
//! The seeds, and the inputs that have once found something, are in `corpus/<target>/`; `cargo test`
//! replays them.
//!
//! Nothing but stable Rust is needed. The compiler's `sancov-module` pass counts the edges that an
//! input takes, and `engine::coverage` is all that it wants of a runtime. libFuzzer would do as
//! well but brings a C++ compiler into the build, and `bolero` a hundred crates.

#![deny(unsafe_code)]

// The kernel's command line is read in here as it is in the kernel, which has no `std`.
extern crate alloc;

pub mod engine;
pub mod scene;
pub mod targets;
