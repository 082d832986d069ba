//! Boot one ELF image under Xen, as a PV or as a PVH guest.
//!
//! Xen starts the two kinds of guest in different worlds. A PV guest begins in
//! 64-bit mode on page tables that the domain builder wrote, at the address of
//! `XEN_ELFNOTE_ENTRY`. A PVH guest begins in 32-bit protected mode without
//! paging, at the physical address of `XEN_ELFNOTE_PHYS32_ENTRY`. This crate
//! carries the ELF notes of both, brings both to 64-bit Rust on the same stack at
//! the same virtual addresses, and says through [`BootInfo`] which one it was.
//!
//! | question | module |
//! |---|---|
//! | what does Xen read from the ELF file? | `notes` |
//! | what happens first in a PV guest? | `pv_entry` |
//! | what happens first in a PVH guest? | `pvh_entry`, `page_tables`, `gdt` |
//! | where is the stack, and its guard page? | `stack` |
//! | where do hypercalls go? | `hypercall_page` |
//! | what is mapped where? | [`layout`] |
//! | what did the domain builder say? | [`start_info`] |
//!
//! The start-info readers are pure and run on any host. Everything that only
//! makes sense in a guest is compiled for `target_os = "none"` alone.
//!
//! # Use
//!
//! ```ignore
//! fn main(boot: pvh_boot::BootInfo) -> ! { /* ... */ }
//! pvh_boot::entry!(main);
//! ```
//!
//! Link with relocation model `static`, code model `kernel`, and a linker script
//! that places the image at [`layout::IMAGE_VIRT`] with load addresses
//! [`layout::KERNEL_BASE`] lower and makes `pvh_boot_pv_entry` the ELF entry.
#![no_std]

#[cfg(test)]
extern crate std;

mod boot_info;
pub mod layout;
pub mod start_info;

#[cfg(target_os = "none")]
pub mod gdt;
#[cfg(target_os = "none")]
pub mod hypercall_page;
#[cfg(target_os = "none")]
mod notes;
#[cfg(target_os = "none")]
pub mod page_tables;
#[cfg(target_os = "none")]
mod pv_entry;
#[cfg(target_os = "none")]
mod pvh_entry;
#[cfg(target_os = "none")]
pub mod stack;

pub use boot_info::BootInfo;
#[cfg(target_os = "none")]
pub use stack::{StackBounds, boot_stack};

#[doc(hidden)]
#[cfg(target_os = "none")]
pub mod anchors {
    //! What [`entry!`](crate::entry) refers to, so that a linker that picks
    //! members from an archive picks the ones with notes and entries.
    pub use crate::notes::NOTES;
    pub use crate::pv_entry::pvh_boot_pv_entry;
    pub use crate::pvh_entry::pvh_boot_pvh_entry;
}
