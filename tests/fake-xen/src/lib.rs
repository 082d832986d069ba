//! A model hypervisor for host tests: it enforces Xen's rules and fights back.
//!
//! [`FakeXen`] stands in for Xen at the [`hypercall::Xen`] seam. Behind it is a machine whose frames
//! have owners, reference counts, types and content, a heap that can be fragmented, and vCPUs whose
//! TLBs hold every translation that nobody flushed. A thread is a vCPU (see [`run_on`]). It refuses what Xen refuses, with Xen's errno
//! and at Xen's point in the order of checks. Where a real machine would go wrong without a word
//! (an access through a stale translation, a page-table write to a data frame, a frame given up
//! while a vCPU can still reach it), the model stops the test.
//!
//! [`FakeGuest`] is the kernel around the code under test: a P2M, a linear mapping in first-level
//! tables that are real, typed frames, aliases on demand, and [`FakeGuest::check`], which finds
//! every frame in exactly one place (M1) and P2M, page tables and M2P in agreement (M4), or stops
//! the test.
//!
//! What goes wrong on demand is a [`Fault`] (a refusal at a certain call) or an [`ExchangeFault`]
//! (inside an exchange, made-up answers included).
//!
//! The model was written from Xen 4.17's `common/memory.c` and `arch/x86/mm.c`; each part names the
//! function that it stands for.

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
mod tables;
mod tlb;
mod vcpu;
mod xen;

pub use content::POISON;
pub use domain::GUEST;
pub use fault::{ExchangeFault, Fault, Lie};
pub use frame::{Owner, PageType};
pub use guest::{
    AreaConfig, Builder, Census, FakeAreas, FakeGuest, FakePlatform, LINEAR, Snapshot,
};
pub use log::{Asked, Logged};
pub use machine::NEIGHBOUR;
pub use vcpu::run_on;
pub use xen::{FakeXen, Mark};
