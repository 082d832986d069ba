//! Everything of `xen-contig` that crosses into Xen, and the only part that does.
//!
//! * [`Xen`] is the one seam to the hypervisor. [`RealXen`] (feature `real`) calls it, a model may
//!   stand in for it, [`Traced`] wraps either and records every call without changing any.
//! * [`ops`] holds the typed arguments, [`abi`] the structures that `xen-sys` lacks.
//! * [`Multicall`] is a batch whose per-entry results can't be ignored.
//! * [`sync`] is the lock of this crate and of those on top of it.
//! * [`XenErrno`] is Xen's error with its raw value kept.
//!
//! ```
//! use hypercall::{ops::MemoryOp, DomId, Xen, XenErrno};
//!
//! /// How many frames the calling domain may hold at most.
//! fn max_pages(xen: &impl Xen) -> Result<u64, XenErrno> {
//!     // SAFETY: asks for a number, hands no memory to Xen.
//!     unsafe { xen.memory_op(MemoryOp::MaximumReservation(DomId::SELF)) }
//! }
//! ```
#![no_std]

pub mod abi;
mod errno;
mod frames;
#[cfg(feature = "real")]
mod iret;
mod multicall;
pub mod ops;
#[cfg(feature = "real")]
mod real;
pub mod sync;
pub mod trace;
mod traced;
mod xen;

pub use errno::XenErrno;
pub use frames::{AddressBits, DomId, Gfn, Mfn, Order, OutOfRange, PAGE_SIZE, Pfn};
#[cfg(feature = "real")]
pub use iret::pv_iret;
pub use multicall::{Multicall, MulticallError};
#[cfg(feature = "real")]
pub use real::RealXen;
pub use traced::{Clock, Traced};
pub use xen::Xen;

pub use x86_64::{VirtAddr, structures::paging::PageTableFlags};
