//! A model of Xen for tests on the host, which enforces Xen's rules.
//!
//! [`FakeXen`] implements [`hypercall::Xen`]. It has a machine whose frames have owners, reference
//! counts, types and bytes, a heap that can be fragmented, and vCPUs. The TLB of a vCPU keeps every
//! translation until it is flushed. A thread is a vCPU, see [`run_on`].
//!
//! The model refuses what Xen refuses, with Xen's errno and at Xen's point in the order of checks.
//! Where a real machine would go wrong without a message, the model stops the test. Examples are an
//! access through a stale translation, a page-table write to a data frame, and the exchange of a
//! frame that a vCPU can still reach.
//!
//! [`FakeGuest`] is the kernel around the code under test. It has a P2M, page tables in typed frames,
//! and aliases on demand. [`FakeGuest::check`] finds every frame in exactly one place
//! ([M1](xen_contig::rules#M1)) and compares P2M, page tables and M2P
//! ([M4](xen_contig::rules#M4)). [`FakePlatform`] adds a frame allocator, for tests of
//! [`Allocator`](xen_contig::dma::Allocator).
//!
//! A guest of [`GuestBuilder::real_memory`] has pointers that the host can follow. A test of a driver
//! uses them, and plays the device with [`FakeGuest::dma_read`] and [`FakeGuest::dma_write`]:
//!
//! ```
//! use fake_xen::{GuestBuilder, FakePlatform};
//! use xen_contig::dma::{Allocator, Constraints, Retain};
//!
//! let platform = &FakePlatform::new(GuestBuilder::new(1024).real_memory().build());
//! let allocator = Allocator::new(platform, Retain::default());
//! let buffer = allocator.alloc_coherent(16 << 10, &Constraints::default())?;
//!
//! // The driver writes through the pointer. The device knows the address in its register.
//! let descriptor = buffer.as_ptr().cast::<u64>();
//! // SAFETY: the buffer is mapped and larger than a word, and the access is volatile.
//! unsafe { descriptor.write_volatile(0x1234) };
//! let mut seen = [0; 8];
//! platform.guest().dma_read(buffer.dma_addr(), &mut seen);
//! assert_eq!(u64::from_le_bytes(seen), 0x1234);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A test provokes errors with a [`Fault`], which makes a certain call fail, and with an
//! [`ExchangeFault`], which makes an exchange fail inside or answer falsely.
//!
//! The model was written from Xen 4.17's `common/memory.c` and `arch/x86/mm.c`. Each part names the
//! function that it models.

#![deny(unsafe_code)]

mod content;
mod domain;
mod exchange;
mod fault;
mod frame;
mod guest;
mod heap;
mod list;
mod log;
mod machine;
mod mmu;
mod ram;
mod reservation;
mod shown;
mod tables;
mod tlb;
mod vcpu;
mod xen;

pub use content::POISON;
pub use domain::GUEST;
pub use fault::{ExchangeFault, Fault, Lie};
pub use frame::{Owner, PageType};
pub use guest::{
    AreaConfig, Census, Extent, ExtentExchanger, FakeAreas, FakeGuest, FakePlatform, GuestBuilder,
    LINEAR, Snapshot,
};
pub use log::{Asked, Logged};
pub use machine::NEIGHBOUR;
pub use vcpu::run_on;
pub use xen::{FakeXen, Mark};

/// Compiles and runs the code of `README.md`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ModelReadme;
