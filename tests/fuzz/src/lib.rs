//! Random and hostile input for the parsers and for the readers of Xen's answers.
//!
//! * [`targets`]: each target takes bytes, passes them to the code under test and panics if that fails;
//! * [`engine`]: makes the bytes, guided by coverage if the build has it;
//! * [`scene`]: a guest on the model machine with its kernel and its buffers, which is checked after
//!   each step. The property tests and the fault sweep of the allocator use it too.
//!
//! The seeds, and the inputs that once found a failure, are in `corpus/<target>/`. `cargo test` replays
//! them.
//!
//! The fuzzer needs stable Rust alone. The compiler's `sancov-module` pass counts the edges that an
//! input takes, and `engine::coverage` is the runtime that the pass needs. libFuzzer would bring a
//! C++ compiler into the build, and `bolero` a hundred crates.

#![deny(unsafe_code)]

// This crate compiles the kernel's parser of the command line unchanged. The kernel has no `std`, so
// the parser uses `alloc`.
extern crate alloc;

pub mod engine;
pub mod scene;
pub mod targets;
