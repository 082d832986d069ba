//! The machine around the C program of these tests, which the model of Xen plays.
//!
//! `program/kernel.c` is a small C kernel, `program/selftest.c` a driver that also runs in the kernel image,
//! and `program/errors.c` provokes what only a model does on demand. They are linked with the library through
//! `c/include/xen_contig.h`.

mod any_input;
pub mod machine;
mod registers;
