//! The C interface of the library `xen-contig`.
//!
//! `include/xen_contig.h` is the interface, and its comments are the documentation for authors of C
//! kernels. This crate contains the functions that the header declares. A C kernel links them from the
//! static library `xen-contig-staticlib`. A kernel in Rust with drivers in C depends on this crate.
//!
//! | question | place |
//! |---|---|
//! | how does a C kernel describe itself? | [`platform`] |
//! | how does the library call that kernel? | `kernel`, `lock`, `xen` |
//! | what is in the storage that a C caller provides? | `handle` |
//! | what does an error say? | [`error`], [`codes`] |
//! | which functions are there? | [`allocator`], [`device`], [`buffer`], [`pool`], [`mapping`] |
//!
//! # Panics
//! No function panics on what a caller passes: a null pointer, a handle of another kind, or one that was
//! freed is an error. The kernel's own functions and its P2M are trusted, as
//! [`Platform`](xen_contig::platform::Platform) and [`P2m::table`](xen_contig::p2m::P2m::table) require.
#![no_std]

pub mod allocator;
pub mod buffer;
pub mod codes;
pub mod device;
pub mod error;
mod handle;
mod kernel;
mod lock;
pub mod mapping;
pub mod platform;
pub mod pool;
mod text;
mod xen;
