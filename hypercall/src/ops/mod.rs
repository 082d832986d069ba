//! The typed arguments of each hypercall, one hypercall per file.
//!
//! Types that Xen takes as an array ([`MmuUpdate`], [`MmuExtOp`], [`TrapInfo`], [`MulticallEntry`])
//! have Xen's layout, so a slice of them needs no conversion.

mod event;
mod grant_table;
mod hvm;
mod memory;
mod mmu_update;
mod mmuext;
mod multicall;
mod physdev;
mod pte;
mod sched;
mod segment;
pub(crate) mod suspend;
mod trap;
mod vcpu;
mod version;

pub use event::{EventChannelOp, Port};
pub use grant_table::GrantTableOp;
pub use hvm::{HvmOp, HvmParamIndex};
pub use memory::{MemFlags, MemoryOp};
pub use mmu_update::{MmuUpdate, MmuUpdateKind};
pub use mmuext::{MmuExtKind, MmuExtOp};
pub use multicall::MulticallEntry;
pub use physdev::PhysdevOp;
pub use pte::{Pte, UvmFlags};
pub use sched::{SchedOp, ShutdownReason};
pub use segment::SegmentBase;
pub use suspend::Suspended;
pub use trap::TrapInfo;
pub use vcpu::VcpuOp;
pub use version::VersionOp;
