//! The guest kernel: everything that the component needs around it to boot on a bare Xen.
//!
//! | question | place |
//! |---|---|
//! | what happens first? | [`boot`] |
//! | what is mapped where? | [`layout`], [`paging`] |
//! | which virtual areas are there, who holds a frame? | [`areas`] |
//! | where does output go? | [`console`] |
//! | what does an exception do? | [`traps`], [`panic`] |
//! | which CPUs are there, and how do they get work? | [`vcpu`] |
//! | how does one wake another? | [`events`] |
//! | what may the command line say? | [`command_line`] |
//! | how do hypercalls get traced? | [`hypervisor`] |
//! | which devices are there? | [`pci`] |
//! | how does a device move data? | [`edu`], and `virtio` in an image built with `kernel-virtio` |
//! | how is the guest saved and restored? | [`suspend`] |
//! | what does the verdict mean? | [`verdict`] |

pub mod areas;
pub mod boot;
pub mod command_line;
pub mod console;
pub mod edu;
pub mod events;
pub mod exit;
pub mod heap;
pub mod hypervisor;
pub mod kind;
pub mod layout;
pub mod machine;
pub mod paging;
mod panic;
pub mod pci;
pub mod probe;
pub mod suspend;
pub mod traps;
pub mod vcpu;
pub mod verdict;
#[cfg(feature = "kernel-virtio")]
pub mod virtio;

pub(crate) use console::say;
pub use exit::{Exit, exit};
pub use machine::Machine;
