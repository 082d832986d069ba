//! `HYPERVISOR_vcpu_op` (`public/vcpu.h`).

use crate::abi::vcpu::{HvmContext, RegisterVcpuInfo, RunstateInfo};

/// A sub-operation of `vcpu_op`.
pub enum VcpuOp<'a> {
    /// Sets the state that a vCPU of a PV guest starts with.
    Initialise(&'a xen_sys::vcpu_guest_context),
    /// Sets the state that a vCPU of a translated guest starts with.
    InitialiseHvm(&'a HvmContext),
    /// Starts it.
    Up,
    /// Stops it.
    Down,
    /// Answers 1 if it runs, 0 if not.
    IsUp,
    /// What it is doing, and for how long it did what.
    GetRunstateInfo(&'a mut RunstateInfo),
    /// Moves its `vcpu_info` to a page of the guest's.
    RegisterVcpuInfo(&'a mut RegisterVcpuInfo),
}
