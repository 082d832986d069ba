//! `bed bench`: what things cost, in instructions and in hypercalls.
//!
//! QEMU counts instructions, Xen's and the guest's alike, in place of time: a figure is the same on
//! every host.
//!
//! | question | place |
//! |---|---|
//! | what does a self-test say that it costs? | `figures` |
//! | which rows does the table have, and what should they reach? | `rows` |
//! | what does a `bench:` line say? | `line` |
//! | what does Linux need for it? | `peer` |

mod figures;
mod line;
mod peer;
mod rows;
mod run;

pub use figures::parts;
pub use run::run;
