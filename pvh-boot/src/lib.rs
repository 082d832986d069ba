//! Boots one ELF image under Xen, as a PV guest or as a PVH guest.
//!
//! Xen starts the two kinds of guest differently. A PV guest starts in 64-bit mode, on page tables that
//! the domain builder wrote, at the address in `XEN_ELFNOTE_ENTRY`. A PVH guest starts in 32-bit
//! protected mode without paging, at the physical address in `XEN_ELFNOTE_PHYS32_ENTRY`. This crate
//! contains the ELF notes for both. It brings both to 64-bit Rust, on the same stack and at the same
//! virtual addresses. [`BootInfo`] says which kind of guest Xen started.
//!
//! | question | module |
//! |---|---|
//! | What does Xen read from the ELF file? | `notes` |
//! | What are the first instructions of a PV guest? | `pv_entry` |
//! | What are the first instructions of a PVH guest? | `pvh_entry`, [`page_tables`], [`gdt`] |
//! | Where are the stack and its guard page? | [`stack`] |
//! | Where is the hypercall page? | [`hypercall_page`] |
//! | What is mapped where? | [`layout`] |
//! | What does the domain builder tell the kernel? | [`start_info`] |
//!
//! [`layout`] and [`start_info`] exist on every target; the readers run on any host. The other modules
//! exist only for `target_os = "none"`.
//!
//! # Example
//!
//! A kernel names its first function with [`entry!`]. The function reads the start info of its guest:
//!
//! ```
//! use pvh_boot::BootInfo;
//! # #[cfg(target_os = "none")]
//! use pvh_boot::page_tables::boot_memory;
//! use pvh_boot::start_info::{PvStartInfo, PvhStartInfo};
//! # #[cfg(not(target_os = "none"))]
//! # unsafe fn boot_memory<'a>(_: u64, _: usize) -> Option<&'a [u8]> { None }
//!
//! fn kernel(boot: BootInfo) -> ! {
//!     match boot {
//!         BootInfo::Pv { start_info } => {
//!             // SAFETY: Xen passes the address of its start info. The builder's page tables map
//!             // it, and no code writes to it.
//!             match PvStartInfo::read(unsafe { &*start_info }) {
//!                 Ok(info) => run(info.cmd_line, info.flags.initial_domain()),
//!                 Err(error) => panic!("start info: {error}"),
//!             }
//!         }
//!         BootInfo::Pvh { start_info } => {
//!             // SAFETY: The boot page tables are in use. The kernel has not written to any memory
//!             // outside its image, so it has not changed the start info.
//!             let memory = |address, len| unsafe { boot_memory(address, len) };
//!             match PvhStartInfo::read(start_info, memory) {
//!                 Ok(info) => run(info.cmd_line, info.flags.initial_domain()),
//!                 Err(error) => panic!("start info: {error}"),
//!             }
//!         }
//!     }
//! }
//!
//! fn run(command_line: &[u8], is_dom0: bool) -> ! {
//!     loop {}
//! }
//!
//! pvh_boot::entry!(kernel);
//! ```
//!
//! # Linking
//!
//! The kernel needs the relocation model `static`, the code model `kernel`, and a linker script. The
//! script must
//!
//! * place the image at [`layout::IMAGE_VIRT`], with load addresses [`layout::KERNEL_BASE`] lower;
//! * make `pvh_boot_pv_entry` the ELF entry;
//! * keep the sections `.note.Xen`, `.text.hypercall_page` and `.text.boot`;
//! * put `.note.Xen` into a `PT_NOTE` segment and into a loaded segment;
//! * end the image below [`layout::KERNEL_MAPPED`].
#![no_std]

#[cfg(test)]
extern crate std;

mod boot_info;
pub mod layout;
pub mod start_info;

// Documentation contains these modules on every host, so that its links work everywhere.
#[cfg(any(target_os = "none", doc))]
pub mod gdt;
#[cfg(any(target_os = "none", doc))]
pub mod hypercall_page;
#[cfg(any(target_os = "none", doc))]
mod notes;
#[cfg(any(target_os = "none", doc))]
pub mod page_tables;
#[cfg(any(target_os = "none", doc))]
mod pv_entry;
#[cfg(any(target_os = "none", doc))]
mod pvh_entry;
#[cfg(any(target_os = "none", doc))]
pub mod stack;

pub use boot_info::BootInfo;
#[cfg(any(target_os = "none", doc))]
pub use stack::{StackBounds, boot_stack};

#[doc(hidden)]
#[cfg(any(target_os = "none", doc))]
pub mod anchors {
    //! The symbols that [`entry!`](crate::entry) references.
    //!
    //! A linker picks only referenced members from an archive. These references make it pick the
    //! members with the notes and the entries.
    pub use crate::notes::NOTES;
    pub use crate::pv_entry::pvh_boot_pv_entry;
    pub use crate::pvh_entry::pvh_boot_pvh_entry;
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
