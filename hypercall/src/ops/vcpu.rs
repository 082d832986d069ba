//! `HYPERVISOR_vcpu_op` (`public/vcpu.h`).

use crate::abi::vcpu::RegisterVcpuInfo;

/// A sub-operation of `vcpu_op`.
pub enum VcpuOp<'a> {
    /// Sets the state that a vCPU starts with.
    Initialise(&'a xen_sys::vcpu_guest_context),
    /// Starts it.
    Up,
    /// Stops it.
    Down,
    /// Answers 1 if it runs, 0 if not.
    IsUp,
    /// Moves its `vcpu_info` to a page of the guest's.
    RegisterVcpuInfo(&'a mut RegisterVcpuInfo),
}
