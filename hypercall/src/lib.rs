//! Typed Xen hypercalls for kernels: the one part of `xen-contig` that enters Xen.
//!
//! * [`Call`] is a hypercall as a value, and [`Xen`] the trait that issues it. [`RealXen`] (feature
//!   `real`) is Xen itself, [`Traced`] a wrapper that records every call. A model of Xen implements
//!   the same trait.
//! * [`ops`] holds the typed arguments, [`abi`] the structures that `xen-sys` lacks.
//! * [`Multicall`] is a batch that checks every result.
//! * [`trace`] holds what a tracer records, and the spans that group calls.
//! * [`sync`] is the lock of this crate and of the library.
//! * [`XenErrno`] is an error that Xen returned.
//!
//! ```
//! use hypercall::{ops::MemoryOp, DomId, Xen, XenErrno};
//!
//! /// Returns the number of frames that the calling domain may have.
//! fn max_pages(xen: &impl Xen) -> Result<u64, XenErrno> {
//!     // SAFETY: this sub-operation only returns a number.
//!     unsafe { xen.memory_op(MemoryOp::MaximumReservation(DomId::SELF)) }
//! }
//! ```
#![no_std]

pub mod abi;
mod call;
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

pub use call::Call;
pub use errno::XenErrno;
pub use frames::{AddressBits, DomId, Gfn, Mfn, Order, OutOfRange, PAGE_SIZE, Pfn};
#[cfg(feature = "real")]
pub use iret::pv_iret;
pub use multicall::{Multicall, MulticallError};
#[cfg(feature = "real")]
pub use real::RealXen;
pub use traced::{TraceHost, Traced};
pub use xen::Xen;

pub use x86_64::{VirtAddr, structures::paging::PageTableFlags};
