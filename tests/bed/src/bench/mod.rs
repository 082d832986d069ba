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
//! | how are Linux and the image booted, and in which order? | `peer`, `image`, `run` |
//! | what does the table say, and the file of figures? | `report` |
//! | what became better or worse since another run? | `saved` |
//! | where in a document does the table stand? | `document` |

mod document;
mod figures;
mod image;
mod line;
mod peer;
mod report;
mod rows;
mod run;
mod saved;

pub use figures::parts;
pub use run::{check, run};
