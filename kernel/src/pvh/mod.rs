//! The parts of the kernel that only a PVH guest uses.
//!
//! | question | place |
//! |---|---|
//! | how does a PVH guest mask events, sleep, start a vCPU, get saved? | `guest` |
//! | how does it boot? | `boot` |
//! | which memory does the domain have? | `memory` |
//! | which RAM of the memory map has no memory? | `unbacked` |
//! | how are its page tables built? | `paging` |
//! | how does the processor find its exception entries? | `descriptors` |
//! | what is the first state of a vCPU? | `vcpu` |

mod boot;
mod descriptors;
mod guest;
mod memory;
mod paging;
mod unbacked;
mod vcpu;

pub use boot::boot;
