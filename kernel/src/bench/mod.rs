//! The option `bench=<pattern>:<order>:<bits>:<count>[,…]`: what allocations cost.
//!
//! Each entry prints one line. A tick is a tick of the TSC. Where QEMU counts instructions it is
//! one instruction, Xen's included. Only allocations and releases lie between two readings of the
//! TSC.
//!
//! | question | place |
//! |---|---|
//! | what does an entry ask for? | `entry` |
//! | in which order does it run, and what is the result of an entry? | `run` |
//! | how is the DMA allocator called? | `allocator` |
//! | how are ticks and hypercalls counted, and what does the line say? | `tally` |
//! | what do the patterns do? | `patterns`, `strict`, `bare` |
//! | how is the allocator forced to get memory from Xen? | `aside` |
//! | which run does `bare` exchange? | `unmapped` |
//! | which sequence does `churn` follow? | `sequence` |

mod allocator;
mod aside;
mod bare;
mod entry;
mod patterns;
mod run;
mod sequence;
mod strict;
mod tally;
mod unmapped;

use entry::BenchPattern;
pub use entry::{BadEntry, BenchEntry};
pub use run::run;
