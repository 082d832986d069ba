//! The typed arguments of each hypercall, one family per file.
//!
//! Arguments that Xen takes as an array ([`MmuUpdate`], [`MmuExtOp`], [`TrapInfo`]) have Xen's own
//! layout, so that a slice of them is handed over as it is.

mod event;
mod hvm;
mod memory;
mod mmu;
mod multicall;
mod physdev;
mod sched;
mod segment;
mod trap;
mod vcpu;
mod version;

pub use event::{EventChannelOp, Port};
pub use hvm::{HvmOp, HvmParamIndex};
pub use memory::{MemFlags, MemoryOp};
pub use mmu::{MmuExtKind, MmuExtOp, MmuUpdate, MmuUpdateKind, Pte, UvmFlags};
pub use multicall::MulticallEntry;
pub use physdev::PhysdevOp;
pub use sched::{SchedOp, ShutdownReason};
pub use segment::SegmentBase;
pub use trap::TrapInfo;
pub use vcpu::VcpuOp;
pub use version::VersionOp;
