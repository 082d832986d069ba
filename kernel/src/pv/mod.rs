//! The parts of the kernel that only a PV guest uses.
//!
//! | question | place |
//! |---|---|
//! | how does a PV guest mask events, sleep, start a vCPU, get saved? | `guest` |
//! | how does it boot? | `boot` |
//! | how are its page tables built? | `paging` |
//! | how does Xen find its exception entries? | `traps` |
//! | what is the first state of a vCPU? | `vcpu` |
//! | what does a toolstack read and rewrite in the start info? | `start_info` |

mod boot;
mod guest;
mod paging;
mod start_info;
mod traps;
mod vcpu;

pub use boot::boot;
